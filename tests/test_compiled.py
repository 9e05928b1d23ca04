"""The compiled path as a training takes it: the same function as model.py, and no training fails for want of it."""

import dataclasses
import sys

import pytest
import torch
from conftest import digits

import model
import training
from recipes import RECIPES


def train(recipe, epochs=1, **options):
    """On 100 digits: batches of 32 leave a last one of 4; the 1998 recipe takes one digit at a time."""
    sets = digits("train"), digits("test")
    return list(training.train(recipe.override(epochs=epochs, distort=False), "digits", 0, *sets, **options))[-1]


def path(trained):
    return trained.history[-1]["path"]


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


EQ_8 = dataclasses.replace(RECIPES["1998"], name="eq. 8", loss="eq. 8", j=None)


@pytest.mark.parametrize("recipe", [RECIPES["adam"], RECIPES["1998"], EQ_8], ids=lambda recipe: recipe.name)
def test_weights_and_history_are_those_of_the_plain_path(recipe):
    compiled, plain = train(recipe, epochs=2), train(recipe, epochs=2, plain=True)
    assert path(compiled) == "compiled" and path(plain) == "plain"
    for weights in "last", "reported":
        found, expected = flat(getattr(compiled, weights)), flat(getattr(plain, weights))
        assert (found - expected).norm() < 1e-3 * expected.norm()
    for found, expected in zip(compiled.history, plain.history):
        for key in ("train_loss", "test_loss"):
            assert found[key] == pytest.approx(expected[key], rel=1e-3)
        for key in ("train_accuracy", "test_accuracy"):
            assert found[key] == pytest.approx(expected[key], abs=0.02)


def test_a_network_that_is_not_covered_takes_the_plain_path(capsys):
    assert path(train(dataclasses.replace(RECIPES["adam"], network={"subsampling": "average"}))) == "plain"
    assert capsys.readouterr().out == ""  # nothing is wrong, so nothing is said


def test_another_network_than_the_compiled_one_is_noticed(monkeypatch, capsys):
    monkeypatch.setattr(model.Squash, "A", 1.8)
    assert path(train(RECIPES["adam"])) == "plain"
    assert "off that of model.py" in capsys.readouterr().out


def test_without_numba_training_goes_on(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert path(train(RECIPES["adam"])) == "plain"
    said = capsys.readouterr()
    assert said.out.startswith("no compiled loops here (") and said.out.count("\n") == 1 and not said.err


def test_with_compiling_disabled_training_goes_on(command, environment, monkeypatch):
    monkeypatch.setitem(environment, "NUMBA_DISABLE_JIT", "1")
    run = command("ClassifyTask_train.py", "--dataset", "digits", "--epochs", "1", "--batch-size", "500")
    assert "NUMBA_DISABLE_JIT" in run.succeeded().out


def test_wrong_labels_are_refused():
    images, labels = digits("train")
    with pytest.raises(ValueError, match="0 to 9"):
        next(training.train(RECIPES["adam"], "digits", 0, (images, labels + 1), digits("test")))
