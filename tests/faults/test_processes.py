"""Trainings killed at any time and in the middle of writing, stopped, and two in one folder: nothing is lost."""

import collections
import json
import random
import shutil
import signal
import time
from functools import partial

import pytest
from conftest import contents, same

import checkpoint
from faults.conftest import (
    DIGITS,
    EPOCHS,
    FILE,
    POSIX,
    TEST,
    TRAIN,
    at_moment,
    both,
    quick_figures,
    signal_self,
    slow_disk,
)

pytestmark = POSIX
RECIPES = {"fast": (), "plain": ("--plain",), "1998": ("--recipe", "1998")}


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_trainings_lose_nothing(recipe, kills, child, tmp_path, tally):
    """Half of them are killed at a random time, half at a random moment of the writing."""
    rng = random.Random(f"{recipe} {kills}")
    arguments = (*DIGITS, *RECIPES[recipe], "--epochs", EPOCHS, "--record-dir")
    for _ in range(2):  # the first may have something to compile
        start = time.perf_counter()
        child(TRAIN, *arguments, "whole").end().succeeded()
        duration = time.perf_counter() - start
    whole = checkpoint.load(tmp_path / "whole" / FILE)
    killed = collections.Counter()
    while killed.total() < kills / len(RECIPES):
        folder, epoch = tmp_path / "parts", 0
        while True:
            when = rng.choice(["at any time", "in the writing"])
            if when == "at any time":
                run = child(TRAIN, *arguments, folder, "--resume")
                time.sleep(rng.uniform(0, duration))
                run.send(signal.SIGKILL)
            else:
                hinder = partial(
                    at_moment, rng.randint(1, 1 + 15 * (EPOCHS - epoch)), partial(signal_self, signal.SIGKILL)
                )
                run = child(TRAIN, *arguments, folder, "--resume", hinder=hinder)
            result = run.end()
            path = folder / FILE
            if path.exists():
                latest = checkpoint.load(path)
                assert epoch <= latest.epoch <= EPOCHS
                epoch = latest.epoch
            if result.status != -signal.SIGKILL:
                break
            killed[when] += 1
            tally[f"training killed {when}, {recipe}"] += 1
        result.succeeded()
        assert same(latest, whole) and latest.finished and list(contents(folder)) == [path]
        path.unlink()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_stopped_trainings_keep_the_last_epoch(number, status, kills, child, tmp_path, tally):
    rng = random.Random(f"{number} {kills}")
    for i in range(kills // 4):
        folder = tmp_path / str(i)
        arguments = (TRAIN, *DIGITS, "--epochs", 5000, "--record-dir", folder)
        if i % 2:
            run = child(*arguments, hinder=partial(slow_disk, 0.01))
            time.sleep(rng.uniform(0, 1))
            run.send(number)
        else:
            run = child(*arguments, hinder=partial(at_moment, rng.randint(1, 40), partial(signal_self, number)))
        result = run.end().said("stopped", "--resume")
        assert result.status == status
        if told := result.out.count("epoch "):
            assert told <= checkpoint.load(folder / FILE).epoch <= told + 1
        assert [path.name for path in folder.glob("*")] in ([], [FILE])
        tally[f"training stopped with status {status}"] += 1


def test_of_two_trainings_in_one_folder_the_second_is_refused_until_the_first_is_killed(child, tmp_path, tally):
    arguments = (TRAIN, *DIGITS, "--epochs", EPOCHS, "--record-dir")
    child(*arguments, "alone").end().succeeded()
    first = child(*arguments, "run", hinder=partial(slow_disk, 0.3))
    wait_for(tmp_path / "run" / FILE)
    for flags in (), ("--resume",), ("--seed", 1):
        child(*arguments, "run", *flags).end().refused("another process is writing", "--record-dir")
        tally["second training in one folder"] += 1
    child(TEST, "--checkpoint", f"run/{FILE}", hinder=quick_figures).end().succeeded()  # which a test may look at
    first.send(signal.SIGKILL)
    assert first.end().status == -signal.SIGKILL
    child(*arguments, "run", "--resume").end().succeeded()
    alone, run = (checkpoint.load(tmp_path / name / FILE) for name in ("alone", "run"))
    assert same(alone, run)
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(f".{FILE}")]


def test_many_trainings_that_go_on_with_one_another_end_as_one(child, tmp_path, tally):
    arguments = (TRAIN, *DIGITS, "--epochs", EPOCHS, "--record-dir")
    child(*arguments, "alone").end().succeeded()
    for _ in range(3):
        results = [run.end() for run in [child(*arguments, "run", "--resume") for _ in range(3)]]
        for result in results:
            if result.status:
                result.refused("another process is writing")
        assert any(result.status == 0 for result in results)
        assert same(*(checkpoint.load(tmp_path / name / FILE) for name in ("alone", "run")))
        assert [path.name for path in (tmp_path / "run").iterdir()] == [FILE]
        shutil.rmtree(tmp_path / "run")
        tally["three trainings started at once"] += 1


def test_of_two_tests_in_one_folder_the_second_is_refused(begun, child, tally):
    first = child(TEST, "--checkpoint", begun, hinder=partial(both, quick_figures, partial(slow_disk, 0.05)))
    wait_for(begun.with_name(".metrics.json.lock"))
    child(TEST, "--checkpoint", begun, "--weights", "last", hinder=quick_figures).end().refused("metrics.json")
    first.end().succeeded()
    assert json.loads(begun.with_name("metrics.json").read_text())["weights"] == "reported"
    assert len(list(begun.parent.iterdir())) == 7
    tally["second test in one folder"] += 1


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.005)
