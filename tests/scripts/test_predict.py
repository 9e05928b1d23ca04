"""ClassifyTask_predict.py: a line or a row for each image, a figure of what every layer saw, mistakes in one line."""

import functools
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REFERENCE, reference
from drawn import PAPER, SEEN
from PIL import Image, ImageDraw, ImageOps

import utils
from model import pad
from training import checkpoint
from training.checkpoint import FILE


@pytest.fixture
def predict(call, tmp_path):
    """Runs the script in a folder with one.png, two.png, 1998.jpg, and networks for digits and numbers in Record."""
    checkpoint.save(tmp_path / "Record" / FILE, reference())
    for name in "best", "numbers":
        checkpoint.save(tmp_path / "Record" / "reference" / name / FILE, reference(name))
    checkpoint.save(tmp_path / "Record" / "numbers" / FILE, reference("numbers"))
    for name in ("one.png", "two.png"):
        Image.fromarray(PAPER).save(tmp_path / name)
    shutil.copy(REFERENCE / "number.jpg", tmp_path / "1998.jpg")
    return functools.partial(call, "ClassifyTask_predict.py")


@pytest.fixture(scope="module")
def expected():
    """The digit in one.png and two.png, its probability, and the runner-up, by --digit and the network of Record."""
    logits = utils.class_logits(checkpoint.network(reference()), pad(torch.from_numpy(SEEN)[None]))[0]
    digit, runner_up = logits.topk(2).indices.tolist()
    found = digit, logits.softmax(0)[digit].item(), runner_up
    return found, "{}, probability {:.1%}, runner-up {}\n".format(*found)


SEVEN = r"7, probability (9\d\.\d|100\.0)%, runner-up \d+\n"  # of no flag: several readings vote
OWN = ("--record-dir", "Record", "--digit")


def test_a_line_or_a_row_an_image(predict, expected, tmp_path):
    found, line = expected
    assert predict(*OWN, "one.png", "two.png") == (0, f"one.png: {line}two.png: {line}", "")
    (tmp_path / "two.png").rename(tmp_path / "a, ä €.png")
    digit, probability, runner_up = found
    rest = f"1,{digit},{probability:.4f},yes,{runner_up}\n"
    rows = predict(*OWN, "--csv", "one.png", "a, ä €.png").succeeded().out
    assert rows == f'file,line,number,probability,sure,runner_up\none.png,{rest}"a, ä €.png",{rest}'


def test_numbers_and_digits_are_told_apart(predict, tmp_path):
    number, _, digit, _ = predict("1998.jpg", "one.png", "--figure").succeeded().out.splitlines(keepends=True)[1:]
    form = r"1998.jpg: 1998( \?)?, probability [\d.]+%, runner-up \d+; of each digit ([\d.]+%(, )?){4}\n"
    assert re.fullmatch(form, number) and re.fullmatch(f"one.png: {SEVEN}", digit)
    assert (tmp_path / "Record" / "prediction-1.png").stat().st_size > 10_000
    digits_alone = ("--digit",), ("--checkpoint", f"Record/{FILE}"), ("--record-dir", "Record/reference/best")
    for flag, *file in digits_alone:  # the advice is to leave out what was given
        words = f"1998.jpg shows several digits; cut one out, or leave {flag} out"
        predict(flag, *file, "--csv", "1998.jpg").refused(words)
    assert predict("--number", "--csv", "one.png").out.split("\n")[1].startswith("one.png,1,7,")
    image = Image.open("1998.jpg").convert("L")
    image.rotate(6, Image.Resampling.BICUBIC, expand=True, fillcolor=200).save("slanting.png")
    ImageOps.invert(image).resize((300, 140)).save("light, small.png")
    ImageOps.expand(image, (700, 100), 225).save("wide.png")
    others = predict("slanting.png", "light, small.png", "wide.png").succeeded().out
    assert len(re.findall(r"png: 1998(?: \?)?, probability", others)) == 3


def test_figures_have_the_number_of_their_image(predict, tmp_path):
    """They lie in Record, or where --record-dir says."""
    flags = ("--figure", "--checkpoint", (tmp_path / "Record" / FILE).rename("mine"))
    done = predict(*flags, "one.png", "missing.png", "two.png")
    names = re.findall("^figure: (.*)$", done.out, re.M)
    assert done.status == 2 and names == ["Record/prediction-1.png", "Record/prediction-3.png"]
    assert {path.name for path in (tmp_path / "Record").glob("*.*")} == {"prediction-1.png", "prediction-3.png"}
    for flag, folder in (("--record-dir=figures", "figures"), ("--reference", "Record/reference")):
        assert "figure" not in predict(*flags, flag, "--csv", "two.png").succeeded().out
        assert [path.name for path in (tmp_path / folder).glob("*.png")] == ["prediction-1.png"]


