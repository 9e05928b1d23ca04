"""torch.hub.load with and without trained weights, among whatever else the caller has imported."""

import shutil
import sys
import types

import pytest
import torch
from conftest import ROOT, digits

import checkpoint
import recipes
from model import LeNet5, pad, scale
from training import train

NAMES = [("lenet5", "adam"), ("lenet5_1998", "1998"), ("lenet5_best", "best")]
ENTRIES = pytest.mark.parametrize(("entry", "name"), NAMES)
FILES = {name: recipes.record_dir(recipe, "mnist") / checkpoint.FILE for name, recipe in recipes.RECIPES.items()}
IMAGES = torch.arange(2 * 28 * 28, dtype=torch.uint8).view(2, 28, 28)


@pytest.fixture
def load(monkeypatch):
    """torch.hub.load of a folder, by a caller who has other modules of these names, and no numba."""
    for name in ("utils", "model", "checkpoint", "training", "recipes"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "numba", None)
    return lambda folder, *entry, **options: torch.hub.load(str(folder), *entry, source="local", **options)


@ENTRIES
def test_an_untrained_network(entry, name, load):
    torch.manual_seed(3)
    expected = LeNet5(**recipes.RECIPES[name].network).eval()
    torch.manual_seed(3)
    network = load(ROOT, entry)
    assert not network.training and torch.equal(network(scale(pad(IMAGES))), expected(scale(pad(IMAGES))))
    assert torch.equal(load(ROOT, "preprocess", IMAGES), scale(pad(IMAGES)))


@ENTRIES
def test_trained_weights_are_the_reported_ones(entry, name, load, tmp_path):
    for file in ("hubconf.py", "model.py"):
        shutil.copy(ROOT / file, tmp_path)
    with pytest.raises(FileNotFoundError, match="LeNet5.safetensors"):
        load(tmp_path, entry, pretrained=True)
    (trained,) = train(recipes.RECIPES[name].override(1), "digits", 0, digits("train"), digits("test"), plain=True)
    checkpoint.save(tmp_path / FILES[name], trained)
    expected = checkpoint.network(trained)(scale(pad(IMAGES)))
    assert torch.equal(load(tmp_path, entry, pretrained=True)(scale(pad(IMAGES))), expected)


@ENTRIES
def test_committed_weights(entry, name, load):
    if not (ROOT / FILES[name]).exists():
        pytest.skip(f"no run at {FILES[name]}")
    assert load(ROOT, entry, pretrained=True)(scale(pad(IMAGES))).shape == (2, 10)
