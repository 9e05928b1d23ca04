"""Checkpoints with bits flipped, bytes added or lost, contents forged: refused in one line, or what they say."""

import collections
import copy
import json
import math
import os
import pickle
import random
import re
import time

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
    """In the header, which has the sizes, names and text, in a number's last digit or the metadata, or in a tensor."""
    content, end = bytearray(content), header_end(content)
    digits = [match.end() - 1 for match in re.finditer(rb"\d\.\d{9,}|\"pt", content[:end])]
    place = rng.choice([rng.randrange(8), rng.randrange(end), rng.choice(digits), rng.randrange(end, len(content))])
    content[place] ^= 1 << (rng.randrange(8) if place not in digits else 0)
    return bytes(content)


def mutate_bytes(rng, content):
    """Bytes removed, inserted, overwritten, repeated or cut off, anywhere."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 3, 10])):
        place = rng.choice([rng.randrange(len(content) + 1), rng.randrange(min(len(content), header_end(content)) + 1)])
        length = rng.choice([1, 2, 4, 16, rng.randrange(1, len(content) + 2)])
        part = content[place : place + length]
        content[place : place + length] = rng.choice(
            [b"", part * 2, rng.randbytes(min(length, 100)), b"\0" * len(part)]
        )
    return bytes(content) if rng.randrange(5) else bytes(content[: rng.randrange(len(content) + 1)])


VALUES = [
    *(None, True, -1, 0, 1, 2, 3, 7, 2**63, 10**400, 0.5, -0.5, 1e-30, 1e30, 1e400, "", "adam", "1998", "eq. 8", "é"),
    *("x" * 10_000, "a\nb", "../../a", [], {}, [1], {"a": 1}, [[]], ["epoch"], {"output": "rbf"}, [0.1] * 6000),
]  # fmt: skip
TENSORS = [torch.zeros(()), torch.ones(6, 1, 5, 5).half(), torch.full((6,), math.nan), torch.full((6,), 1e30)]


def places(content, found):
    """All dictionaries and lists of a checkpoint's text, at any depth."""
    if isinstance(content, (dict, list)) and content:
        found.append(content)
        for value in content.values() if isinstance(content, dict) else content:
            places(value, found)
    return found


def forge(rng, content):
    """Something missing, renamed, changed, or in the place of something else, and the digest right: made on purpose."""
    tensors = safetensors.torch.load(content)
    text = json.loads(json.loads(content[8 : header_end(content)])["__metadata__"]["lenet5"])
    del text["digest"]
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        place = rng.choice([tensors, text, *places(text, [])])
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        value = copy.deepcopy(rng.choice(TENSORS + list(tensors.values()) if place is tensors else VALUES))
        change = rng.choice(["remove", "rename", "add", "nudge", "set", "set", "set"])
        if change == "remove":
            del place[key]
        elif change == "rename" and isinstance(place, dict):
            place[rng.choice([f"{key}_", "", key[:-1]])] = place.pop(key)
        elif change == "add":
            place.update(more=value) if isinstance(place, dict) else place.append(value)
        elif change == "nudge" and isinstance(place[key], (int, float, torch.Tensor)):
            place[key] = place[key] * rng.choice([-1, 0, 1.5, 2, 1e10]) + rng.choice([0, 1, -1])
        else:
            place[key] = value
        if not tensors or not text:
            break
    tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    try:
        text["digest"] = checkpoint.digest(tensors, text)
    except ValueError:  # a number that JSON does not have
        text["digest"] = "0" * 64
    return safetensors.torch.save(
        tensors, {"format": "pt", "lenet5": json.dumps(text, sort_keys=True, separators=(",", ":"))}
    )


@pytest.mark.parametrize("mutate", [flip_a_bit, mutate_bytes, forge])
def test_mutated_checkpoints_are_refused_or_what_they_say(mutate, mutations, begun, here, tmp_path, tally):
    good, path = begun.read_bytes(), tmp_path / "mutant" / FILE
    write_picture(tmp_path / "digit.png")
    path.parent.mkdir()
    outcomes = collections.Counter()
    for i in range(mutations // 3):
        mutant = mutate(random.Random(f"{mutate.__name__} {i}"), good)
        if mutant == good:
            continue
        path.write_bytes(mutant)
        start = time.perf_counter()
        try:
            checkpoint.load(path)
            outcome = "loaded"
        except UserError as error:
            assert str(path) in str(error), (i, error)
            outcome = "refused"
        assert time.perf_counter() - start < 20, i
        assert outcome == "refused" or mutate is forge, f"mutant {i} is taken for a checkpoint"
        outcomes[outcome] += 1
        tally[f"checkpoint, {mutate.__name__}: {outcome}"] += 1
        if outcome == "loaded" or i % 100 == 0:  # the scripts, too
            for script in (
                (PREDICT, "digit.png", "--figure", "--checkpoint", path),
                (TEST, "--checkpoint", path),
                (TRAIN, *DIGITS, "--record-dir", path.parent, "--resume"),
            ):
                result = here(*script)
                if result.status == 0 and outcome == "loaded":
                    assert result.err == "", (i, result)
                else:
                    result.refused()
                    assert path.read_bytes() == mutant, i
                assert not list(path.parent.glob(".*"))
    assert outcomes["refused"] > mutations // 6 and (outcomes["loaded"] > 0) == (mutate is forge)


class Payload:
    """What a pickle would do that the tests want never to happen."""

    def __reduce__(self):
        return open, ("victim", "w")


def old(path):
    torch.save({"format": 1, "model": LeNet5().state_dict(), "optimizer": Payload()}, path)


def with_header(header, size=None):
    return lambda path: path.write_bytes((len(header) if size is None else size).to_bytes(8, "little") + header)


FOREIGN = {
    "an old checkpoint": old,
    "a bare pickle": lambda path: path.write_bytes(pickle.dumps(Payload())),
    "a pickle of protocol 0": lambda path: path.write_bytes(pickle.dumps(Payload(), 0)),
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"neither a checkpoint nor a picture\n"),
    "the weights alone": lambda path: safetensors.torch.save_file(LeNet5().state_dict(), path),
    "another's metadata": lambda path: safetensors.torch.save_file(LeNet5().state_dict(), path, {"format": "pt"}),
    "text that is none": lambda path: safetensors.torch.save_file({}, path, {"format": "pt", "lenet5": "{"}),
    "a list for text": lambda path: safetensors.torch.save_file({}, path, {"format": "pt", "lenet5": "[]"}),
    "deep text": lambda path: safetensors.torch.save_file({}, path, {"format": "pt", "lenet5": "[" * 10**6}),
    "a header without end": with_header(b"{}", 2**63),
    "a deep header": with_header(b"[" * 10**6),
    "a tensor of terabytes": with_header(b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (2**40, 2**42)),
    "a terabyte": lambda path: (path.touch(), os.truncate(path, 2**40)),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files_are_refused_and_run_no_code(make, here, tmp_path, tally):
    path = tmp_path / "run" / FILE
    path.parent.mkdir()
    make(path)
    write_picture(tmp_path / "digit.png")
    for script in (
        (PREDICT, "digit.png", "--checkpoint", path),
        (TEST, "--checkpoint", path),
        (TRAIN, *DIGITS, "--record-dir", path.parent, "--resume"),
    ):
        here(*script).refused(path)
        assert sorted(os.listdir(tmp_path)) == ["digit.png", "run"] and os.listdir(path.parent) == [FILE]
    tally["foreign file for a checkpoint"] += 1
