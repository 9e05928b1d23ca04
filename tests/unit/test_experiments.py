"""Experiments: they train anew, add up, go on where they stopped, stand beside the reference, refuse what is wrong."""

import dataclasses
import functools
import importlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import REFERENCE, ROOT, Result, contents, few_digits, reference
from numpy.random import default_rng
from PIL import Image

import ClassifyTask_predict
from digits import lines, mnist
from experiments import (
    NAMES,
    errors,
    exercises,
    numbers,
    pool,
    rendered,
    results,
    robustness,
    runner,
    seeds,
    set_size,
)
from experiments.runner import Context, Experiment, Study
from figures import plots
from model import LeNet5, pad
from training import checkpoint, loop, provenance
from training.recipes import RECIPES
from utils import UserError

DEFAULT = RECIPES["default"]
STUDY, TINY, SHIPPED = (Path("Record", name) for name in ("study", "study/tiny", "reference/study"))


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def write(name, folder=SHIPPED, **content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"command": "python", **content}), encoding="utf-8")


@pytest.fixture
def start(run_main):
    """Starts an experiment in a folder of the test's own, where the networks are the only ones shipped."""
    runner.load.cache_clear()
    for name in "best", "numbers":
        shutil.copytree(REFERENCE / name, Path("Record/reference", name))
    return functools.partial(run_main, runner.main)


@pytest.fixture
def rehearse(start, monkeypatch):
    """Starts an experiment with --tiny, on a hundred digits: what it wrote."""
    monkeypatch.setattr(mnist, "load_dataset", few_digits)

    def rehearse(name, *words):
        start(name, *words, "--tiny", "--jobs", 1).succeeded()
        return read(TINY / f"{name}.json")

    return rehearse


def test_what_is_no_experiment_is_one_line_with_the_names_and_the_list_tells_what_has_changed(start, environment):
    start().refused("name an experiment", *NAMES)
    start("nope").refused("no experiment 'nope'", *NAMES)
    start("own_pictures").refused("own_pictures is started as python -m experiments rendered now")
    start("seeds", "--recipe", "best").refused("--help")
    start("choices", "unknown").refused("unknown")
    command = [sys.executable, "-m", "experiments.distortions", "--tiny"]  # as in older versions
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    Result(run.returncode, run.stdout, run.stderr).refused("python -m experiments augmentation now")
    usage, *described = start("--help").succeeded().out.splitlines()
    assert usage.startswith("usage: ") and described == [f"{name}: {runner.description(name)}" for name in NAMES]
    listed, digests = start("--list").succeeded().out, provenance.module_digests()
    assert all(f"{name}: {runner.description(name)}\n    no reference" in listed for name in NAMES)
    write("codes", modules={**{name: digests[name] for name in ("model.py", "utils.py")}, "experiments/runner.py": "0"})
    assert "reference: up to date" in start("--list").out
    write("codes", modules={"model.py": "0", "gone.py": "0", "utils.py": digests["utils.py"]})
    assert "reference: made before model.py, gone.py changed\n" in start("--list").out


def test_runs_that_lack_something_are_one_line(start, two_seeds, tiny_mnist):
    recipes = seeds.recipes(Context("seeds"))
    write("seeds", STUDY, dataset="mnist", recipes=recipes, runs=[{"variant": "default", "seed": 0, "accuracy": 0.5}])
    start("seeds", "default", "--seeds", 0).refused("study/seeds.json", "damaged (no 'seconds')")
    start("errors").refused("or a file that it reads, is", "damaged (no 'misclassified')")


def test_a_study_holds_runs_of_one_type_of_device_the_cpu_where_it_does_not_tell(own_folders):
    nothing = dict.fromkeys(("tables", "summarize"), lambda *_: {})
    experiment = Experiment(**nothing, tasks=lambda *_: [], device=True)
    for content, device, other in ({}, "cpu", "cuda:0"), ({"device": "cuda"}, "cuda:1", "cpu"):
        write("fake", STUDY, dataset="mnist", runs=[{"seed": 0}], **content)
        assert Study(Context("fake", device=device), experiment).runs
        with pytest.raises(UserError, match="fake.json holds runs with other device than now"):
            Study(Context("fake", device=other), experiment)


