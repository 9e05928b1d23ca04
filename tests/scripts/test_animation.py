"""The animation of the page to draw on, which the README shows."""

import numpy as np
import pytest
from conftest import REFERENCE, reference
from PIL import Image

from tools import animation, browser
from utils import UserError


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    monkeypatch.setattr(animation, "networks", lambda args: (reference(), reference("numbers")))


def test_the_animation_shown_fits_a_readme():
    with Image.open(REFERENCE / "demo.gif") as gif:
        seconds = sum(gif.seek(i) or gif.info["duration"] for i in range(gif.n_frames)) / 1000
        assert gif.size[0] == 830 and gif.info["loop"] == 0 and 6 <= seconds <= 12  # 0: for ever
    assert (REFERENCE / "demo.gif").stat().st_size < 1_500_000


def test_it_is_made_anew_and_ends_as_its_poster(run_main, tmp_path, monkeypatch):
    try:
        with browser.chromium():
            pass
    except UserError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(animation, "STROKES", 3)
    monkeypatch.setattr(animation, "PLACES", 12)
    run_main(animation.main, "--output", "own.gif").succeeded()
    with Image.open(tmp_path / "own.gif") as gif, Image.open(tmp_path / "own.png") as png:
        poster, frames = np.asarray(png.convert("L").resize(gif.size), int), []
        for i in range(gif.n_frames):
            gif.seek(i)
            frames.append(abs(np.asarray(gif.convert("L"), int) - poster).mean())
    assert frames[-1] < min(frames) + 0.5 and frames[-1] < frames[0] / 2, frames


def test_what_is_missing_is_said_in_a_line(run_main, monkeypatch):
    run_main(animation.main, "--output", "a.png").refused("a.png is no .gif file")
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    run_main(animation.main).refused("no chromedriver in the path; install chromium and chromedriver")
    monkeypatch.setattr(animation, "networks", lambda args: (reference(), None))
    run_main(animation.main).refused("no network that reads numbers")
