"""The compiled path as a training takes it: the same function as model.py, and no training fails for want of it."""

import dataclasses
import sys

import pytest
import torch
from conftest import same

import mnist as datasets
import model
import training
from recipes import RECIPES


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """300 and 60 of the small digits."""
    found = [datasets.load_dataset("digits", tmp_path_factory.mktemp("data"), subset) for subset in ("train", "test")]
    return [(images[:count], labels[:count]) for (images, labels), count in zip(found, (300, 60))]


def train(sets, recipe, epochs=2, **options):
    return list(training.train(recipe.override(epochs=epochs, distort=False), "digits", 0, *sets, **options))


def paths(checkpoints):
    return {row["path"] for row in checkpoints[-1].history}


def distance(one, other):
    vectors = [torch.cat([tensor.flatten() for tensor in tensors.values()]) for tensors in (one, other)]
    return ((vectors[0] - vectors[1]).norm() / vectors[1].norm()).item()


EQ_8 = dataclasses.replace(RECIPES["1998"], name="eq. 8", loss="eq. 8", j=None)


@pytest.mark.parametrize("recipe", [*RECIPES.values(), EQ_8], ids=lambda recipe: recipe.name)
def test_weights_and_history_are_those_of_the_plain_path(sets, recipe):
    """Batches of 32 leave a last one of 12; the 1998 recipe takes one digit at a time."""
    compiled, plain = train(sets, recipe), train(sets, recipe, plain=True)
    assert paths(compiled) == {"compiled"} and paths(plain) == {"plain"}
    assert distance(compiled[-1].last, plain[-1].last) < 1e-3
    assert distance(compiled[-1].reported, plain[-1].reported) < 1e-3
    for found, expected in zip(compiled[-1].history, plain[-1].history):
        for key in ("train_loss", "test_loss"):
            assert found[key] == pytest.approx(expected[key], rel=1e-3)
        for key in ("train_accuracy", "test_accuracy"):
            assert found[key] == pytest.approx(expected[key], abs=0.02)


@pytest.mark.parametrize("name", RECIPES)
def test_resumed_is_uninterrupted(sets, name):
    first, second = train(sets, RECIPES[name])
    resumed = train(sets, RECIPES[name], checkpoint=first)
    assert paths(resumed) == {"compiled"} and same(resumed[-1], second)


def test_a_network_that_is_not_covered_takes_the_plain_path(sets, capsys):
    recipe = training.Recipe("x", (0.001,), 32, "adam", network={"subsampling": "average"})
    assert paths(train(sets, recipe, epochs=1)) == {"plain"}
    assert capsys.readouterr().out == ""  # nothing is wrong, so nothing is said


def test_another_network_than_the_compiled_one_is_noticed(sets, monkeypatch, capsys):
    monkeypatch.setattr(model.Squash, "A", 1.8)
    assert paths(train(sets, RECIPES["adam"], epochs=1)) == {"plain"}
    assert "off that of model.py" in capsys.readouterr().out


def test_without_numba_training_goes_on(sets, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert paths(train(sets, RECIPES["adam"], epochs=1)) == {"plain"}
    said = capsys.readouterr()
    assert said.out.startswith("no compiled loops here (") and said.out.count("\n") == 1 and not said.err


def test_with_compiling_disabled_training_goes_on(command, environment, monkeypatch, tmp_path):
    monkeypatch.setitem(environment, "NUMBA_DISABLE_JIT", "1")
    run = command("ClassifyTask_train.py", "--dataset", "digits", "--epochs", "1", "--record-dir", tmp_path / "run")
    assert "NUMBA_DISABLE_JIT" in run.succeeded().out


def test_wrong_labels_are_refused(sets):
    (images, labels), test_set = sets
    with pytest.raises(ValueError, match="0 to 9"):
        train([(images, labels + 1), test_set], RECIPES["adam"])
