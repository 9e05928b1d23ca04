"""Checkpoints with bits flipped, bytes added or lost, contents forged: refused in one line, or what they say."""

import json
import math
import os
import pickle
import random
import re

import pytest
import safetensors.torch
import torch

import checkpoint
from faults.conftest import DIGITS, FILE, PREDICT, TEST, TRAIN, write_picture
from model import LeNet5
from utils import UserError


def header_end(content):
    return 8 + int.from_bytes(content[:8], "little")


def flip_a_bit(rng, content):
    """In the size of the header, the header, the last digit of a number in it, or a tensor."""
    content, end = bytearray(content), header_end(content)
    digits = [match.end() - 1 for match in re.finditer(rb"\d\.\d{9,}", content[:end])]
    place = rng.choice([rng.randrange(8), rng.randrange(end), rng.choice(digits), rng.randrange(end, len(content))])
    content[place] ^= 1 << (0 if place in digits else rng.randrange(8))
    return bytes(content)


def mutate_bytes(rng, content):
    """Bytes removed, repeated or overwritten, or the end cut off."""
    place = rng.choice([rng.randrange(len(content)), rng.randrange(header_end(content))])
    length = rng.choice([1, 2, 4, 16, rng.randrange(1, len(content))])
    part = content[place : place + length]
    others = [b"", part * 2, rng.randbytes(len(part)), bytes(len(part))]
    return rng.choice([content[:place], *(content[:place] + other + content[place + length :] for other in others)])


VALUES = [
    *(None, True, -1, 0, 1, 2, 7, 2**63, 10**400, 0.5, -0.5, 1e-30, 1e30, 1e400, "", "adam", "1998", "eq. 8", "é"),
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
    if rng.randrange(4) == 0:
        del place[key]
    else:
        place[key] = rng.choice(TENSORS if place is tensors else VALUES)
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
def test_mutated_checkpoints_are_refused_or_what_they_say(mutate, mutations, begun, here, tmp_path, tally):
    good, path, loaded = begun.read_bytes(), tmp_path / "mutant" / FILE, 0
    write_picture(tmp_path / "digit.png")
    path.parent.mkdir()
    for i in range(mutations // 3):
        mutant = mutate(random.Random(f"{mutate.__name__} {i}"), good)
        if mutant == good:
            continue
        path.write_bytes(mutant)
        try:
            checkpoint.load(path)
            outcome = "loaded"
            loaded += 1
        except UserError as error:
            assert str(path) in str(error), (i, error)
            outcome = "refused"
        assert outcome == "refused" or mutate is forge, f"mutant {i} is taken for a checkpoint"
        tally[f"checkpoint, {mutate.__name__}: {outcome}"] += 1
        if outcome == "refused" and i % 100:
            continue
        for script in scripts(path):
            result = here(*script)
            if result.status == 0 and outcome == "loaded":
                assert result.err == "", (i, result)
            else:
                result.refused()
                if "epoch " not in result.out:  # else an epoch was saved before the training diverged
                    assert path.read_bytes() == mutant, i
            assert not list(path.parent.glob(".*"))
    assert loaded < mutations // 6
    assert (loaded > 0) == (mutate is forge)


class Payload:
    """What a pickle would do that the tests want never to happen."""

    def __reduce__(self):
        return open, ("victim", "w")


def with_text(text):
    """A file of safetensors with this text for the metadata."""
    return lambda path: safetensors.torch.save_file({}, path, {"format": "pt", "lenet5": text})


def with_header(header, size=None):
    return lambda path: path.write_bytes((size or len(header)).to_bytes(8, "little") + header)


FOREIGN = {
    "an old checkpoint": lambda path: torch.save({"model": LeNet5().state_dict(), "optimizer": Payload()}, path),
    "a bare pickle": lambda path: path.write_bytes(pickle.dumps(Payload())),
    "nothing": lambda path: path.touch(),
    "a folder": lambda path: path.mkdir(),
    "text": lambda path: path.write_bytes(b"neither a checkpoint nor a picture\n"),
    "the weights alone": lambda path: safetensors.torch.save_file(LeNet5().state_dict(), path, {"format": "pt"}),
    "a list for text": with_text("[]"),
    "deep text": with_text("[" * 10**6),
    "a header without end": with_header(b"{}", 2**63),
    "a tensor of terabytes": with_header(b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (2**40, 2**42)),
    "a terabyte": lambda path: (path.touch(), os.truncate(path, 2**40)),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files_are_refused_and_run_no_code(make, here, tmp_path, tally):
    path = tmp_path / "run" / FILE
    path.parent.mkdir()
    make(path)
    write_picture(tmp_path / "digit.png")
    for script in scripts(path):
        here(*script).refused(path)
        assert sorted(os.listdir(tmp_path)) == ["digit.png", "run"]
        assert os.listdir(path.parent) == [FILE]
    tally["foreign file for a checkpoint"] += 1
