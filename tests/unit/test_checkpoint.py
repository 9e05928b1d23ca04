"""A run's file comes back as it was, others read its network, anything else is refused; the networks of torch.hub."""

import copy
import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
import types

import pytest
import safetensors.torch
import torch
from conftest import ROOT, reference, same

from model import LeNet5, normalize, pad
from training import checkpoint
from training.checkpoint import KINDS, Checkpoint, load, save
from training.recipes import RECIPES
from utils import UserError

ROW = {"train_loss": 0.25, "train_accuracy": 0.5, "test_loss": 0.1, "test_accuracy": 1 / 3, "seconds": 2.5}
RECIPE = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def made_up(recipe=RECIPES["default"]):
    """A checkpoint after two epochs, of numbers drawn at random."""
    shapes = {name: p.shape for name, p in LeNet5(**recipe.model_arguments).named_parameters()}

    def draw():
        return {name: 0.1 * torch.randn(shape) for name, shape in shapes.items()}

    optimizer = {kind: draw() for kind in KINDS[recipe.optimizer]}
    history = [{"epoch": epoch, **ROW, "path": "plain"} for epoch in (1, 2)]
    return Checkpoint(recipe, "digits", 7, history, draw(), draw(), optimizer, {"torch": "2.5.1"})


@pytest.fixture
def path(tmp_path):
    """That of a saved checkpoint."""
    save(tmp_path / checkpoint.FILE, made_up())
    return tmp_path / checkpoint.FILE


def parts(path):
    """The tensors of a file, and its JSON text read."""
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"
        return safetensors.torch.load_file(path), json.loads(file.metadata()["lenet5"])


def write(path, tensors, text):
    path.write_bytes(safetensors.torch.save(tensors, {"format": "pt", "lenet5": text}))


@RECIPE
def test_a_checkpoint_comes_back_as_it_was_and_any_reader_of_safetensors_finds_the_tested_network(recipe, path):
    saved, images = made_up(recipe), torch.randn(3, 1, 32, 32)
    save(path, saved if recipe.ema else dataclasses.replace(saved, tested=saved.last))  # tensors that share memory
    save(path, saved)
    found, (tensors, content) = load(path), parts(path)
    assert os.listdir(path.parent) == [path.name] and same(found, saved) and found.versions == saved.versions
    assert found.epoch == 2 and found.finished == (recipe.epochs == 2)
    assert (content["format"], content["recipe"]["name"], content["epoch"]) == (3, recipe.name, 2)
    groups = ("", "training.last.", *(f"training.{kind}." for kind in KINDS[recipe.optimizer]))
    assert tensors.keys() == {f"{group}{name}" for group in groups for name in saved.last}
    network = LeNet5(**content["model_arguments"]).eval()
    assert not network.load_state_dict(tensors, strict=False).missing_keys
    for one in checkpoint.network(saved), checkpoint.load_network(path):
        assert torch.equal(network(images), one(images)) and not one.training
    last = checkpoint.network(saved, last=True)
    assert torch.equal(last.c1.weight, saved.last["c1.weight"]) and not torch.equal(last.c1.weight, network.c1.weight)


def test_the_text_has_one_form(path):
    tensors, content = parts(path)
    text = checkpoint.canonical(content)
    write(path, tensors, text)
    assert load(path)
    for found, other in ('"test_loss":0.1,', '"test_loss":0.10000000000000001,'), ('"seed":7', '"seed": 7'):
        write(path, tensors, text.replace(found, other))
        assert json.loads(text.replace(found, other)) == content and found in text
        with pytest.raises(UserError, match="damaged .its digest is another"):
            load(path)


CONTENTS = [  # what is written in some places of the text
    *({"format": 4}, {"model_arguments": {"output": "rbf"}}, {"dataset": "../../etc"}, {"seed": 2**32}),
    *({"epoch": 1}, {"epoch": 0, "history": []}, {"versions torch": 2}, {"recipe learning_rates": [0.1]}),
    *({"recipe model_arguments": {"connection": "full"}}, {"recipe optimizer": "diagonal-lm"}, {"recipe more": 1}),
    *({"recipe batch_size": 0}, {"history 0 test_accuracy": 1.5}, {"history 0 train_loss": -1.0}),
]
TENSORS = {  # what is made of a tensor
    "training.last.more": lambda t: torch.zeros(1),  # one more
    "training.last.c1.bias": lambda t: None,  # one less
    "f6.weight": lambda t: t.T.contiguous(),
    "training.last.f6.bias": lambda t: t.half(),
    "f6.bias": lambda t: t.fill_(float("nan")),
    "training.last.c3.bias": lambda t: t.fill_(1e6),
    "training.exp_avg.f6.bias": lambda t: t.fill_(float("inf")),
}


