"""Studies: they add up, go on where they stopped, and refuse what is damaged, foreign or made with another recipe."""

import dataclasses
import functools
import json
import shutil
import statistics

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

import checkpoint
import mnist as datasets
import plots
import training
from experiments import distortions, errors, numbers, own_pictures, passes, robustness, seeds, set_size
from experiments.study import COMPARED, Study, compared, mean_and_deviation, seeds_path
from model import pad
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
    found = read(tmp_path / "Record" / "study" / "seeds-plain.json")
    assert found["command"] == "python -m experiments.seeds --plain" and found["runs"][0]["seconds"] != 77


@pytest.fixture
def two_seeds(tmp_path, monkeypatch):
    """Files as experiments.seeds writes them, of two seeds and ten passes for each recipe."""
    monkeypatch.chdir(tmp_path)
    history = [{"train_accuracy": 0.9, "test_accuracy": 0.8}] + 9 * [{"train_accuracy": 0.95, "test_accuracy": 0.9}]
    for i, name in enumerate(COMPARED):
        recipe = compared(name)
        study = Study(seeds_path(recipe), "", recipe=recipe.to_json())
        for seed, misread in (0, [7, 10 + i]), (1, [7, 20]):
            rows = [{**row, "test_accuracy": row["test_accuracy"] + 0.02 * seed} for row in history]
            study.add({"seed": seed, "accuracy": 0.9998, "misread": misread, "history": rows, "seconds": 1.0})


def test_passes_are_the_mean_and_range_of_the_seeds(run_main, two_seeds, tmp_path):
    run_main(passes.main).succeeded()
    curves = read(tmp_path / "Record" / "study" / "passes.json")["recipes"]
    assert curves.keys() == COMPARED.keys()
    test = curves["best"]["test"]
    assert test["mean"] == pytest.approx([0.19] + 9 * [0.09]) and test["least"][:2] == pytest.approx([0.18, 0.08])
    seeds_path(compared("best")).unlink()
    run_main(passes.main).refused("seeds-best.json is missing", "--recipe best --distort")


def test_errors_that_seeds_and_recipes_share(run_main, two_seeds, mnist, tmp_path):
    run_main(errors.main, "--data-dir", mnist).succeeded()
    found = read(tmp_path / "Record" / "study" / "errors.json")
    assert found["by_all"] == [7] and found["networks"] == 10
    assert found["recipes"]["1998"] == {"errors": {"0": 2, "1": 2}, "by_all_seeds": 1, "by_any_seed": 3}
    assert len(found["comparisons"]) == 20


def test_mcnemar_by_hand():
    assert errors.mcnemar({1, 2, 3}, {3}) == {"only_one": 2, "only_other": 0, "p": 0.5}
    assert errors.mcnemar(set(range(10)), {20}) == {"only_one": 10, "only_other": 1, "p": 24 / 2**11}
    assert errors.mcnemar({1}, {1})["p"] == 1


def test_whole_numbers(run_main, tmp_path, monkeypatch):
    """From the committed digit network; the second start trains nothing, and finds the same."""
    start = tmp_path / "Record" / "best" / checkpoint.FILE
    start.parent.mkdir(parents=True)
    shutil.copy(ROOT / "Record" / "best" / checkpoint.FILE, start)
    for name, amounts in {"GAPS": (-1, 2), "SLANTS": (0, 0.5), "GRAINS": (0, 20)}.items():
        monkeypatch.setattr(numbers, name, amounts)
    run_main(numbers.main, "--tiny", "--seeds", 3, "--jobs", 1).succeeded()
    path = tmp_path / "Record" / "tiny" / "numbers.json"
    found = read(path)
    assert 0 < found["mean"]["digits"] < found["mean"]["lines"] <= 1
    assert [len(found["runs"][0][what]) for what in ("length", "gap", "slant", "noise")] == [6, 2, 2, 2]
    path.unlink()
    run_main(numbers.main, "--tiny", "--seeds", 3, "--jobs", 1).succeeded()
    assert read(path) == found


def test_errors_of_numbers():
    outcomes = [([1, 2], [1, 2]), ([3], [3, 3]), ([4, 5, 6], [5, 7]), ([], [])]
    assert numbers.errors(outcomes) == {"lines": 0.5, "digits": 3 / 6}


def test_set_sizes_and_their_runs_with_all_digits(run_main, two_seeds, tmp_path, monkeypatch):
    monkeypatch.setattr(set_size, "ALL", 200)
    run_main(set_size.main, "--tiny", "--jobs", 1).succeeded()
    found = read(tmp_path / "Record" / "tiny" / "set_size.json")["errors"]
    for sizes in found.values():
        assert sizes["200"]["mean"] == 0.9998  # from the file of its seeds
        assert sizes["100"]["seeds"] == 1 and 0 < sizes["100"]["mean"] < 0.9
    path = seeds_path(compared("1998"))
    path.write_text(path.read_text().replace("0.9998", "0.97"))  # its seeds are trained anew
    run_main(set_size.main, "--tiny", "--jobs", 1).succeeded()
    found = read(tmp_path / "Record" / "tiny" / "set_size.json")["errors"]
    assert (found["1998"]["200"]["mean"], found["default"]["200"]["mean"]) == (0.97, 0.9998)


def test_digits_changed_on_purpose():
    digit = pad(datasets.load_dataset("digits", None, "test")[0][:1])
    assert torch.equal(robustness.rotate(digit, 90), digit.rot90(-1, (1, 2)))
    assert torch.equal(robustness.move(digit, 3), digit.roll(3, 2))
    assert torch.equal(robustness.thicken(robustness.enlarge(digit, 1), 0), digit)
    dot = torch.zeros(1, 32, 32, dtype=torch.uint8)
    dot[0, 10, 10] = 200
    assert robustness.thicken(dot, 1).count_nonzero() == 5 and not robustness.thicken(dot, -1).any()
    assert robustness.thicken(dot, 0.5)[0, 9, 10] == 100
    assert (
        0.15 < (robustness.add_noise(torch.full((9, 32, 32), 99, dtype=torch.uint8), 0.2) != 99).float().mean() < 0.25
    )


def test_robustness_reads_each_change(run_main, tmp_path, monkeypatch):
    for name in "translation", "stroke width":
        monkeypatch.delitem(robustness.CHANGES, name)
    run_main(robustness.main, "--tiny", "--jobs", 1).succeeded()
    runs = read(tmp_path / "Record" / "tiny" / "robustness.json")["runs"]
    accuracy = {(run["change"], run["amount"]): run["accuracy"] for run in runs if run["network"] == "default"}
    assert accuracy["rotation", 0] == accuracy["scale", 1] == accuracy["noise", 0] > accuracy["rotation", 60]
    assert len(accuracy) == sum(len(amounts) for _, amounts, *_ in robustness.CHANGES.values())


def test_the_strength_of_distortions_is_chosen_on_held_out_digits(run_main, tmp_path, monkeypatch):
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *which: load(*which) if which[2] == "train" else never(which))
    run_main(distortions.main, "adam", "figure", "--tiny", "--jobs", 1).succeeded()
    found = read(tmp_path / "Record" / "tiny" / "distortions.json")
    assert len(found["variants"]) == 5 and found["leading"]["adam"] in found["variants"]
    assert (tmp_path / "Record" / "tiny" / "distortions.png").exists()


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
