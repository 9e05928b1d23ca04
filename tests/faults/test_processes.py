"""Training runs killed, stopped, two in one folder, disks that are full or broken: what was on the disk stays."""

import collections
import errno
import random
import signal
import time
from functools import partial

import pytest
from conftest import TALLY, contents, same

from faults.conftest import DIGITS, FILE, POSIX, TEST, TRAIN, at_moment, fail, limit_file_size, slow_disk
from training import checkpoint

pytestmark = POSIX
EPOCHS, RECIPES = 5, ("default", "1998", "numbers")


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_runs_lose_nothing(recipe, kills, child, tmp_path):
    """They are killed at a random time, or at a random moment of the writing, and resumed until they end."""
    rng = random.Random(f"{recipe} {kills}")
    arguments = (TRAIN, *DIGITS, "--recipe", recipe, "--epochs", EPOCHS, "--record-dir")
    if recipe == "numbers":
        child(TRAIN, *DIGITS, "--recipe", "best", "--epochs", 1).end().succeeded()
    start = time.perf_counter()
    child(*arguments, "whole").end().succeeded()
    duration = time.perf_counter() - start
    whole, path = checkpoint.load(tmp_path / "whole" / FILE), tmp_path / "parts" / FILE
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
            killed[f"training run killed {when}, {recipe}"] += not finished
        result.succeeded()
        assert same(latest, whole) and list(contents(path.parent)) == [path]
        path.unlink()
    TALLY.update(killed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_runs_keep_the_last_epoch(number, kills, child, tmp_path):
    rng = random.Random(f"{number} {kills}")
    for i in range(kills // 4):
        folder, status = tmp_path / str(i), 128 + number
        arguments = (TRAIN, *DIGITS, "--epochs", 5000, "--record-dir", folder)
        if i % 2:
            run = child(*arguments, hinder=partial(slow_disk, 0.01, threads=2 - i % 4 // 2))
            time.sleep(rng.uniform(0, 1))
            run.send(number)
        else:
            hinder = partial(at_moment, rng.randint(1, 40), partial(signal.raise_signal, number))
            run = child(*arguments, hinder=hinder)
        result = run.end().said("stopped; if an epoch of this run is finished, it is on disk, and --resume")
        assert result.status == status
        if told := result.out.count("epoch "):
            assert told <= checkpoint.load(folder / FILE).epoch <= told + 1
        assert [path.name for path in folder.glob("*")] in ([], [FILE])
        TALLY[f"training run stopped with status {status}"] += 1


def test_of_two_runs_in_one_folder_the_second_is_refused_until_the_first_is_killed(child, tmp_path):
    arguments = (TRAIN, *DIGITS, "--epochs", EPOCHS, "--lr", 0.0003, "--seed", 5, "--record-dir")
    child(*arguments, "alone").end().succeeded()
    first = child(*arguments, "run", hinder=partial(slow_disk, 0.2))
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / FILE).exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for flags in (), ("--resume",), ("--seed", 1):
        child(*arguments, "run", *flags).end().refused("another process is writing", "--record-dir")
        TALLY["second training run in one folder"] += 1
    first.send(signal.SIGKILL)
    assert first.end().status == -signal.SIGKILL
    # What the first was told is in its checkpoint.
    child(TRAIN, *DIGITS, "--record-dir", "run", "--resume").end().succeeded()
    assert same(*(checkpoint.load(tmp_path / name / FILE) for name in ("alone", "run")))
    assert not list((tmp_path / "run").glob(f".{FILE}*"))


def test_a_disk_that_is_full_or_fails_leaves_what_was_there(begun, child):
    before, size = contents(begun.parent), begun.stat().st_size
    train, test = (TRAIN, *DIGITS, "--record-dir", begun.parent, "--resume"), (TEST, "--checkpoint", begun)
    # The first two moments are attempts to make the run's folder, which is there: an error then is none.
    for moment, error in enumerate((errno.ENOSPC, errno.EIO, errno.EROFS, errno.ENOSPC, errno.EIO), 3):
        child(*train, hinder=partial(at_moment, moment, partial(fail, error))).end().refused("run")
        assert contents(begun.parent) == before and list(begun.parent.iterdir()) == [begun]
        TALLY["disk error in the writing of a checkpoint"] += 1
    for most, script in (0, train), (size // 2, train), (size - 1, train), (0, test), (1000, test):
        child(*script, hinder=partial(limit_file_size, most)).end().refused("too large", begun.parent)
        assert contents(begun.parent) == before and list(begun.parent.iterdir()) == [begun]
        TALLY[f"disk full in {script[0]}"] += 1
