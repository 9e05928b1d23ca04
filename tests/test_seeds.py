"""The study of several seeds: it adds up, goes on where it stopped, and keeps each recipe and path apart."""

import functools
import json
import statistics

import pytest

import ClassifyTask_train
import utils
from ClassifyTask_train import RECIPES
from experiments import seeds


@pytest.fixture
def run(run_main, tiny_mnist, monkeypatch):
    monkeypatch.setitem(RECIPES["adam"], "epochs", 1)
    return functools.partial(run_main, seeds.main)


@pytest.fixture
def trained(monkeypatch):
    """The seeds that were trained, in their order."""
    trained, train = [], seeds.train

    def watched(settings, *arguments, **options):
        trained.append(settings["seed"])
        return train(settings, *arguments, **options)

    monkeypatch.setattr(seeds, "train", watched)
    return trained


def test_mean_and_deviation(run, tmp_path):
    run("--seeds", 0, 1, 2).succeeded()
    study = json.loads((tmp_path / "Record" / "seeds.json").read_text())
    assert study["command"] == "python -m experiments.seeds"
    assert [row["seed"] for row in study["runs"]] == [0, 1, 2]
    for name, key in ("", "accuracy"), ("last_", "last_accuracy"), ("training_", "training_accuracy"):
        values = [row[key] for row in study["runs"]]
        assert study[f"{name}mean"] == pytest.approx(statistics.mean(values))
        assert study[f"{name}deviation"] == pytest.approx(statistics.stdev(values))


def test_goes_on_where_it_stopped(run, trained, tmp_path):
    run("--seeds", 3).succeeded()
    run("--seeds", 1, 3).succeeded()
    assert trained == [3, 1]
    study = json.loads((tmp_path / "Record" / "seeds.json").read_text())
    assert [row["seed"] for row in study["runs"]] == [1, 3]


def test_a_finished_checkpoint_counts_as_a_run_of_the_fast_path(run, trained, tmp_path):
    run_settings = {"recipe": {"name": "adam", **RECIPES["adam"]}, "dataset": "mnist", "seed": 0}
    sets = [utils.load_dataset("mnist", seeds.DATA, subset) for subset in ("train", "test")]
    utils.save_checkpoint(tmp_path / "Record" / "LeNet5.pt", next(ClassifyTask_train.train(run_settings, *sets)))
    run("--seeds", 0).succeeded()
    assert trained == []
    run("--seeds", 0, "--plain").succeeded()
    assert trained == [0]
    study = json.loads((tmp_path / "Record" / "study" / "seeds-adam-plain.json").read_text())
    assert study["command"] == "python -m experiments.seeds --plain"


def test_another_recipe_is_refused(run, monkeypatch):
    run("--seeds", 0).succeeded()
    monkeypatch.setitem(RECIPES["adam"], "lr", [0.001])
    run("--seeds", 1).refused("seeds.json", "another recipe")
