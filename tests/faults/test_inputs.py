"""Command lines of every kind, and MNIST's files damaged in every way: a run, or one line."""

import collections
import os
import random
import shutil
from pathlib import Path

import pytest
from conftest import NAMES, contents

import checkpoint
import mnist as datasets
from faults.conftest import FILE, PREDICT, TEST, TRAIN, write_picture
from utils import UserError

# ---------------------------------------------------------------------------------------------- options

FOLDERS = ["run", "new", "a/b/c", ".", "", f"run/{FILE}", f"run/{FILE}/below", "x" * 300, "/dev/null/x", "é\udcff"]
NUMBERS = ["1", "2", "०", "0", "x", "+1", " 1", "1_0", "-1", "1e-3", "5e-324", "1e999", "nan", "5001", str(2**32)]
CHECKPOINTS = [f"run/{FILE}", "missing", "run", "", "text", "/dev/null", "\udcff"]
COMMON = {"--device": ["auto", "cpu", "cuda:99", "meta", ""], "--record-dir": FOLDERS, "--help": [None], "--": [None]}
DATA = {
    "--dataset": ["auto", "mnist", "digits", "digits", "Digits", ""],
    "--data-dir": FOLDERS,
    "--recipe": ["adam", "1998", "", "2024"],
    "--distort": [None],
    "--no-distort": [None],
}
FLAGS = {
    TRAIN: {
        **COMMON,
        **DATA,
        **dict.fromkeys(("--epochs", "--batch-size", "--lr", "--seed"), NUMBERS),
        **dict.fromkeys(("--resume", "--plain"), [None]),
    },
    TEST: {**COMMON, **DATA, "--checkpoint": CHECKPOINTS, "--weights": ["reported", "last", "best"]},
    PREDICT: {**COMMON, "--checkpoint": CHECKPOINTS, "--csv": [None], "--figure": [None]},
}
PICTURES = ["digit.png", "text", "missing.png", "run", "", f"run/{FILE}", "\udcff.png"]


def command_line(rng, script):
    """Up to four flags with values that they may or may not take; now and then a value is missing."""
    if script == PREDICT:
        words = ["--checkpoint", f"run/{FILE}", *rng.choices(PICTURES, k=rng.randrange(4))]
    else:
        words = rng.choice([["--dataset", "digits"], ["--dataset", "digits", "--record-dir", "run"]])
    for flag in rng.choices(list(FLAGS[script]), k=rng.randrange(5)):
        value = rng.choice(FLAGS[script][flag])
        words = [*words, flag] if value is None or rng.randrange(20) == 0 else [*words, flag, value]
    return words


@pytest.mark.parametrize("script", FLAGS)
def test_any_options_give_a_run_or_one_line(script, mutations, trained, here, tmp_path, tally):
    statuses = collections.Counter()
    for i in range(mutations // 10):
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(trained[0], "run")
        Path("text").write_text("neither a checkpoint nor a picture")
        write_picture(Path("digit.png"))
        arguments = command_line(random.Random(i), script)
        result = here(script, *arguments)
        statuses[result.status] += 1
        tally[f"command line of {script}"] += 1
        lines = [line for line in result.err.splitlines() if not line.startswith("WARNING:")]
        if result.status == 0:
            assert result.out and not lines, result
        else:
            assert result.status == 2 and lines and all(line.startswith(script) for line in lines), result
            assert len(lines) == 1 or script == PREDICT, result  # one a picture
        assert not list(tmp_path.rglob(".*"))
        assert checkpoint.load(Path("run", FILE))
    assert set(statuses) == {0, 2}


# ---------------------------------------------------------------------------------------------- MNIST's files


def flip(content, bit):
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


DAMAGES = {  # of a good file, in the place of which another good one may be put
    "empty": lambda good, other: b"",
    "one byte missing": lambda good, other: good[:-1],
    "first bit flipped": lambda good, other: flip(good, 0),
    "a bit flipped": lambda good, other: flip(good, 4 * len(good)),
    "last bit flipped": lambda good, other: flip(good, 8 * len(good) - 1),
    "another count": lambda good, other: good[:4] + (7).to_bytes(4, "big") + good[8:],
    "swapped": lambda good, other: other,
    "garbage behind": lambda good, other: good + b"garbage",
}


@pytest.mark.parametrize("name", NAMES)
def test_damaged_data_are_mended_or_refused(name, tiny_mnist, tally):
    raw, other = tiny_mnist / "MNIST" / "raw", NAMES[NAMES.index(name) - 1]
    unpacked, archive = raw / name, raw / f"{name}.gz"
    datasets.find_dataset("mnist", tiny_mnist)
    good = contents(raw)
    for path, partner, stranger in (unpacked, archive, raw / other), (archive, unpacked, raw / f"{other}.gz"):
        for what, damage in DAMAGES.items():
            bad = damage(good[path], good[stranger])
            path.write_bytes(bad)
            datasets.find_dataset("mnist", tiny_mnist)  # for the other one is good
            assert unpacked.read_bytes() == good[unpacked], what
            path.write_bytes(bad)
            partner.unlink()
            for choice in "auto", "mnist":
                with pytest.raises(UserError, match=f"{path} is damaged.*delete it"):
                    datasets.find_dataset(choice, tiny_mnist)
            assert path.read_bytes() == bad, what
            for each in unpacked, archive:
                each.write_bytes(good[each])
            tally[f"{'archive' if path == archive else 'unpacked file'} of MNIST damaged"] += 1


def test_a_file_of_a_terabyte_is_not_read(tiny_mnist, tally):
    archive = tiny_mnist / "MNIST" / "raw" / f"{NAMES[0]}.gz"
    os.truncate(archive, 2**40)
    with pytest.raises(UserError, match=f"{archive} is damaged"):
        datasets.find_dataset("auto", tiny_mnist)
    tally["file of a terabyte"] += 1
