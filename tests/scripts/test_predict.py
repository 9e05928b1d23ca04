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
    rest = "{},{:.4f},{}\n".format(*found)
    rows = predict(*OWN, "--csv", "one.png", "a, ä €.png").succeeded().out
    assert rows == f'file,number,probability,runner_up\none.png,{rest}"a, ä €.png",{rest}'


def test_numbers_and_digits_are_told_apart(predict, tmp_path):
    number, digit = predict("1998.jpg", "one.png", "--figure").succeeded().out.splitlines(keepends=True)[1:]
    form = r"1998.jpg: 1998, probability [\d.]+%, runner-up \d+; of each digit ([\d.]+%(, )?){4}\n"
    assert re.fullmatch(form, number) and re.fullmatch(f"one.png: {SEVEN}", digit)
    assert (tmp_path / "Record" / "prediction-1.png").stat().st_size > 10_000
    assert "1998" not in predict("--digit", "1998.jpg").out.split(":")[1]
    assert predict("--number", "--csv", "one.png").out.split("\n")[1].startswith("one.png,7,")
    image = Image.open("1998.jpg").convert("L")
    image.rotate(6, Image.Resampling.BICUBIC, expand=True, fillcolor=200).save("slanting.png")
    ImageOps.invert(image).resize((300, 140)).save("light, small.png")
    ImageOps.expand(image, (700, 100), 225).save("wide.png")
    others = predict("slanting.png", "light, small.png", "wide.png").succeeded().out
    assert others.count("png: 1998, probability") == 3


def test_figures_have_the_number_of_their_image(predict, tmp_path):
    """They lie in Record, or where --record-dir says."""
    flags = ("--figure", "--checkpoint", (tmp_path / "Record" / FILE).rename("mine"))
    assert predict(*flags, "one.png", "missing.png", "two.png").status == 2
    assert {path.name for path in (tmp_path / "Record").glob("*.*")} == {"prediction-1.png", "prediction-3.png"}
    for flag, folder in (("--record-dir=figures", "figures"), ("--reference", "Record/reference")):
        predict(*flags, flag, "two.png").succeeded()
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


def test_no_single_digit_is_said_of_several_or_of_a_page(predict, tmp_path):
    """Several tall pieces are several digits; a page of text is refused, and so are two lines."""
    ink = 255 - np.asarray(Image.fromarray(PAPER).crop((60, 30, 170, 220)))
    Image.fromarray(255 - np.hstack([ink, 0 * ink, ink, 0 * ink, ink])).save("777.png")
    page = Image.new("L", (700, 900), 240)
    for y in range(40, 860, 40):
        ImageDraw.Draw(page).text((50, y), "The quick brown fox jumps over the lazy dog", 30, font_size=26)
    page.save("page.png")
    rows = predict("--csv", "777.png").succeeded().out.splitlines()
    assert rows[1].startswith("777.png,777,")
    predict("page.png").refused("shows several lines")


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
    grey = np.asarray(Image.open("1998.jpg").convert("L"))
    Image.fromarray(np.vstack([grey, grey])).save("two.png")
    predict("two.png").refused("shows several lines")
    predict().refused("IMAGE")
    predict("one.png", "--record-dir", "nowhere").refused(f"no checkpoint at nowhere/{FILE}")
    predict("--digit", "--number", "one.png").refused("not allowed")
    for kind, file, words in ("--digit", "numbers/", "reads numbers"), ("--number", "", "reads single digits"):
        predict(kind, "--checkpoint", f"Record/{file}{FILE}", "one.png").refused(words, f"leave {kind} out")
