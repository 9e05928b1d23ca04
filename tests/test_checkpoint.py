"""The file of a training's state: it comes back as it was, and anything else is refused in one line."""

import dataclasses
import json
import os
import pickle

import pytest
import safetensors.torch
import torch
from conftest import same

import checkpoint
from checkpoint import KINDS, Checkpoint, load, network, save
from model import LeNet5
from recipes import RECIPES
from utils import UserError

REFUSED = "LeNet5.safetensors is no checkpoint of this project, or damaged"
ROW = {"train_loss": 0.25, "train_accuracy": 0.5, "test_loss": 0.1, "test_accuracy": 1 / 3, "seconds": 2.5}


def made_up(recipe=RECIPES["adam"], **changes):
    """A checkpoint after two epochs, of numbers drawn at random."""
    shapes = {name: p.shape for name, p in LeNet5(**recipe.network).named_parameters()}

    def draw():
        return {name: torch.randn(shape) for name, shape in shapes.items()}

    optimizer = {kind: draw() for kind in KINDS[recipe.optimizer]}
    history = [{"epoch": epoch, **ROW, "path": "plain"} for epoch in (1, 2)]
    fields = {"history": history, "reported": draw(), "last": draw(), "optimizer": optimizer}
    return Checkpoint(recipe, **{"dataset": "digits", "seed": 7, "versions": {"torch": "2.5.1"}, **fields, **changes})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "LeNet5.safetensors"


def parts(path):
    """The tensors of a file, and its JSON text read."""
    with safetensors.safe_open(path, "pt") as file:
        return safetensors.torch.load(path.read_bytes()), json.loads(file.metadata()["lenet5"])


def write(path, tensors, content, metadata=None, text=None):
    """A file with these parts, whatever its digest."""
    metadata = {"format": "pt", "lenet5": text or checkpoint.canonical(content), **(metadata or {})}
    path.write_bytes(safetensors.torch.save(tensors, metadata))


def with_digest(tensors, content):
    rest = {key: value for key, value in content.items() if key != "digest"}
    return {**rest, "digest": checkpoint.digest(tensors, rest)}


