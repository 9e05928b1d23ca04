"""The README beside what it speaks of: the figures in Record/, the layers, the options, the files."""

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import utils
from model import LeNet5, layer_table

README = Path("README.md").read_text(encoding="utf-8")


def record(name):
    return json.loads((utils.RECORD / name).read_text(encoding="utf-8"))


def percent(share):
    return f"{100 * share:.2f}"


def assert_said(*texts):
    for text in texts:
        assert text in README, f"the README should say: {text}"


def test_seeds():
    seeds = record("seeds.json")
    assert len(seeds["runs"]) >= 5
    assert seeds["command"] in README
    assert_said(
        f"{percent(seeds['mean'])} ± {percent(seeds['deviation'])}",
        f"{percent(seeds['last_mean'])} ± {percent(seeds['last_deviation'])}",
        f"mean ± deviation of {len(seeds['runs'])} seeds",
    )


def test_plain_seeds():
    plain, fast = record("study/seeds-adam-plain.json"), record("seeds.json")["runs"]
    accuracies = [run["accuracy"] for run in fast if run["seed"] in [run["seed"] for run in plain["runs"]]]
    assert len(accuracies) == len(plain["runs"]) >= 3
    assert_said(
        f"{percent(statistics.mean(accuracies))} ± {percent(statistics.stdev(accuracies))} %",
        f"{percent(plain['mean'])} ± {percent(plain['deviation'])} %",
    )


def test_reference_run():
    metrics, run = record("metrics.json"), record("seeds.json")["runs"][0]
    low, high = metrics["interval"]
    assert_said(f"{percent(metrics['accuracy'])} ({percent(low)} to {percent(high)})")
    assert run["seed"] == metrics["seed"] == 0
    assert run["accuracy"] == metrics["accuracy"]
    assert run["last_accuracy"] == metrics["last_accuracy"]


def test_1998():
    study, metrics = record("study/seeds-1998.json"), record("1998/metrics.json")
    assert_said(
        f"{percent(1 - study['mean'])} ± {percent(study['deviation'])} ({len(study['runs'])} seeds)",
        f"{percent(1 - study['training_mean'])} ± {percent(study['training_deviation'])}",
    )
    assert study["runs"][0]["accuracy"] == metrics["accuracy"]
    ranges = [run["history"][0]["step_range"] for run in study["runs"]]
    assert_said(f"{min(low for low, _ in ranges):.1e} to {max(high for _, high in ranges):.1e}")


def test_benchmark():
    benchmark = record("study/benchmark.json")
    devices = benchmark["devices"].values()
    for name in next(iter(devices))["variants"]:
        if name != "this project":
            rows = [device["variants"][name] for device in devices]
            cells = ["{:.1f} ({:.1f} to {:.1f})".format(row["ratio"], *row["ratio_range"]) for row in rows]
            assert_said(f"| {' | '.join([name, *cells])} |")
    assert_said(f"{benchmark['steps_per_second_1998']:,.0f} steps a second", *[device["machine"] for device in devices])
    few, all_digits = benchmark["milliseconds_by_set_size"].values()
    assert_said(f"{all_digits / few:.2f} times as long with all 60,000 training digits as with 9,600")
    program = benchmark["program"]
    assert_said(
        f"{program['first_step_seconds']:.1f} s after the start",
        f"{program['training_mib'] - program['import_mib']:.0f} MiB above",
        f"read in {program['evaluation_seconds']:.1f} s",
    )
    for group, share in benchmark["profile"].items():
        assert_said(f"| {group} | {100 * share:.0f} |")
    for what, ratio in benchmark["alternatives"].items():
        assert_said(f"| {what} | {ratio:.1f} |")


def test_faults():
    study = record("study/faults.json")
    assert study["failed"] == 0
    for fault, count in count_faults(study["tried"]).items():
        assert_said(f"| {fault} | {count:,} | 0 |")


def count_faults(tried):
    """The kinds of faults of the README's table, each the sum of several of the search's."""
    kinds = {
        "training killed at any time": "training killed at any time",
        "training killed in the writing of a checkpoint": "training killed in the writing",
        "training stopped by Ctrl-C or SIGTERM": "training stopped",
        "disk error, or folder removed": "(disk|record folder)",
        "MNIST's files damaged": "(unpacked file|archive) of MNIST",
        "checkpoint mutated": "checkpoint with mutated [a-z]+: (refused|loaded|as the original)",
        "command lines of the three scripts": "command line",
    }
    return {
        name: sum(count for fault, count in tried.items() if re.match(pattern, fault))
        for name, pattern in kinds.items()
    }


def test_own_pictures():
    study = record("study/own_pictures.json")
    pictures, plain, kept = (f"{100 * study[key]:.1f} %" for key in ("accuracy", "plain_accuracy", "kept"))
    assert_said(f"{study['pictures']:,} test digits", pictures, f"{plain}: {kept} of it is kept", study["command"])


def test_choices():
    runs = record("study/choices.json")["runs"]
    for variant in {run["variant"] for run in runs}:
        accuracies = [run["accuracy"] for run in runs if run["variant"] == variant]
        diverged = None in accuracies
        error = "diverged" if diverged else percent(1 - sum(accuracies) / len(accuracies))
        assert_said(f"| {variant} | {len(accuracies)} | {error} |")
    for variant in "adam, 20 epochs, 61,706 parameters", "adam, 20 epochs, start 1/sqrt(F), coefficient 1.0":
        last = [run["last_accuracy"] for run in runs if run["variant"] == variant]
        assert_said(f"misread {percent(1 - statistics.mean(last))} %")


def test_layer_table():
    names = {"output": "output, default"}
    for name, (_, parameters, connections) in layer_table(LeNet5()).items():
        row = next(line for line in README.splitlines() if line.startswith(f"| {names.get(name, name.upper())} |"))
        assert row.endswith(f"| {parameters:,} | {connections:,} |")


@pytest.mark.parametrize("script", ["ClassifyTask_train.py", "ClassifyTask_test.py", "ClassifyTask_predict.py"])
def test_options(script):
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, encoding="utf-8", check=True).stdout
    table = re.split(rf"`{script}(?: PICTURE…)?`:\n", README)[1].split("\n\n")[0]
    flags = set(re.findall(r"^  (?:-h, )?(--[\w-]+)", shown, re.MULTILINE)) - {"--help"}
    assert flags == set(re.findall(r"^\| `(--[\w-]+)", table, re.MULTILINE))


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [target for target in targets if not target.startswith("https://") and not Path(target).exists()]
    assert missing == []


def test_files_named_in_the_tree_exist():
    tree = README.split("## Files")[1].split("```")[1]
    names = [line.split()[0] for line in tree.splitlines() if line and not line.startswith(" ")]
    assert [name for name in names if not Path(name.rstrip(",")).exists()] == []


def test_nothing_is_left_to_fill_in():
    assert re.findall(r"@[A-Z0-9]{3,}", README) == []
