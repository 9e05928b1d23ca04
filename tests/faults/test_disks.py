"""Disks that are full, broken or read-only: what was on them stays, and one line says so."""

import errno
from functools import partial

from conftest import contents

import checkpoint
from faults.conftest import DIGITS, FILE, POSIX, TEST, TRAIN, at_moment, fail, limit_file_size

pytestmark = POSIX
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(begun, child, tally):
    before, folder, refused = begun.read_bytes(), begun.parent, 0
    for moment in range(1, 9):
        begun.write_bytes(before)
        hinder = partial(at_moment, moment, partial(fail, ERRORS[moment % 3]))
        result = child(TRAIN, *DIGITS, "--record-dir", folder, "--resume", hinder=hinder).end()
        assert [path.name for path in folder.iterdir()] == [FILE]
        if begun.read_bytes() == before:
            result.refused("run")
            refused += 1
        else:  # the error came after the writing, or never
            assert checkpoint.load(begun).epoch == 3
        tally["disk error in the writing of a checkpoint"] += 1
    assert 5 <= refused < 8


def test_a_file_that_must_not_grow_leaves_those_before(begun, child, tally):
    folder, size = begun.parent, begun.stat().st_size
    before = contents(folder)
    for most, *script in (
        *((most, TRAIN, *DIGITS, "--record-dir", folder, "--resume") for most in (0, size // 2, size - 1)),
        *((most, TEST, "--checkpoint", begun) for most in (0, 1000)),
    ):
        child(*script, hinder=partial(limit_file_size, most)).end().refused("too large", folder)
        assert contents(folder) == before
        assert list(folder.iterdir()) == [begun]
        tally[f"disk full in {script[0]}"] += 1
