"""The file of a training's state: it comes back as it was, and anything else is refused in one line."""

import dataclasses
import json
import os

import pytest
import safetensors.torch
import torch
from conftest import same

import checkpoint
from checkpoint import KINDS, Checkpoint, load, save
from model import LeNet5
from recipes import RECIPES
from utils import UserError

ROW = {"train_loss": 0.25, "train_accuracy": 0.5, "test_loss": 0.1, "test_accuracy": 1 / 3, "seconds": 2.5}


def made_up(recipe=RECIPES["adam"]):
    """A checkpoint after two epochs, of numbers drawn at random."""
    shapes = {name: p.shape for name, p in LeNet5(**recipe.network).named_parameters()}

    def draw():
        return {name: torch.randn(shape) for name, shape in shapes.items()}

    optimizer = {kind: draw() for kind in KINDS[recipe.optimizer]}
    history = [{"epoch": epoch, **ROW, "path": "plain"} for epoch in (1, 2)]
    return Checkpoint(recipe, "digits", 7, history, draw(), draw(), optimizer, {"torch": "2.5.1"})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "LeNet5.safetensors"


def parts(path):
    """The tensors of a file, and its JSON text read."""
    with safetensors.safe_open(path, "pt") as file:
        return safetensors.torch.load(path.read_bytes()), json.loads(file.metadata()["lenet5"])


def write(path, tensors, content, text=None):
    """A file with these parts, whatever its digest."""
    metadata = {"format": "pt", "lenet5": text or checkpoint.canonical(content)}
    path.write_bytes(safetensors.torch.save(tensors, metadata))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_checkpoint_comes_back_as_it_was(recipe, path):
    saved = made_up(recipe)
    if not recipe.average:
        saved = dataclasses.replace(saved, reported=saved.last)  # tensors that share memory
    save(path, made_up(recipe))
    save(path, saved)
    found = load(path)
    assert os.listdir(path.parent) == [path.name]
    assert same(found, saved) and found.versions == saved.versions
    assert found.epoch == 2 and not found.finished
    assert dataclasses.replace(found, recipe=recipe.override(2)).finished


def test_the_file_is_what_others_expect_of_safetensors(path):
    saved = made_up()
    save(path, saved)
    tensors, content = parts(path)
    groups = ("reported", "last", "optimizer.exp_avg", "optimizer.exp_avg_sq")
    assert tensors.keys() == {f"{group}.{name}" for group in groups for name in saved.last}
    assert torch.equal(tensors["reported.c1.weight"], saved.reported["c1.weight"])
    keys = {"format", "arguments", "recipe", "dataset", "seed", "epoch", "history", "versions", "digest"}
    assert content.keys() == keys and (content["format"], content["arguments"], content["epoch"]) == (2, {}, 2)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_the_text_has_one_form(path):
    save(path, made_up())
    tensors, content = parts(path)
    text = checkpoint.canonical(content)
    write(path, tensors, content)
    assert load(path)
    for found, other in {
        '"test_loss":0.1,': '"test_loss":0.10000000000000001,',  # the same number
        '"seed":7': '"seed": 7',
    }.items():
        write(path, tensors, content, text.replace(found, other))
        assert json.loads(text.replace(found, other)) == content and found in text
        with pytest.raises(UserError, match="damaged .its digest is another"):
            load(path)


CHANGES = {  # of the tensors or the text; the digest is made anew
    "another format": lambda t, text: text.update(format=1),
    "other arguments": lambda t, text: text.update(arguments={"output": "rbf"}),
    "another epoch": lambda t, text: text.update(epoch=1),
    "no epoch": lambda t, text: text.update(epoch=0, history=[]),
    "fewer epochs than the history's": lambda t, text: text["recipe"].update(learning_rates=[0.1]),
    "another network": lambda t, text: text["recipe"].update(network={"connection": "full"}),
    "another optimizer": lambda t, text: text["recipe"].update(optimizer="diagonal-lm"),
    "an impossible recipe": lambda t, text: text["recipe"].update(batch_size=0),
    "an unknown key": lambda t, text: text["recipe"].update(more=1),
    "a path for a data set": lambda t, text: text.update(dataset="../../etc"),
    "too large a seed": lambda t, text: text.update(seed=2**32),
    "an impossible accuracy": lambda t, text: text["history"][0].update(test_accuracy=1.5),
    "a negative loss": lambda t, text: text["history"][0].update(train_loss=-1.0),
    "a number for a version": lambda t, text: text["versions"].update(torch=2),
    "a tensor more": lambda t, text: t.update({"last.more": torch.zeros(1)}),
    "a tensor less": lambda t, text: t.pop("last.c1.bias"),
    "another shape": lambda t, text: t.update({"last.f6.weight": t["last.f6.weight"].T.contiguous()}),
    "another type": lambda t, text: t.update({"last.f6.bias": t["last.f6.bias"].half()}),
    "no number": lambda t, text: t["reported.f6.bias"][0].fill_(float("nan")),
    "a huge weight": lambda t, text: t["last.f6.bias"][0].fill_(1e6),
    "an infinite moment": lambda t, text: t["optimizer.exp_avg.f6.bias"][0].fill_(float("inf")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_cannot_be_is_refused(change, path):
    save(path, made_up())
    tensors, content = parts(path)
    del content["digest"]
    change(tensors, content)
    write(path, tensors, {**content, "digest": checkpoint.digest(tensors, content)})
    with pytest.raises(UserError, match=r"damaged \((?!its digest)"):
        load(path)