@pytest.mark.parametrize("change", [*CONTENTS, *TENSORS], ids=str)
def test_what_cannot_be_is_refused_though_its_digest_is_right(change, path):
    tensors, content = parts(path)
    del content["digest"]
    if isinstance(change, str):
        tensors[change] = TENSORS[change](tensors.get(change))
        tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    else:
        for way, value in change.items():
            *steps, key = way.split()
            place = content
            for step in steps:
                place = place[int(step) if step.isdigit() else step]
            place[key] = value
    write(path, tensors, checkpoint.canonical({**content, "digest": checkpoint.digest(tensors, content)}))
    with pytest.raises(UserError, match=r"damaged \((?!its digest)"):
        load(path)


ENTRIES = {
    "lenet5": "",
    "lenet5_1998": "1998",
    "lenet5_best": "best",
    "lenet5_fast": "fast",
    "lenet5_numbers": "numbers",
}
IMAGES = torch.arange(2 * 28 * 28, dtype=torch.uint8).view(2, 28, 28)
SEEN = normalize(pad(IMAGES))


@pytest.fixture
def hub(monkeypatch):
    """torch.hub.load of a folder, by a caller who has other modules of these names, and no numba."""
    for name in ("utils", "model", "training", "digits", "reading"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "lenet5_model", raising=False)
    return lambda folder, *entry, **options: torch.hub.load(str(folder), *entry, source="local", **options)


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_untrained_network_or_the_weights_shipped(entry, hub, tmp_path):
    shipped = reference(ENTRIES[entry])
    torch.manual_seed(3)
    expected = LeNet5(**shipped.recipe.model_arguments).eval()
    torch.manual_seed(3)
    network = hub(ROOT, entry)
    assert not network.training and torch.equal(network(SEEN), expected(SEEN))
    assert torch.equal(hub(ROOT, entry, pretrained=True)(SEEN), checkpoint.network(shipped)(SEEN))
    shutil.copy(ROOT / "hubconf.py", tmp_path)
    shutil.copy(ROOT / "model.py", tmp_path)
    with pytest.raises(FileNotFoundError, match="LeNet5.safetensors"):
        hub(tmp_path, entry, pretrained=True)


CHILD = """
import pickle, sys
network, images = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps((network.training, network(images), network)))
"""


def halve(network, images, logits):
    return logits / 2


def test_the_entries_are_networks_and_their_preprocessing(hub, monkeypatch):
    monkeypatch.setattr(torch.hub, "_get_cache_or_reload", lambda *_, **__: str(ROOT))  # as if it were downloaded
    assert set(torch.hub.list("owner/repository")) == {*ENTRIES, "preprocess"}
    assert torch.equal(hub(ROOT, "preprocess", IMAGES), SEEN)


def test_a_network_that_was_changed_is_copied_as_it_is(hub):
    network = hub(ROOT, "lenet5")
    network.output = torch.nn.Linear(84, 26)
    network.c1.requires_grad_(False)
    network.register_forward_hook(halve)
    for again in copy.deepcopy(network), pickle.loads(pickle.dumps(network)):
        assert torch.equal(again(SEEN), network(SEEN)) and again(SEEN).shape == (2, 26)
        assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in network.parameters()]


def test_networks_can_be_copied_pickled_and_sent_to_other_processes(hub, tmp_path):
    network = hub(ROOT, "lenet5_best").train()
    expected = network(SEEN)
    for again in copy.deepcopy(network), pickle.loads(pickle.dumps(network)):
        assert again.training and torch.equal(again(SEEN), expected)
        again.c1.weight.data.zero_()
    assert torch.equal(network(SEEN), expected)  # they share nothing
    command, content = [sys.executable, "-c", CHILD], pickle.dumps((network.eval(), SEEN))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    sent = subprocess.run(command, input=content, capture_output=True, cwd=tmp_path, env=environment, check=True)
    training, found, back = pickle.loads(sent.stdout)
    assert not training and torch.equal(found, expected) and torch.equal(back(SEEN), expected)