def test_a_stop_is_not_told_by_children_either_from_their_first_moment(monkeypatch):
    monkeypatch.setattr(pool, "prepare_child", bool)  # before that they import PyTorch
    before = signal.getsignal(signal.SIGINT)
    ignored = [(signal.SIGINT, signal.SIG_IGN)] * 2
    assert list(pool.side_by_side([signal.SIGINT] * 2, signal.getsignal, 2)) == ignored
    assert signal.getsignal(signal.SIGINT) == before


def test_a_run_whose_process_is_killed_is_one_line(monkeypatch):
    monkeypatch.setattr(pool, "prepare_child", bool)
    with pytest.raises(UserError, match="was killed, perhaps for want of memory; start again with fewer --jobs"):
        list(pool.side_by_side([9, 9], os._exit, 2))


def test_a_study_goes_on_where_it_stopped(own_folders, monkeypatch):
    stop = True

    def measure(context, task):
        if stop and task["seed"] == 2:
            raise KeyboardInterrupt
        return {"accuracy": 0.5 + task["seed"] / 10}

    def study(fact=(1, 2)):
        experiment = Experiment(
            tables=lambda content: {},
            summarize=lambda context, runs: results.mean_and_deviation(runs),
            tasks=lambda context, runs: [{"seed": seed, "recipe": DEFAULT.to_json()} for seed in context.seeds],
            measure=measure,
            facts=lambda context: {"fact": fact},
        )
        monkeypatch.setitem(sys.modules, "experiments.fake", SimpleNamespace(EXPERIMENT=experiment))
        return Study(Context("fake", seeds=(0, 1, 2)), experiment)

    first, path = study(), STUDY / "fake.json"
    with pytest.raises(KeyboardInterrupt):
        first.finish(first.missing(), 1)
    found = read(path)
    assert [run["accuracy"] for run in found["runs"]] == [0.5, 0.6] and found["mean"] == pytest.approx(0.55)
    assert (found["command"], found["fact"]) == ("python -m experiments fake", [1, 2])
    assert found["modules"]["model.py"] == provenance.source_digest(ROOT / "model.py")
    stop, second = False, study()
    assert [task["seed"] for task in second.missing()] == [2]
    second.finish(second.missing(), 1)
    assert [run["accuracy"] for run in read(path)["runs"]] == [0.5, 0.6, 0.7] and not study().missing()
    with pytest.raises(UserError, match="fake.json holds runs with other fact than now"):
        study(3)
    for content in "", "[]", "{}", '{"command": 1}', '{"command": "x", "runs": [1]}', "[" * 10**5:
        path.write_text(content)
        with pytest.raises(UserError, match="fake.json is foreign, of another version or damaged"):
            study()
        assert path.read_text() == content


def test_two_jobs_give_the_bits_of_one(start):
    found = []
    for jobs in 1, 2:
        start("seeds", "default", "--tiny", "--seeds", 0, 1, "--jobs", jobs).succeeded()
        content = read((TINY / "seeds.json").rename("seeds.json"))
        assert {"training/kernels.py", "experiments/seeds.py"} <= content["modules"].keys()
        found.append(sorted(content["runs"], key=lambda run: run["seed"]))
        for row in (row for run in found[-1] for row in (run, *run["history"])):
            row.pop("seconds")
    assert found[0] == found[1] and found[0][0]["history"] != found[0][1]["history"]