def test_the_best_networks_shipped_read_unless_others_are_named(predict, expected, tmp_path):
    """A run of one's own never takes their place in silence."""
    best, numbers = (f"Record/reference/{name}/{FILE}" for name in ("best", "numbers"))
    said = predict("one.png").succeeded().out
    assert re.fullmatch(f"read by the networks shipped, {best}, {numbers}; .*\none.png: {SEVEN}", said)
    assert predict("--digit", "one.png").out.startswith(f"read by the network shipped, {best};")
    assert predict("--csv", "one.png").out.startswith("file,")
    (tmp_path / "Record").rename("own")
    assert predict("--record-dir", "own", "--digit", "one.png").out == f"one.png: {expected[1]}"
    assert re.fullmatch(f"one.png: {SEVEN}", predict("--record-dir", "own", "one.png").out)
    (tmp_path / "own" / "numbers" / FILE).unlink()  # a record folder without a network for numbers
    assert predict("--record-dir", "own", "one.png").out == f"one.png: {expected[1]}"
    predict("--record-dir", "own", "--number", "one.png").refused(f"no checkpoint at own/numbers/{FILE}")


INK = 255 - np.asarray(Image.fromarray(PAPER).crop((60, 30, 170, 220)))
SEVENS = 255 - np.hstack([INK, 0 * INK[:, :40], INK, 0 * INK[:, :40], INK])


def test_several_lines_are_read_line_by_line(predict, tmp_path):
    white = np.full_like(SEVENS, 255)
    second = np.pad(SEVENS[:, :260], ((0, 0), (0, SEVENS.shape[1] - 260)), constant_values=255)
    Image.fromarray(np.vstack([SEVENS, white, second])).save("lines.png")
    rows = predict("--csv", "lines.png", "one.png").succeeded().out.splitlines()
    assert [row.split(",")[:3] for row in rows[1:]] == [
        ["lines.png", "1", "777"],
        ["lines.png", "2", "77"],
        ["one.png", "1", "7"],
    ]
    said = predict("--figure", "lines.png").succeeded().out
    assert re.search("lines.png, line 1: 777.*\n.*\nlines.png, line 2: 77", said)
    assert {path.name for path in (tmp_path / "Record").glob("*.png")} == {"prediction-1-1.png", "prediction-1-2.png"}


def test_no_single_digit_is_said_of_several_or_of_a_page(predict, tmp_path):
    """Several tall pieces are several digits; a page of text is refused, or read as no digit that is sure."""
    Image.fromarray(SEVENS).save("777.png")
    assert predict("--csv", "777.png").succeeded().out.splitlines()[1].startswith("777.png,1,777,")
    text = "The quick brown fox jumps over the lazy dog"
    for name, lines, pitch in ("page.png", 20, 40), ("dense.png", 24, 31), ("paragraph.png", 3, 60):
        page = Image.new("L", (700, 60 + lines * pitch), 240)
        for y in range(lines):
            ImageDraw.Draw(page).text((50, 30 + y * pitch), text, 30, font_size=26)
        page.save(name)
        predict(name).refused(name)
        predict("--digit", name).refused(name)


def test_doubt_is_shown(predict):
    """A letter between two sevens: a question mark on screen, "no" among the values."""
    image = Image.fromarray(255 - np.hstack([INK, np.zeros((190, 150), np.uint8), INK]))
    ImageDraw.Draw(image).text((125, 10), "M", 30, font_size=150)
    image.save("doubt.png")
    assert " ?, probability" in predict("doubt.png").succeeded().out
    assert predict("--csv", "doubt.png").succeeded().out.splitlines()[1].split(",")[4] == "no"


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes there")
def test_a_pipe_or_a_device_is_not_waited_for(predict):
    os.mkfifo("pipe")
    threading.Thread(target=Path("pipe").write_bytes, args=[b""], daemon=True).start()  # for whoever reads it anyway
    for name in "pipe", "/dev/zero":
        predict(name).refused(f"{name} is a pipe or a device; name a file")


def test_mistakes(predict, tmp_path):
    (tmp_path / "folder").mkdir()
    Image.fromarray(np.full_like(PAPER, 255)).save("blank.png")
    run = predict("--csv", "two\nlines.png", "folder", "blank.png", "one.png")
    assert run.status == 2 and [line.split(",")[0] for line in run.out.splitlines()] == ["file", "one.png"]
    bad = (r"'two\nlines.png' does not exist", "folder is a folder; name the images in it", "blank.png shows no digit")
    for words, line in zip(bad, run.err.splitlines(), strict=True):
        assert line.startswith(f"ClassifyTask_predict.py: {words}")
    predict().refused("IMAGE")
    predict("one.png", "--record-dir", "nowhere").refused(f"no checkpoint at nowhere/{FILE}")
    predict("--digit", "--number", "one.png").refused("not allowed")
    for kind, file, words in ("--digit", "numbers/", "reads numbers"), ("--number", "", "reads single digits"):
        predict(kind, "--checkpoint", f"Record/{file}{FILE}", "one.png").refused(words, f"leave {kind} out")
