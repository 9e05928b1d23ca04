"""Checkpoints, command lines and MNIST's files, damaged, forged or drawn at random: a run, or one line."""

import collections
import json
import math
import os
import pickle
import random
import re
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import NAMES, TALLY, contents

from digits import mnist as datasets
from faults.conftest import DIGITS, FILE, PREDICT, TEST, TRAIN, write_image
from model import LeNet5
from training import checkpoint
from utils import UserError


def flip(content, place, bit=0):
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def header_end(content):
    return 8 + int.from_bytes(content[:8], "little")


def flip_a_bit(rng, content):
    """In the size of the header, the header, the last digit of a number in it, or a tensor."""
    end = header_end(content)
    digits = [match.end() - 1 for match in re.finditer(rb"\d\.\d{9,}", content[:end])]
    place = rng.choice([rng.randrange(8), rng.randrange(end), rng.choice(digits), rng.randrange(end, len(content))])
    return flip(content, place, 0 if place in digits else rng.randrange(8))


def mutate_bytes(rng, content):
    """Bytes removed, repeated or overwritten, or the end cut off."""
    place = rng.choice([rng.randrange(len(content)), rng.randrange(header_end(content))])
    length = rng.choice([1, 2, 4, 16, rng.randrange(1, len(content))])
    part = content[place : place + length]
    others = [b"", part * 2, rng.randbytes(len(part)), bytes(len(part))]
    return rng.choice([content[:place], *(content[:place] + other + content[place + length :] for other in others)])


VALUES = [
    *(None, True, -1, 0, 1, 2, 7, 2**63, 10**400, 0.5, -0.5, 1e-30, 1e30, 1e400, "", "default", "1998", "eq. 8", "é"),
    *("x" * 10_000, "a\nb", "../../a", [], {}, [1], {"a": 1}, [[]], {"output": "rbf"}, [0.1] * 6000),
]  # fmt: skip
TENSORS = [torch.zeros(()), torch.ones(6, 1, 5, 5), torch.full((6,), math.nan), torch.full((6,), 1e30), torch.ones(6)]


def places(content):
    """All dictionaries and lists of a checkpoint's text, at any depth."""
    if content and isinstance(content, (dict, list)):
        yield content
        for value in content.values() if isinstance(content, dict) else content:
            yield from places(value)


def forge(rng, content):
    """Something missing, or in the place of something else, and the digest right: made on purpose."""
    tensors = safetensors.torch.load(content)
    text = json.loads(json.loads(content[8 : header_end(content)])["__metadata__"]["lenet5"])
    del text["digest"]
    place = rng.choice([tensors, *places(text)])
    key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
    place[key] = rng.choice(TENSORS if place is tensors else VALUES)
    if rng.randrange(4) == 0:
        del place[key]
    try:
        text["digest"] = checkpoint.digest(tensors, text)
    except ValueError:  # a number that JSON does not have
        text["digest"] = "0" * 64
    text = json.dumps(text, sort_keys=True, separators=(",", ":"))
    return safetensors.torch.save(tensors, {"format": "pt", "lenet5": text})


def scripts(path):
    """Each script, reading this checkpoint; the training last, since it may write another."""
    yield PREDICT, "digit.png", "--figure", "--checkpoint", path
    yield TEST, "--checkpoint", path
    yield TRAIN, *DIGITS, "--record-dir", path.parent, "--resume"


