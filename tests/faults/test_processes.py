"""Trainings killed at any time and in the middle of writing, stopped, and two in one folder: nothing is lost."""

import collections
import random
import signal
import time
from functools import partial

import pytest
from conftest import contents, same

import checkpoint
from faults.conftest import DIGITS, EPOCHS, FILE, POSIX, TRAIN, at_moment, slow_disk

pytestmark = POSIX
RECIPES = {"adam": (), "1998": ("--recipe", "1998")}


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_trainings_lose_nothing(recipe, kills, child, tmp_path, tally):
    """They are killed at a random time, or at a random moment of the writing, and resumed until they end."""
    rng = random.Random(f"{recipe} {kills}")
    arguments = (TRAIN, *DIGITS, *RECIPES[recipe], "--epochs", EPOCHS, "--record-dir")
    start = time.perf_counter()
    child(*arguments, "whole").end().succeeded()
    duration = time.perf_counter() - start
    whole, path = (checkpoint.load(tmp_path / "whole" / FILE), tmp_path / "parts" / FILE)
    killed = collections.Counter()
    while killed.total() < kills / len(RECIPES):
        epoch, finished = 0, False
        while not finished:
            when = rng.choice(["at any time", "in the writing"])
            if when == "at any time":
                run = child(*arguments, "parts", "--resume")
                time.sleep(rng.uniform(0, duration))
                run.send(signal.SIGKILL)
            else:
                moment = rng.randint(1, 1 + 7 * (EPOCHS - epoch))
                hinder = partial(at_moment, moment, partial(signal.raise_signal, signal.SIGKILL))
                run = child(*arguments, "parts", "--resume", hinder=hinder)
            result = run.end()
            if path.exists():
                latest = checkpoint.load(path)
                assert epoch <= latest.epoch <= EPOCHS
                epoch = latest.epoch
            finished = result.status != -signal.SIGKILL
            if not finished:
                killed[when] += 1
                tally[f"training killed {when}, {recipe}"] += 1
        result.succeeded()
        assert same(latest, whole)
        assert list(contents(path.parent)) == [path]
        path.unlink()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_stopped_trainings_keep_the_last_epoch(number, status, kills, child, tmp_path, tally):
    rng = random.Random(f"{number} {kills}")
    for i in range(kills // 4):
        folder = tmp_path / str(i)
        arguments = (TRAIN, *DIGITS, "--epochs", 5000, "--record-dir", folder)
        if i % 2:
            run = child(*arguments, hinder=partial(slow_disk, 0.01, threads=2 - i % 4 // 2))
            time.sleep(rng.uniform(0, 1))
            run.send(number)
        else:
            hinder = partial(at_moment, rng.randint(1, 40), partial(signal.raise_signal, number))
            run = child(*arguments, hinder=hinder)
        result = run.end().said("stopped", "--resume")
        assert result.status == status
        if told := result.out.count("epoch "):
            assert told <= checkpoint.load(folder / FILE).epoch <= told + 1
        assert [path.name for path in folder.glob("*")] in ([], [FILE])
        tally[f"training stopped with status {status}"] += 1


def test_of_two_trainings_in_one_folder_the_second_is_refused_until_the_first_is_killed(child, tmp_path, tally):
    arguments = (TRAIN, *DIGITS, "--epochs", EPOCHS, "--lr", 0.0003, "--seed", 5, "--record-dir")
    child(*arguments, "alone").end().succeeded()
    first = child(*arguments, "run", hinder=partial(slow_disk, 0.3))
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / FILE).exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for flags in (), ("--resume",), ("--seed", 1):
        child(*arguments, "run", *flags).end().refused("another process is writing", "--record-dir")
        tally["second training in one folder"] += 1
    first.send(signal.SIGKILL)
    assert first.end().status == -signal.SIGKILL
    # What the first was told is in its checkpoint.
    child(TRAIN, *DIGITS, "--record-dir", "run", "--resume").end().succeeded()
    assert same(*(checkpoint.load(tmp_path / name / FILE) for name in ("alone", "run")))
    assert not list((tmp_path / "run").glob(f".{FILE}*"))
