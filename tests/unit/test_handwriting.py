"""The experiments that read people's own images: they count what is right, sure and refused, and ship no image."""

import functools
import io
import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import REFERENCE, reference
from drawn import PAPER
from PIL import Image

from digits import mnist
from experiments import handwriting, runner, writing_choice
from experiments.runner import Context
from training import checkpoint


@pytest.fixture
def start(run_main):
    """Starts an experiment in a folder of the test's own, where the networks are the only ones shipped."""
    for name in "best", "numbers":
        shutil.copytree(REFERENCE / name, Path("Record/reference", name))
    return functools.partial(run_main, runner.main)


@pytest.fixture
def own_images(tmp_path):
    """A seven that is one, a seven labelled otherwise, and a blank image, in a folder with an index."""
    (tmp_path / "images").mkdir()
    blank = np.full_like(PAPER, 255)
    rows = {"a.png": (PAPER, "7", "1", ""), "b.png": (PAPER, "1", "2", "label"), "c.png": (blank, "7", "1", "no ink")}
    index = ["file,label,hand,cause", *(",".join([name, *row[1:]]) for name, row in rows.items())]
    (tmp_path / "images" / "index.csv").write_text("\n".join(index))
    for name, (image, *_) in rows.items():
        Image.fromarray(image).save(tmp_path / "images" / name)
    return tmp_path / "images"


def test_handwriting_counts_what_is_right_sure_and_refused(start, own_images):
    """By reader, by half of the hands and by cause; what was misread is drawn, and never shipped."""
    printed = start("handwriting", "--images", "images").succeeded().out
    assert "| digits | the script | all | 3 | 33.3 (6 to 79) | 1 | 67 | 50.0" in printed
    assert "| digits | the script | other half | 1 | 0.0 (0 to 79) | 0 | 100 | 0.0" in printed
    assert "| digits | cut at the gaps, then classified | all | 3 | 33.3" in printed
    assert "| no ink | 1 | 0.0 |" in printed and "| digits | 98 | other half | none |" in printed
    assert Path("Record/study/handwriting.png").stat().st_size > 1000
    shipped = handwriting.measure(Context("", reference=True, images=own_images), {"part": 0})
    assert not {"a.png", "b.png", "misread"} & set(re.findall(r"[\w.]+", json.dumps(shipped)))


def test_handwriting_needs_images(start, own_images, monkeypatch):
    monkeypatch.delenv("REAL_IMAGES", raising=False)
    start("handwriting").refused("no images: name a folder", "--images DIR")
    monkeypatch.setenv("REAL_IMAGES", "nowhere")
    assert start("handwriting").refused("nowhere has no index.csv").out == ""
    (own_images / "index.csv").write_text("name,label\na.png,7\n")
    start("handwriting", "--images", "images").refused("images/index.csv has no columns file and label")
    (own_images / "index.csv").write_text("file,label\nd.png,7\n")
    start("handwriting", "--images", "images").refused("images/d.png does not exist")


def test_photos_to_choose_by_show_the_digits_of_their_labels():
    """A network trained on plain lines reads some of them; by chance it would read none."""
    images, labels = (tensor.numpy() for tensor in mnist.load_dataset("digits", None, "test"))
    model, rng, right = checkpoint.network(reference("numbers")), np.random.default_rng(0), 0
    for i in range(20):
        chosen = np.random.default_rng(i).integers(0, len(labels), 1 + i % 5)
        file = writing_choice.photo_of_line(images[chosen], labels[chosen], rng)
        right += writing_choice.read(io.BytesIO(file), model) == "".join(map(str, labels[chosen]))
    assert right >= 6
    one, same, other = (
        writing_choice.photo_of_line(images[:3], labels[:3], np.random.default_rng(i)) for i in (1, 1, 2)
    )
    assert one == same != other


REAL = os.environ.get("REAL_IMAGES")
LEAST = {"digit": (0.99, 0.99), "number": (0.9, 0.97), "cheque": (0.675, 0.91)}  # right; right of those that are sure


@pytest.mark.skipif(not REAL, reason="REAL_IMAGES names no folder of people's own images")
def test_what_people_wrote_is_read(monkeypatch):
    """All images of the folder, with bounds a little below what docs/numbers.md says."""
    script = handwriting.SCRIPT
    monkeypatch.setattr(handwriting, "PARTS", 1)
    only = {script: handwriting.readers()[script]}
    monkeypatch.setattr(handwriting, "readers", lambda: only)
    found = handwriting.measure(Context("", images=Path(REAL), reference=True), {"part": 0})["readers"][script]
    for kind, (right, right_of_sure) in LEAST.items():
        total = sum(map(Counter, found[kind].values()), Counter())
        assert total["right"] >= right * total["images"], kind
        assert total["right from 0.9"] >= right_of_sure * total["sure from 0.9"], kind