@pytest.mark.parametrize("mutate", [flip_a_bit, mutate_bytes, forge])
def test_mutated_checkpoints_are_refused_or_what_they_say(mutate, mutations, begun, here):
    good, outcomes = begun.read_bytes(), collections.Counter()
    write_image("digit.png")
    for i in range(mutations // 3):
        if (mutant := mutate(random.Random(f"{mutate.__name__} {i}"), good)) == good:
            continue
        begun.write_bytes(mutant)
        outcome = "loaded"
        try:
            checkpoint.load(begun)
        except UserError as error:
            assert f"run/{FILE}" in str(error), (i, error)
            outcome = "refused"
        outcomes[outcome] += 1
        for script in scripts(begun) if outcome == "loaded" or i % 100 == 0 else ():
            result = here(*script)
            if result.status == 0 and outcome == "loaded":
                assert result.err == "", (i, result)
            else:
                result.refused()
                # An epoch may have been saved before the training run diverged.
                assert begun.read_bytes() == mutant or "epoch " in result.out, i
            assert not list(begun.parent.glob(".*"))
    assert outcomes["loaded"] < mutations // 6 and (outcomes["loaded"] > 0) == (mutate is forge)
    TALLY.update({f"checkpoint, {mutate.__name__}: {outcome}": times for outcome, times in outcomes.items()})


class Payload:
    """What a pickle would do that the tests want never to happen."""

    def __reduce__(self):
        return open, ("victim", "w")


TERABYTES = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (2**40, 2**42)
FOREIGN = {  # bytes, or what makes the file
    "an old checkpoint": lambda path: torch.save({"model": LeNet5().state_dict(), "optimizer": Payload()}, path),
    "a bare pickle": pickle.dumps(Payload()),
    "nothing": b"",
    "a folder": Path.mkdir,
    "text": b"neither a checkpoint nor an image\n",
    "the weights alone": safetensors.torch.save(LeNet5().state_dict(), {"format": "pt"}),
    "a list for text": safetensors.torch.save({}, {"format": "pt", "lenet5": "[]"}),
    "deep text": safetensors.torch.save({}, {"format": "pt", "lenet5": "[" * 10**6}),
    "a header without end": (2**63).to_bytes(8, "little") + b"{}",
    "a tensor of terabytes": len(TERABYTES).to_bytes(8, "little") + TERABYTES,
    "a terabyte": lambda path: (path.touch(), os.truncate(path, 2**40)),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_files_are_refused_and_run_no_code(what, here, tmp_path):
    write_image("digit.png")
    path = tmp_path / "run" / FILE
    path.parent.mkdir()
    path.write_bytes(FOREIGN[what]) if isinstance(FOREIGN[what], bytes) else FOREIGN[what](path)
    for script in scripts(path):
        here(*script).refused(f"run/{FILE}")
        assert sorted(os.listdir()) == ["digit.png", "run"] and os.listdir("run") == [FILE]
    TALLY["foreign file for a checkpoint"] += 1


# ---------------------------------------------------------------------------------------------- command lines

FOLDERS = ["run", "new", "a/b/c", ".", "", f"run/{FILE}", f"run/{FILE}/below", "x" * 300, "/dev/null/x", "é\udcff"]
NUMBERS = ["1", "2", "०", "0", "x", "+1", " 1", "1_0", "-1", "1e-3", "5e-324", "1e999", "nan", "5001", str(2**32)]
CHECKPOINTS = [f"run/{FILE}", "missing", "run", "", "text", "/dev/null", "\udcff"]
IMAGES = ["digit.png", "text", "missing.png", "run", "", f"run/{FILE}", "\udcff.png"]
COMMON = {"--device": ["auto", "cpu", "cuda:99", "meta", ""], "--record-dir": FOLDERS}
COMMON |= dict.fromkeys(("--help", "--", "--reference"), [None])
DATA = {"--dataset": ["auto", "mnist", "digits", "digits", "Digits", ""], "--data-dir": FOLDERS}
DATA |= dict.fromkeys(("--augment", "--no-augment"), [None]) | {"--recipe": ["default", "1998", "numbers", "", "2024"]}
TRAINING = dict.fromkeys(("--epochs", "--batch-size", "--lr", "--seed"), NUMBERS)
TRAINING |= dict.fromkeys(("--resume", "--plain"), [None])
FLAGS = {
    TRAIN: {**COMMON, **DATA, **TRAINING, "--initial": CHECKPOINTS},
    TEST: {**COMMON, **DATA, "--checkpoint": CHECKPOINTS, "--weights": ["ema", "last", "best"]},
    PREDICT: {**COMMON, "--checkpoint": CHECKPOINTS, "--csv": [None], "--figure": [None]},
}


def command_line(rng, script):
    """Up to four flags with values that they may or may not take; now and then a value is missing."""
    if script == PREDICT:
        words = ["--checkpoint", f"run/{FILE}", *rng.choices(IMAGES, k=rng.randrange(4))]
    else:
        words = rng.choice([["--dataset", "digits"], ["--dataset", "digits", "--record-dir", "run"]])
    for flag in rng.choices(list(FLAGS[script]), k=rng.randrange(5)):
        value = rng.choice(FLAGS[script][flag])
        words = [*words, flag] if value is None or rng.randrange(20) == 0 else [*words, flag, value]
    return words


@pytest.mark.parametrize("script", FLAGS)
def test_any_options_give_a_run_or_one_line(script, mutations, trained, here, tmp_path):
    statuses = set()
    for i in range(mutations // 10):
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(trained[0], "run")
        Path("text").write_text("neither a checkpoint nor an image")
        write_image(Path("digit.png"))
        result = here(script, *command_line(random.Random(i), script))
        statuses.add(result.status)
        TALLY[f"command line of {script}"] += 1
        lines = [line for line in result.err.splitlines() if not line.startswith("WARNING:")]
        if result.status == 0:
            assert result.out and not lines, result
        else:
            assert result.status == 2 and lines and all(line.startswith(script) for line in lines), result
            assert len(lines) == 1 or script == PREDICT, result  # one an image
        assert not list(tmp_path.rglob(".*")) and checkpoint.load(Path("run", FILE))
    assert statuses == {0, 2}


def damages(good, other):
    """What may become of a good file, in whose place another good one may be put."""
    yield from (b"", good[:-1], good + b"garbage", other)
    yield good[:4] + (7).to_bytes(4, "big") + good[8:]  # another count
    yield from (flip(good, place) for place in (0, len(good) // 2, len(good) - 1))


@pytest.mark.parametrize("name", NAMES)
def test_damaged_data_are_mended_or_refused(name, tiny_mnist):
    raw, other = tiny_mnist / "MNIST" / "raw", NAMES[NAMES.index(name) - 1]
    unpacked, archive = raw / name, raw / f"{name}.gz"
    datasets.load("mnist", tiny_mnist)
    good = contents(raw)

    def refused(words):
        for choice in "auto", "mnist":
            with pytest.raises(UserError, match=words):
                datasets.load(datasets.find_dataset(choice, tiny_mnist), tiny_mnist)

    for path, partner, stranger in (unpacked, archive, raw / other), (archive, unpacked, raw / f"{other}.gz"):
        for bad in damages(good[path], good[stranger]):
            path.write_bytes(bad)
            datasets.load("mnist", tiny_mnist)  # for the other one is good
            assert unpacked.read_bytes() == good[unpacked]
            path.write_bytes(bad)
            partner.unlink()
            refused(f"{path} is damaged.*delete it")
            assert path.read_bytes() == bad
            for each in unpacked, archive:
                each.write_bytes(good[each])
            TALLY[f"{'archive' if path == archive else 'unpacked file'} of MNIST damaged"] += 1
    unpacked.unlink()
    os.truncate(archive, 2**40)  # a terabyte, which is not read
    refused(f"{archive} is damaged.*delete it")
    archive.unlink()  # three of four files
    refused(f"{archive.name} is missing")