def test_tables_leave_out_what_diverged_and_have_the_reference_in_brackets():
    runs = [{"accuracy": a, "last_accuracy": b} for a, b in ((0.9, 0.8), (0.7, 0.8), (None, None))]
    found = results.mean_and_deviation(runs)
    assert found["mean"] == pytest.approx(0.8) and found["deviation"] == pytest.approx(statistics.stdev([0.9, 0.7]))
    assert found["last_mean"] == 0.8 and found["last_deviation"] == 0
    assert results.mean_and_deviation(runs[2:]) == {} and results.mean_and_deviation(runs[:1])["deviation"] == 0
    row = results.by_variant([{"variant": "a", "seed": i, **run} for i, run in enumerate(runs)])["a"]
    assert (row["seeds"], row["diverged"]) == (3, 1) and results.error(row) == "20.00 ± 14.14"
    assert "| a | 3 | 1 of 3 diverged |  |" in results.validation_table({"variants": {"a": row}})["results"]
    here, there = results.markdown(["", "x", "y"], [["a", 1, 2], ["b", 3, 4]]), results.markdown(["", "y"], [["a", 5]])
    assert results.beside(here, there).splitlines()[2:] == ["| a | 1 | 2 [5] |", "| b | 3 | 4 |"]
    recurring = results.markdown(["", "here", "here"], [["a", 1, 2]])
    assert results.beside(recurring, recurring).splitlines()[2:] == ["| a | 1 [1] | 2 [2] |"]


def test_seeds_are_trained_anew_beside_the_reference(start, tiny_mnist, monkeypatch):
    """Though a finished checkpoint of the same run and the reference's runs are at hand."""
    monkeypatch.setitem(RECIPES, "default", DEFAULT.override(epochs=1))
    *_, trained = loop.train(RECIPES["default"], mnist.load("mnist", tiny_mnist), 0)
    row = {**trained.history[0], "seconds": 7200.0}
    checkpoint.save(Path("Record", checkpoint.FILE), dataclasses.replace(trained, history=[row]))
    runs = [{"variant": "default", "seed": s, "accuracy": 0.75, "last_accuracy": 0.5, "seconds": 7200} for s in (0, 1)]
    write("seeds", **seeds.summarize(None, runs), runs=runs)
    before = contents(SHIPPED)
    out = start("seeds", "default", "--jobs", 1, "--seeds", 0, 1).succeeded().out
    found = read(STUDY / "seeds.json")
    first, second = found["runs"]
    assert first["accuracy"] == row["test_accuracy"] and (first["accuracy"], second["accuracy"]) != (0.75, 0.75)
    assert len(first["misclassified"]) == round(200 * (1 - row["test_accuracy"]))
    assert max(first["seconds"], second["seconds"]) < 100 and contents(SHIPPED) == before
    error = results.error(found["variants"]["default"])
    assert out.startswith("2 runs are left, 1 at a time: about 4.0 hours") and "seeds.json" in out
    assert f"| default | 2 [2] | {error} [25.00 ± 0.00] |" in out
    start("seeds", "default-plain", "--seeds", 0, "--jobs", 1).succeeded()
    assert [run["history"][0]["path"] for run in read(STUDY / "seeds.json")["runs"]] == ["compiled"] * 2 + ["plain"]
    monkeypatch.setitem(RECIPES, "default", DEFAULT.override(epochs=1, lr=0.001))
    start("seeds", "--seeds", 3).refused("seeds.json", "other recipes")


@pytest.fixture
def two_seeds(own_folders):
    """The reference's runs of `seeds`: two seeds and ten passes for each variant."""
    runs = []
    for i, name in enumerate(seeds.COMPARED):
        for seed, wrong in (0, [7, 10 + i]), (1, [7, 20]):
            rows = [{"train_accuracy": 0.95, "test_accuracy": test + 0.02 * seed} for test in (0.8, *[0.9] * 9)]
            runs.append({"variant": name, "seed": seed, "accuracy": 0.9998, "misclassified": wrong, "history": rows})
    write("seeds", runs=runs)
    return runs