def refused(path, words=REFUSED):
    with pytest.raises(UserError, match=words) as error:
        load(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_checkpoint_comes_back_as_it_was(recipe, path):
    saved, new = made_up(recipe), path.parent / "new" / path.name
    if not recipe.average:
        saved = dataclasses.replace(saved, reported=saved.last)  # tensors that share memory
    save(new, made_up(recipe))
    save(new, saved)
    found = load(new)
    assert os.listdir(new.parent) == [path.name]
    assert same(found, saved) and found.versions == saved.versions
    assert found.history == saved.history and found.epoch == 2 and not found.finished
    assert dataclasses.replace(found, recipe=recipe.override(2, None, None)).finished


def test_the_file_is_what_others_expect_of_safetensors(path):
    saved = made_up()
    save(path, saved)
    tensors, content = parts(path)
    names = {f"{group}.{name}" for group in ("reported", "last") for name in saved.last}
    assert tensors.keys() == names | {f"optimizer.{k}.{name}" for k in ("exp_avg", "exp_avg_sq") for name in saved.last}
    assert torch.equal(tensors["reported.c1.weight"], saved.reported["c1.weight"])
    keys = {"format", "arguments", "recipe", "dataset", "seed", "epoch", "history", "versions", "digest"}
    assert content.keys() == keys and (content["format"], content["arguments"], content["epoch"]) == (2, {}, 2)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"


@pytest.mark.parametrize("weights", ["reported", "last"])
def test_a_checkpoint_of_every_network_is_taken(weights, path):
    options = {"subsampling": "average", "connection": "full", "activation": "relu", "output": "rbf"}
    saved = made_up(dataclasses.replace(RECIPES["adam"], network=options))
    save(path, saved)
    model = network(load(path), weights)
    assert all(torch.equal(t, getattr(saved, weights)[name]) for name, t in model.state_dict().items())
    assert not model.training and isinstance(model.output, type(LeNet5(output="rbf").output))


def test_any_tensor_or_text_that_has_changed_is_noticed(path):
    save(path, made_up())
    tensors, content = parts(path)
    write(path, tensors, content)
    assert load(path)  # unchanged
    changes = []
    for name in tensors:
        changed = {**tensors, name: tensors[name].clone()}
        changed[name].view(torch.int32).view(-1)[-1] ^= 1  # the lowest bit of one number
        changes.append((changed, content))
    pair = "last.f6.bias", "reported.f6.bias"
    changes.append(({**tensors, pair[0]: tensors[pair[1]], pair[1]: tensors[pair[0]]}, content))
    changes += [(tensors, {**content, key: value}) for key, value in (("seed", 8), ("versions", {}), ("digest", "0"))]
    for change in changes:
        write(path, *change)
        refused(path, f"{REFUSED}.*digest")


def test_the_text_has_one_form(path):
    save(path, made_up())
    tensors, content = parts(path)
    text = checkpoint.canonical(content)
    assert '"test_loss":0.1,' in text
    same_number = text.replace('"test_loss":0.1,', '"test_loss":0.10000000000000001,')
    spaced, twice = text.replace('"seed":7', '"seed": 7'), text.replace('"seed":7', '"seed":7,"seed":7')
    for other in same_number, spaced, twice:
        assert json.loads(other) == content and other != text
        write(path, tensors, content, text=other)
        refused(path, f"{REFUSED}.*digest")
    for metadata in {"format": "tf"}, {"more": ""}:
        write(path, tensors, content, metadata)
        refused(path)


def history(**changes):
    return {"history": [{"epoch": 1, **ROW, "path": "plain"}, {"epoch": 2, **ROW, "path": "plain", **changes}]}


IMPOSSIBLE = [
    {"dataset": "../../etc"},
    *({"seed": seed} for seed in (2**32, -1, "7")),
    {"recipe": RECIPES["adam"].override(1, None, None)},  # fewer epochs than the history's
    {"history": []},
    *(history(test_accuracy=share) for share in (1.5, "high")),
    *(history(train_loss=loss) for loss in (-1.0, 10**400)),
    history(epoch=3),
    {"versions": {"torch": 2}},
]


@pytest.mark.parametrize("changes", IMPOSSIBLE, ids=lambda changes: str(changes)[-50:])
def test_what_cannot_be_is_refused(changes, path):
    save(path, made_up(**changes))
    refused(path)


CONTRADICTIONS = [
    lambda t, content: content.update(format=1),
    lambda t, content: content.update(arguments={"output": "rbf"}),
    lambda t, content: content.update(epoch=1),
    lambda t, content: content["recipe"].update(network={"connection": "full"}),
    lambda t, content: content["recipe"].update(network={"output": "none"}),
    lambda t, content: content["recipe"].update(optimizer="diagonal-lm"),
    lambda t, content: content["recipe"].update(batch_size=0),
    lambda t, content: content["recipe"].update(more=1),
    lambda t, content: t.update({"last.more": torch.zeros(1)}),
    lambda t, content: t.pop("last.c1.bias"),
    lambda t, content: t.update({"last.f6.weight": t["last.f6.weight"].T.contiguous()}),
    lambda t, content: t.update({"last.f6.bias": t["last.f6.bias"].half()}),
    lambda t, content: t["reported.f6.bias"][0].fill_(float("nan")),
    lambda t, content: t["last.f6.bias"][0].fill_(1e6),
    lambda t, content: t["optimizer.exp_avg.f6.bias"][0].fill_(float("inf")),
]
KEYS = ("format", "arguments", "recipe", "dataset", "seed", "epoch", "history", "versions")
CONTRADICTIONS += [lambda t, content, key=key: content.pop(key) for key in KEYS]


@pytest.mark.parametrize("change", CONTRADICTIONS)
def test_parts_that_contradict_each_other_are_refused(change, path):
    save(path, made_up())
    tensors, content = parts(path)
    change(tensors, content)
    write(path, tensors, with_digest(tensors, content))
    refused(path)


class Payload:
    def __reduce__(self):
        return open, ("written", "w")


def test_pickles_are_refused_and_never_run(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    torch.save(Payload(), path)
    for content in path.read_bytes(), pickle.dumps(Payload(), 2), pickle.dumps(Payload(), 4):
        path.write_bytes(content)
        refused(path, REFUSED if content[1] == 4 else "is a pickle, as older versions wrote")
        assert os.listdir() == [path.name]


TENSORS = {"a": torch.zeros(1)}
FOREIGN = [
    *(b"", b"not a checkpoint\n", bytes(2**23 + 1), safetensors.torch.save(TENSORS)),
    safetensors.torch.save(TENSORS, {"format": "pt"}),
    *(safetensors.torch.save(TENSORS, {"format": "pt", "lenet5": text}) for text in ("[1]", "[" * 100_000)),
]


@pytest.mark.parametrize("content", FOREIGN, ids=range(len(FOREIGN)))
def test_a_foreign_file_is_refused(content, path):
    path.write_bytes(content)
    refused(path)


def test_a_missing_checkpoint_is_named(path):
    for missing in path, path.parent:
        refused(missing, "no checkpoint at .*ClassifyTask_train.py")
