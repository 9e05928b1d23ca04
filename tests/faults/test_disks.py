"""Disks that are full, broken, read-only or taken away: what was on them stays, and one line says so."""

import collections
import errno
import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
from conftest import contents

import checkpoint
from faults.conftest import DIGITS, FILE, LINUX, POSIX, TEST, TRAIN, at_moment, both, fail, limit, quick_figures

STEPS = pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.faults)], ids=["short", "long"])
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)


@POSIX
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(begun, child, tally):
    before, folder, refused = begun.read_bytes(), begun.parent, 0
    for moment in range(1, 14):
        begun.write_bytes(before)
        hinder = partial(at_moment, moment, partial(fail, ERRORS[moment % 3]), after=False)
        result = child(TRAIN, *DIGITS, "--record-dir", folder, "--resume", hinder=hinder).end()
        assert [path.name for path in folder.iterdir()] == [FILE]
        if begun.read_bytes() == before:
            result.refused("run")
            refused += 1
        else:  # the error came after the writing, or never
            assert checkpoint.load(begun).epoch == 3
        tally["disk error in the writing of a checkpoint"] += 1
    assert 6 <= refused < moment


@POSIX
@STEPS
def test_figures_that_cannot_be_written_leave_those_before(step, begun, child, tally):
    folder, evaluate = begun.parent, (TEST, "--checkpoint", begun)
    child(*evaluate, hinder=quick_figures).end().succeeded()
    before, refused = contents(folder), 0
    assert len(before) == 7
    for moment in range(1, 40, step):
        for path in before:
            path.write_bytes(before[path])
        hinder = partial(both, quick_figures, partial(at_moment, moment, fail, after=False))
        result = child(*evaluate, "--weights", "last", hinder=hinder).end()
        assert set(contents(folder)) == set(before) and len(list(folder.iterdir())) == 7
        if contents(folder) == before:
            result.refused("run")
            refused += 1
        tally["disk error in the writing of the figures"] += 1
    assert 12 <= step * refused < moment


@LINUX
def test_a_file_that_must_not_grow_leaves_those_before(begun, child, tally):
    folder, size = begun.parent, begun.stat().st_size
    child(TEST, "--checkpoint", begun).end().succeeded()
    before = contents(folder)
    resume, evaluate = (TRAIN, *DIGITS, "--record-dir", folder, "--resume"), (TEST, "--checkpoint", begun)
    for most, script in (
        *((most, resume) for most in (0, 1, 4096, size // 2, size - 1)),
        *((most, (*evaluate, "--weights", "last")) for most in (0, 1000, 50_000)),
    ):
        child(*script, hinder=partial(limit, "RLIMIT_FSIZE", most)).end().refused("too large", folder)
        assert contents(folder) == before and len(list(folder.iterdir())) == 7
        tally[f"disk full in {script[0]}"] += 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB of its own, and a function that makes it read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs Linux and the right to mount a file system")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_and_a_read_only_one_leave_what_is_on_them(small_disk, begun, child, tally):
    disk, make_read_only = small_disk
    folder = shutil.copytree(begun.parent, disk / "run")
    resume = (TRAIN, *DIGITS, "--record-dir", folder, "--resume")
    evaluate = (TEST, "--checkpoint", folder / FILE)
    for left in 0, 1, 10, 100, 500, 900:  # KiB
        free = shutil.disk_usage(disk).free // 1024
        (disk / "filler").write_bytes(bytes((free - left) * 1024))
        before = contents(disk)
        for script in [resume, evaluate] if left < 500 else [resume]:
            child(*script).end().refused("No space left")
        assert contents(disk) == before and [path.name for path in folder.iterdir()] == [FILE]
        (disk / "filler").unlink()
        tally["full file system"] += 1
    make_read_only()
    before = contents(disk)
    for script in resume, evaluate, (TRAIN, *DIGITS, "--record-dir", disk / "new"):
        child(*script).end().refused("Read-only file system")
    assert contents(disk) == before
    tally["read-only file system"] += 1


@POSIX
def test_a_read_only_folder_keeps_what_is_in_it(begun, child, tally):
    if os.geteuid() == 0:
        pytest.skip("nothing is read-only to root")
    folder, before = begun.parent, contents(begun.parent)
    folder.chmod(0o555)
    try:
        child(TRAIN, *DIGITS, "--record-dir", folder, "--resume").end().refused("Permission denied")
        child(TEST, "--checkpoint", begun).end().refused("Permission denied")
    finally:
        folder.chmod(0o755)
    assert contents(folder) == before
    tally["read-only folder"] += 1


@POSIX
@STEPS
def test_a_folder_that_is_removed_is_made_again_or_missed_in_one_line(step, child, tmp_path, tally):
    outcomes, folder = collections.Counter(), tmp_path / "run"
    for moment in range(1, 40, step):
        hinder = partial(at_moment, moment, partial(shutil.rmtree, folder, ignore_errors=True))
        result = child(TRAIN, *DIGITS, "--epochs", 3, "--record-dir", folder, hinder=hinder).end()
        outcomes[result.status] += 1
        if result.status:
            result.refused("run")
        elif folder.exists():  # and not removed after the last writing
            assert checkpoint.load(folder / FILE).finished and [path.name for path in folder.iterdir()] == [FILE]
        shutil.rmtree(folder, ignore_errors=True)
        tally["record folder removed"] += 1
    assert set(outcomes) == {0, 2}