def test_passes_errors_and_set_sizes_read_the_runs_of_seeds_ones_own_before_the_reference(start, two_seeds, tiny_mnist):
    start("errors").succeeded()
    found = read(STUDY / "errors.json")
    assert found["by_all"] == [7] and found["networks"] == 10 and len(found["comparisons"]) == 20
    assert found["variants"]["1998"] == {"errors": {"0": 2, "1": 2}, "by_all_seeds": 1, "by_any_seed": 3}
    assert errors.mcnemar({1, 2, 3}, {3}) == {"only_one": 2, "only_other": 0, "p": 0.5}
    assert errors.mcnemar(set(range(10)), {20}) == {"only_one": 10, "only_other": 1, "p": 24 / 2**11}
    assert errors.mcnemar({1}, {1})["p"] == 1
    assert "| 100 |" in start("set_size", "--tiny", "--jobs", 1).succeeded().out
    found = read(TINY / "set_size.json")
    assert all(row["seeds"] == 1 and 0 < row["mean"] < 0.9 for own in found["errors"].values() for row in own.values())
    whole = set_size.summarize(Context("set_size"), found["runs"])["errors"]["1998"]
    assert list(whole) == ["100", "200", "60000"] and whole["60000"]["mean"] == pytest.approx(0.9998)
    own = [{**run, "history": run["history"][:3]} for run in two_seeds if run["variant"] == "best"]
    write("seeds", STUDY, runs=own)
    out, others = start("passes").succeeded().out, "default without augmentation, 1998, 1998 with augmentation"
    assert "runs of best: those in Record/study/seeds.json" in out
    assert f"{others}: those in Record/reference/study/seeds.json" in out
    curves = read(STUDY / "passes.json")["variants"]
    assert curves.keys() == seeds.COMPARED.keys() and (STUDY / "passes.png").exists()
    assert curves["best"]["test"]["mean"] == pytest.approx([0.19, 0.09, 0.09])
    assert curves["1998"]["test"]["least"][:2] == pytest.approx([0.18, 0.08])
    start("passes", "--tiny").refused("tiny/seeds.json is missing", "python -m experiments seeds")


def test_choices_never_load_the_test_set(rehearse, monkeypatch):
    def training_digits_only(name, data_dir, subset):
        assert subset == "train"
        return few_digits(name, data_dir, subset)

    monkeypatch.setattr(mnist, "load_dataset", training_digits_only)
    asked = "fast, batch 32, peak 0.002", "default, initialization 2.4/F, coefficient 1.0"
    assert list(rehearse("choices", *asked)["variants"]) == [*asked[::-1]]
    found = rehearse("augmentation", "figure", "best")
    assert len(found["variants"]) == 4 + 2 + 2 and found["leading"]["best"] in found["variants"]
    assert sum("cosine" in name for name in found["variants"]) == 2
    assert 0 <= rehearse("numbers_choice", "relu")["variants"]["relu"]["mean"] <= 1
    assert list(rehearse("writing_choice", "all", "none")["variants"]) == ["none", "all"]
    assert {path.stem for path in TINY.glob("*.png")} == {"augmentation"}


def test_whole_numbers(rehearse, monkeypatch):
    """The network is kept: asked for again, it is not trained."""
    for name, amounts in {"GAPS": (-1, 2), "SLANTS": (0, 0.5), "GRAINS": (0, 20)}.items():
        monkeypatch.setattr(numbers, name, amounts)
    found = rehearse("numbers")
    assert found["mean"]["digits"] > 0 and 0 < found["mean"]["lines"] <= 1 and (TINY / "sweep.png").exists()
    assert [list(found["runs"][0][what]) for what in ("gap", "slant")] == [["-1", "2"], ["0", "0.5"]]
    monkeypatch.setattr(loop, "train", None)
    again = numbers.network(Context("numbers", "digits", tiny=True), 0)
    kept = checkpoint.load_network(TINY / "numbers" / "0" / checkpoint.FILE)
    assert torch.equal(again.c5.weight, kept.c5.weight)


