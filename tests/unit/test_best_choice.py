"""What was tried to make recipe best better, and the paper's way to train the sweep: what they change and see."""

import numpy as np
import torch
from conftest import few_digits
from test_experiments import TINY, rehearse, start  # noqa: F401, fixtures

from digits import mnist
from digits.augmentation import augment
from experiments import best_choice
from experiments.section_7 import pictures
from model import pad
from reading.sweep import NONE
from training import loop
from training.recipes import RECIPES

IMAGES, LABELS = mnist.load_dataset("digits", None, "train")
DIGITS = pad(IMAGES[:400])


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def angle(image: torch.Tensor) -> float:
    """Degrees by which the ink's longer axis leans from the vertical."""
    y, x = np.nonzero(image.numpy() > 100)
    return float(np.degrees(np.arctan(np.polyfit(y, x, 1)[0])))


def test_a_setting_trains_without_a_part_that_validates_and_never_loads_the_test_set(rehearse, monkeypatch):  # noqa: F811
    def training_digits_only(name, data_dir, subset):
        assert subset == "train"
        return few_digits(name, data_dir, subset)

    monkeypatch.setattr(mnist, "load_dataset", training_digits_only)
    seen, train = [], loop.train
    monkeypatch.setattr(loop, "train", lambda recipe, data, *rest: seen.append(data) or train(recipe, data, *rest))
    found = rehearse("best_choice", "100 epochs", "100 epochs, EMA of 20", "--seeds", 0, 1)
    assert list(found["variants"]) == ["100 epochs", "100 epochs, EMA of 20"]
    images = training_digits_only("digits", None, "train")[0]
    for data, part in zip(seen, (0, 1, 0, 1)):
        size = len(data.test[1])
        assert abs(size - len(images) / 6) <= 1 and len(data.train[1]) + size == len(images)
        assert torch.equal(data.test[0], images[part * size : (part + 1) * size])
    once, averaged = (next(run for run in found["runs"] if run["variant"] == name) for name in found["variants"])
    assert once["also"] == {} and averaged["also"] == {"EMA of": 20}


def test_the_teachers_of_seeds_are_the_networks_of_best(rehearse):  # noqa: F811
    assert [run["variant"] for run in rehearse("seeds", "distilled")["runs"]] == ["distilled"]
    kept = {f"best-{seed}.safetensors" for seed in range(1, 6)} | {"distilled-0.safetensors"}
    assert {file.name for file in (TINY / "networks").iterdir()} == kept


def test_digits_are_turned_both_ways_and_their_strokes_made_thicker_and_thinner():
    bar = torch.zeros(400, 32, 32, dtype=torch.uint8)
    bar[:, 6:26, 15:17] = 255
    angles = np.array([angle(image) for image in best_choice.augment_more(bar, random(), 0, 0, rotation=15)])
    assert angles.min() < -12 and angles.max() > 12 and np.abs(angles).max() < 16.5
    ink = best_choice.augment_more(DIGITS, random(), 0, 0, width=0.4).sum((1, 2)) / DIGITS.sum((1, 2))
    assert ink.min() < 0.85 and ink.max() > 1.15 and abs(ink.median() - 1) < 0.1
    assert torch.equal(best_choice.augment_more(DIGITS, random(), 0.7, 0.5), augment(DIGITS, random(), 0.7, 0.5))


def test_pictures_of_section_7_have_a_digit_or_a_gap_in_the_middle_and_a_tenth_inverted():
    made, classes = pictures(DIGITS, LABELS[:400], RECIPES["numbers"], random())
    between = torch.arange(400) % 2 == 1
    assert made.shape == (400, 32, 32) and (classes[between] == NONE).all()
    assert torch.equal(classes[~between], LABELS[:400][~between])
    middle = made[:, 6:26, 14:18].float().mean((1, 2))
    assert middle[~between].mean() > 1.5 * middle[between].mean()
    assert 0.08 < (made[:, :2] > 127).float().mean() < 0.13  # rows above the digits: nothing but inverted pixels


def test_both_ways_to_train_the_sweep_are_measured_on_the_same_lines(rehearse):  # noqa: F811
    found = rehearse("section_7")
    one, other = found["runs"]
    assert (one["variant"], other["variant"]) == ("CTC", "as in the paper") and one["recipe"] == other["recipe"]
    assert one["read"].keys() == other["read"].keys() and one["read"] != other["read"]
