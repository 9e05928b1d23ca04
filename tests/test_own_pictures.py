"""The measure of one's own pictures: repeatable, honest about what it needs, and what was measured is good enough."""

import functools
import json

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import plots
import utils
from experiments import own_pictures


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, own_pictures.main)


def test_pictures_are_the_same_each_time():
    digit = np.zeros((28, 28), np.uint8)
    digit[8:20, 12:16] = 255
    files = [own_pictures.picture_file(digit, np.random.default_rng([0, i])) for i in (0, 0, 1)]
    assert files[0] == files[1] != files[2]
    assert own_pictures.prepared(files[0]).max() == 255


def test_without_mnist(run, monkeypatch):
    def download(archive, md5):
        raise utils.DownloadError(f"{archive} is missing")

    monkeypatch.setattr(utils, "download", download)
    run().refused("is missing")


def test_a_few(run, mnist, monkeypatch, tmp_path):
    monkeypatch.setattr(own_pictures, "COUNT", 16)
    monkeypatch.setattr(own_pictures, "LEAST", 0.8)
    run("--data-dir", mnist).succeeded()
    result = json.loads((tmp_path / "Record" / "study" / "own_pictures.json").read_text())
    assert result["pictures"] == 16 and 0 <= result["accuracy"] <= 1
    with Image.open(tmp_path / "Record" / "study" / "own_pictures.png") as picture:
        assert picture.width == round(plots.WIDTH * plots.DPI)


def test_what_was_measured():
    path = ROOT / "Record" / "study" / "own_pictures.json"
    if not path.exists():
        pytest.skip(f"{path} has not been measured")
    result = json.loads(path.read_text())
    assert result["pictures"] == 1000 and result["kept"] >= 0.98
    assert result["kept"] == pytest.approx(result["accuracy"] / result["plain_accuracy"])