def test_lines_are_changed_by_the_amounts_that_the_reference_shows(monkeypatch):
    shipped, asked = runner.reference("numbers")["runs"][0], []
    for what, amounts in {"gap": numbers.GAPS, "slant": numbers.SLANTS, "noise": numbers.GRAINS}.items():
        assert list(shipped[what]) == list(map(str, amounts))
    sample, test_set = lines.sample_lines, mnist.load_dataset("digits", None, "test")
    monkeypatch.setattr(numbers, "sample_lines", lambda *args, **how: asked.append(how) or sample(*args, **how))
    numbers.changed_lines(test_set, 10, "gap", -4)
    numbers.changed_lines(test_set, 10, "slant", 0.5)
    column = torch.zeros(1, 32, 32, dtype=torch.uint8)
    column[0, 4:28, 16] = 200
    upper, lower = (asked[1]["change"](column)[0, row].float().argmax() for row in (6, 25))
    assert asked[0] == {"gaps": (-4, -4)} and 8 <= upper - lower <= 11
    assert 5 < numbers.changed_lines(test_set, 50, "noise", 20)[0][0].float().std(0).min() < 25
    outcomes = [([1, 2], [1, 2]), ([3], [3, 3]), ([4, 5, 6], [5, 7]), ([], [])]
    assert numbers.errors(outcomes) == {"lines": 0.5, "digits": 3 / 6}


def test_digits_changed_on_purpose():
    digit, dot = pad(few_digits("digits", None, "test")[0][:1]), torch.zeros(1, 32, 32, dtype=torch.uint8)
    assert torch.equal(robustness.rotate(digit, 90), digit.rot90(-1, (1, 2)))
    assert torch.equal(robustness.move(digit, 3), digit.roll(3, 2))
    assert torch.equal(robustness.thicken(robustness.enlarge(digit, 1), 0), digit)
    dot[0, 10, 10] = 200
    assert robustness.thicken(dot, 1).count_nonzero() == 5 and not robustness.thicken(dot, -1).any()
    assert robustness.thicken(dot, 0.5)[0, 9, 10] == 100


def test_rendered_images(rehearse):
    files = [rendered.image_file(few_digits("digits", None, "test")[0][0].numpy(), default_rng(i)) for i in (0, 0, 1)]
    assert files[0] == files[1] != files[2]
    found = rehearse("rendered")
    assert found["digits"]["images"] == 16 and found["digits"]["accuracy"] > 0.5 and found["numbers"]["accuracy"] > 0.2
    assert found["predict"]["accuracy"] > 0.5 and rendered.tables(found)["results"].count("\n") == 4
    assert Image.open(TINY / "rendered.png").width == round(plots.WIDTH * plots.DPI)


def test_rendered_digits_are_read_as_the_script_reads_them(monkeypatch):
    """What is taken for several digits, or cannot be read at all, is wrong."""
    networks = [checkpoint.network(reference(name)) for name in ("best", "numbers")]
    answers = iter([[SimpleNamespace(number=number)] for number in ("12", "345", *["1"] * 14)])
    monkeypatch.setattr(ClassifyTask_predict, "read", lambda *_: next(answers))
    found = rendered.measure_predict(*networks, few_digits("digits", None, "test"), 16)
    assert found["several_digits"] == 2 and found["accuracy"] <= 14 / 16


def test_exercises(rehearse, monkeypatch):
    """A small run gives all tables; what is only counted is as in the reference; the second start trains nothing."""
    content, shipped = rehearse("exercises"), exercises.tables(read(REFERENCE / "study" / "exercises.json"))
    assert content["command"] == "python -m experiments exercises --tiny"
    assert (tables := exercises.tables(content)).keys() == shipped.keys()
    assert all(tables[name] == shipped[name] for name in ("c3", "squash", "fields", "paths"))
    monkeypatch.setattr(loop, "train", None)
    assert rehearse("exercises")["runs"] == content["runs"]
    exercises.worked_out()
    with exercises.groups():
        assert LeNet5(connection="groups").c3.weight.shape[0] == 60
    with pytest.raises(ValueError, match="groups"):
        LeNet5(connection="groups")  # no choice elsewhere


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cuda"])  # it has never run on a GPU
def test_the_reference_is_whole(name):
    """Its tables can be made, and a start that goes on from it has nothing left to do."""
    assert all(table.startswith("| ") for table in runner.tables(name).values())
    if experiment := getattr(importlib.import_module(f"experiments.{name}"), "EXPERIMENT", None):
        variants = tuple(variant for variant in experiment.variants if variant not in experiment.optional)
        context = Context(name, reference=True, seeds=experiment.seeds, variants=variants)
        assert not experiment.tasks or Study(context, experiment).missing() == []
