"""ClassifyTask_predict.py: a line or a row for each picture, a figure of what every layer saw, mistakes in one line."""

import functools
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, reference
from PIL import Image, ImageOps
from test_pictures import PAPER, SEEN

import checkpoint
import utils
from model import pad


@pytest.fixture
def predict(call, tmp_path):
    """Runs the script in a folder with two pictures, one.png and two.png, and a checkpoint in its Record."""
    checkpoint.save(tmp_path / "Record" / checkpoint.FILE, reference())
    for name in ("one.png", "two.png"):
        Image.fromarray(PAPER).save(tmp_path / name)
    return functools.partial(call, "ClassifyTask_predict.py")


@pytest.fixture
def expected():
    """The digit in both pictures, its probability, and the runner-up."""
    scores = utils.class_scores(checkpoint.network(reference()), pad(torch.from_numpy(SEEN)[None]))[0]
    digit, runner_up = scores.topk(2).indices.tolist()
    return digit, scores.softmax(0)[digit].item(), runner_up


def test_a_line_a_picture(predict, expected):
    line = "{}, probability {:.1%}, runner-up {}".format(*expected)
    assert predict("one.png", "two.png") == (0, f"one.png: {line}\ntwo.png: {line}\n", "")


def test_csv(predict, expected, tmp_path):
    (tmp_path / "two.png").rename(tmp_path / "a, ä €.png")
    run = predict("--csv", "one.png", "a, ä €.png").succeeded()
    rest = "{},{:.4f},{}\n".format(*expected)
    assert run.out == f'file,number,probability,runner_up\none.png,{rest}"a, ä €.png",{rest}'


def test_a_picture_that_cannot_be_read_is_a_line_and_stops_nothing(predict, tmp_path):
    (tmp_path / "folder").mkdir()
    Image.fromarray(np.full_like(PAPER, 255)).save(tmp_path / "blank.png")
    bad = {"missing.png": "does not exist", "folder": "cannot be read", "blank.png": "shows no digit"}
    run = predict("--csv", *bad, "two\nlines.png", "one.png")
    assert run.status == 2 and [line.split(",")[0] for line in run.out.splitlines()] == ["file", "one.png"]
    *lines, last = run.err.splitlines()
    for (name, words), line in zip(bad.items(), lines, strict=True):
        assert line.startswith(f"ClassifyTask_predict.py: {name} {words}")
    assert "two\\nlines.png" in last


def test_figures(predict, tmp_path):
    """They lie beside the checkpoint, or where --record-dir says, and have the number of their picture."""
    (tmp_path / "Record").rename(tmp_path / "elsewhere")
    where = ("--checkpoint", f"elsewhere/{checkpoint.FILE}")
    assert predict("--figure", *where, "one.png", "missing.png", "two.png").status == 2
    names = {path.name for path in (tmp_path / "elsewhere").iterdir()}
    assert names == {checkpoint.FILE, "prediction-1.png", "prediction-3.png"}
    predict("--figure", *where, "--record-dir", "figures", "two.png").succeeded()
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["prediction-1.png"]


@pytest.fixture
def numbers(predict, tmp_path):
    """predict, with the committed network for numbers, and 1998.jpg beside the other pictures."""
    for name in (f"numbers/{checkpoint.FILE}", "number.jpg"):
        (tmp_path / "Record" / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "Record" / name, tmp_path / "Record" / name)
    (tmp_path / "Record" / "number.jpg").rename(tmp_path / "1998.jpg")
    return predict


def test_numbers_and_digits_are_told_apart(numbers, expected, tmp_path):
    run = numbers("1998.jpg", "one.png", "--figure").succeeded()
    number, digit = run.out.splitlines()
    assert re.fullmatch(r"1998.jpg: 1998, probability [\d.]+%, runner-up \d+; of each digit ([\d.]+%(, )?){4}", number)
    assert digit == "one.png: {}, probability {:.1%}, runner-up {}".format(*expected)
    assert (tmp_path / "Record" / "prediction-1.png").stat().st_size > 10_000
    assert numbers("--digit", "one.png").out == f"{digit}\n"
    assert "1998" not in numbers("--digit", "1998.jpg").out.split(":")[1]
    assert numbers("--number", "--csv", "one.png").out.split("\n")[1].startswith("one.png,7,")


def test_what_no_number_can_be_read_in(numbers, tmp_path):
    grey = np.asarray(Image.open(tmp_path / "1998.jpg").convert("L"))
    Image.fromarray(np.vstack([grey, grey])).save(tmp_path / "two lines.png")
    numbers("two lines.png").refused("shows several lines")
    numbers("--digit", "--number", "one.png").refused("not allowed")
    file = f"Record/numbers/{checkpoint.FILE}"
    numbers("--digit", "--checkpoint", file, "one.png").refused("reads numbers", "leave --digit out")
    numbers("--number", "--checkpoint", f"Record/{checkpoint.FILE}", "one.png").refused("reads single digits")


def test_slanting_light_and_other_lines_are_read_alike(numbers, tmp_path):
    picture = Image.open(tmp_path / "1998.jpg").convert("L")
    changed = {
        "slanting": picture.rotate(6, Image.Resampling.BICUBIC, expand=True, fillcolor=200),
        "light on dark": ImageOps.invert(picture),
        "small": picture.resize((300, 140)),
        "wide": ImageOps.expand(picture, (700, 100, 700, 100), 225),
    }
    for name, image in changed.items():
        image.save(tmp_path / f"{name}.png")
    run = numbers("--csv", *(f"{name}.png" for name in changed)).succeeded()
    assert [line.split(",")[1] for line in run.out.splitlines()[1:]] == ["1998"] * 4


def test_mistakes(predict):
    predict().refused("PICTURE")
    predict("one.png", "--record-dir", "nowhere").refused(f"no checkpoint at nowhere/{checkpoint.FILE}")
