"""Studies: they add up, go on where they stopped, and refuse what is damaged, foreign or made with another recipe."""

import dataclasses
import functools
import json
import statistics

import numpy as np
import pytest
from PIL import Image

import checkpoint
import mnist as datasets
import plots
import training
from experiments import own_pictures, seeds
from experiments.study import Study, mean_and_deviation
from recipes import RECIPES, Recipe
from utils import UserError

ADAM = RECIPES["adam"]
TASKS = [{"seed": seed, "recipe": ADAM.override(1, 100, None).to_json()} for seed in range(3)]


def measure(task):
    """One short training, in this process or another one."""
    sets = [[tensor[:300] for tensor in datasets.load_dataset("digits", None, name)] for name in ("train", "test")]
    *_, trained = training.train(Recipe.from_json(task["recipe"]), "digits", task["seed"], *sets)
    bits = {name: float(tensor.double().sum()) for name, tensor in trained.last.items()}
    return {"accuracy": trained.history[-1]["test_accuracy"], "bits": bits}


def never(task):
    raise AssertionError(f"{task} was finished before")


def stopped(task):
    if task["seed"] == 2:
        raise KeyboardInterrupt
    return {"accuracy": 0.5 + task["seed"] / 10}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_two_jobs_give_the_bits_of_one(tmp_path):
    found = []
    for jobs in 1, 2:
        path = tmp_path / f"{jobs}.json"
        Study(path, "the command", mean_and_deviation).finish(TASKS, measure, jobs)
        found.append(sorted(read(path)["runs"], key=lambda run: run["seed"]))
    assert found[0] == found[1] and [run["seed"] for run in found[0]] == [0, 1, 2]
    assert len({json.dumps(run["bits"]) for run in found[0]}) == 3


def test_a_study_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "new" / "study.json"
    with pytest.raises(KeyboardInterrupt):
        Study(path, "the command", mean_and_deviation, fact=(1, 2)).finish(TASKS, stopped)
    found = read(path)
    assert [run["accuracy"] for run in found["runs"]] == [0.5, 0.6] and found["mean"] == pytest.approx(0.55)
    assert (found["command"], found["fact"]) == ("the command", [1, 2])
    Study(path, "the command", mean_and_deviation, fact=(1, 2)).finish(TASKS[:2], never)
    other = [{**TASKS[0], "recipe": ADAM.to_json()}]  # the same seed, but another task
    with pytest.raises(AssertionError, match="finished before"):
        Study(path, "the command", mean_and_deviation, fact=(1, 2)).finish(other, never)
    Study(path, "the command", mean_and_deviation, fact=(1, 2)).finish(TASKS, lambda task: {"accuracy": 0.7})
    assert [run["accuracy"] for run in read(path)["runs"]] == [0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"runs": 1}', '{"runs": [1]}', '{"runs": [{}]}', "\xff", "[" * 10**5]
)
def test_a_damaged_or_foreign_study_is_named_and_stays(content, tmp_path):
    path = tmp_path / "study.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="study.json is no study's file"):
        Study(path, "the command", fact=1)
    assert path.read_text(encoding="latin-1") == content


def test_runs_with_other_facts_are_refused(tmp_path):
    path = tmp_path / "study.json"
    Study(path, "the command", recipe=ADAM.to_json()).add({"seed": 0})
    assert Study(path, "the command", recipe=ADAM.to_json()).find({"seed": 0})
    with pytest.raises(UserError, match="study.json holds runs with other recipe"):
        Study(path, "the command", recipe=RECIPES["1998"].to_json())


def test_mean_and_deviation_leave_out_what_diverged():
    runs = [{"accuracy": a, "last_accuracy": b} for a, b in ((0.9, 0.8), (0.7, 0.8), (None, None))]
    found = mean_and_deviation(runs)
    assert found["mean"] == pytest.approx(0.8) and found["deviation"] == pytest.approx(statistics.stdev([0.9, 0.7]))
    assert found["last_mean"] == 0.8 and found["last_deviation"] == 0
    assert mean_and_deviation(runs[2:]) == {} and mean_and_deviation(runs[:1])["deviation"] == 0


# ---------------------------------------------------------------------------------------------- experiments


@pytest.fixture
def run(run_main, tiny_mnist, monkeypatch):
    monkeypatch.setitem(RECIPES, "adam", ADAM.override(1, None, None))
    return functools.partial(run_main, seeds.main, "--data-dir", tiny_mnist, "--jobs", 1)


def test_the_seeds_of_a_recipe(run, tmp_path, monkeypatch):
    result = run("--seeds", 1, 2).succeeded()
    path = tmp_path / "Record" / "seeds.json"
    found = read(path)
    assert found["command"] == "python -m experiments.seeds" and [row["seed"] for row in found["runs"]] == [1, 2]
    assert f"2 seeds, accuracy {found['mean']:.2%} ± {found['deviation']:.2%}" in result.out
    assert found["training_mean"] == statistics.mean(row["training_accuracy"] for row in found["runs"])
    monkeypatch.setitem(RECIPES, "adam", ADAM.override(1, None, 0.001))
    run("--seeds", 3).refused("seeds.json", "other recipe")
    assert read(path) == found


def test_a_finished_checkpoint_counts_as_a_run_unless_plain_is_asked_for(run, tiny_mnist, tmp_path, monkeypatch):
    sets = [datasets.load_dataset("mnist", tiny_mnist, subset) for subset in ("train", "test")]
    kept = next(training.train(RECIPES["adam"], "mnist", 0, *sets))
    checkpoint.save(
        tmp_path / "Record" / checkpoint.FILE, dataclasses.replace(kept, history=[{**kept.history[0], "seconds": 77.0}])
    )
    run("--seeds", 0, 1).succeeded()
    assert [row["seconds"] == 77 for row in read(tmp_path / "Record" / "seeds.json")["runs"]] == [True, False]
    run("--seeds", 0, "--plain").succeeded()
    found = read(tmp_path / "Record" / "study" / "seeds-adam-plain.json")
    assert found["command"] == "python -m experiments.seeds --plain" and found["runs"][0]["seconds"] != 77


def test_ones_own_pictures(run_main, mnist, monkeypatch, tmp_path):
    digit = np.zeros((28, 28), np.uint8)
    digit[8:20, 12:16] = 255
    files = [own_pictures.picture_file(digit, np.random.default_rng([0, i])) for i in (0, 0, 1)]
    assert files[0] == files[1] != files[2]
    monkeypatch.setattr(own_pictures, "COUNT", 16)
    monkeypatch.setattr(own_pictures, "LEAST", 0.5)
    run_main(own_pictures.main, "--data-dir", mnist).succeeded()
    found = read(tmp_path / "Record" / "study" / "own_pictures.json")
    assert found["pictures"] == 16 and found["kept"] == found["accuracy"] / found["plain_accuracy"]
    with Image.open(tmp_path / "Record" / "study" / "own_pictures.png") as picture:
        assert picture.width == round(plots.WIDTH * plots.DPI)
