"""ClassifyTask_predict.py: a line or a row for each picture, a figure of what every layer saw, mistakes in one line."""

import functools

import numpy as np
import pytest
import torch
from PIL import Image
from test_pictures import PAPER, SEEN

import checkpoint
import utils
from model import LeNet5, pad
from recipes import RECIPES

torch.manual_seed(0)
MODEL = LeNet5().eval()
SCORES = utils.class_scores(MODEL, pad(torch.from_numpy(SEEN)[None]))[0]
DIGIT, RUNNER_UP = SCORES.topk(2).indices.tolist()
PROBABILITY = SCORES.softmax(0)[DIGIT].item()


@pytest.fixture
def predict(call, tmp_path):
    """Runs the script in a folder with two pictures, one.png and two.png, and MODEL's checkpoint in its Record."""
    weights = {name: parameter.detach() for name, parameter in MODEL.named_parameters()}
    means = {f"{subset}_{what}": 0.5 for subset in ("train", "test") for what in ("loss", "accuracy")}
    history = [{"epoch": 1, **means, "seconds": 1.0, "path": "plain"}]
    optimizer = {kind: weights for kind in checkpoint.KINDS["adam"]}
    run = checkpoint.Checkpoint(RECIPES["adam"], "digits", 0, history, weights, weights, optimizer, utils.versions())
    checkpoint.save(tmp_path / "Record" / checkpoint.FILE, run)
    for name in ("one.png", "two.png"):
        Image.fromarray(PAPER).save(tmp_path / name)
    return functools.partial(call, "ClassifyTask_predict.py")


def test_a_line_a_picture(predict):
    run = predict("one.png", "two.png")
    line = f"{DIGIT}, probability {PROBABILITY:.1%}, runner-up {RUNNER_UP}"
    assert run == (0, f"one.png: {line}\ntwo.png: {line}\n", "")


def test_csv(predict, tmp_path):
    (tmp_path / "two.png").rename(tmp_path / "a, ä €.png")
    run = predict("--csv", "one.png", "a, ä €.png").succeeded()
    rest = f"{DIGIT},{PROBABILITY:.4f},{RUNNER_UP}\n"
    assert run.out == f'file,digit,probability,runner_up\none.png,{rest}"a, ä €.png",{rest}'


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
    (tmp_path / "one.png").rename(tmp_path / "..a$b$ c.png")
    run = predict("--figure", "--checkpoint", f"elsewhere/{checkpoint.FILE}", "..a$b$ c.png", "missing.png", "two.png")
    assert run.status == 2 and run.err.count("\n") == 1 and not (tmp_path / "Record").exists()
    names = {path.name for path in (tmp_path / "elsewhere").iterdir()} - {checkpoint.FILE}
    assert names == {"prediction-1.png", "prediction-3.png"}
    assert Image.open(tmp_path / "elsewhere" / "prediction-3.png").size == (1660, 1210)
    predict("--figure", "--checkpoint", f"elsewhere/{checkpoint.FILE}", "--record-dir", "figures", "two.png")
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["prediction-1.png"]


MISTAKES = {
    "PICTURE": [],
    f"no checkpoint at nowhere/{checkpoint.FILE}": ["one.png", "--record-dir", "nowhere"],
    "two.png is no checkpoint": ["one.png", "--checkpoint", "two.png"],
    "--device nothing": ["one.png", "--device", "nothing"],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes(words, predict):
    predict(*MISTAKES[words]).refused(words)
