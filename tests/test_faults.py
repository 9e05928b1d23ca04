"""A search for faults: trainings killed, disks full, files damaged, options of every kind. Nothing is lost or gets in.

The short version is a part of the tests; the long one is `pytest -m faults`, with as many tries as --kills and
--mutations say. Scripts run in processes forked from one that has done the imports, and may be hindered.
"""

import collections
import contextlib
import copy
import errno
import functools
import importlib
import io
import json
import math
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import NAMES, ROOT, Result, contents, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import ClassifyTask_predict
import ClassifyTask_test
import plots
import utils
from utils import UserError

if sys.platform != "win32":
    import resource

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs processes that are forked and killed as in POSIX")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the limits that Linux sets to a process")

TRAIN, TEST, PREDICT = (f"ClassifyTask_{name}.py" for name in ("train", "test", "predict"))
DIGITS = ("--dataset", "digits")
RECIPES = {"fast": (), "plain": ("--plain",), "1998": ("--recipe", "1998")}
EPOCHS = 5

# ---------------------------------------------------------------------------------------------- hindered processes

load_dataset = utils.load_dataset


@functools.cache
def digits(subset):
    count = {"train": 96, "test": 100}[subset]
    return [tensor[:count] for tensor in load_dataset("digits", None, subset)]


def few_digits(name, data_dir, subset):
    """In the place of utils.load_dataset: a few of the digits, read once, before the processes are forked."""
    return digits(subset) if name == "digits" else load_dataset(name, data_dir, subset)


def run_here(script, *arguments) -> Result:
    """Run a script in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
    sys.argv = [script, *map(str, arguments)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            utils.run_script(importlib.import_module(Path(script).stem).main)
        except SystemExit as stop:
            status = stop.code or 0
        except Exception:
            traceback.print_exc()
            status = 1
    for stream in out, err:
        stream.flush()
    return Result(status, out.buffer.getvalue().decode(), err.buffer.getvalue().decode())


def perform(connection, folder, hinder, function, arguments):
    """What a child does: say that it begins, call the function, and send what that returns, or the error's text."""
    os.chdir(folder)
    utils.load_dataset = few_digits
    hinder()
    connection.send("begun")
    try:
        result = function(*arguments)
    except Exception:
        result = traceback.format_exc()
    connection.send(result)


def nothing():
    pass


class Child:
    """A process of its own that calls a function, or runs a script, in a folder."""

    def __init__(self, context, folder, what, *arguments, hinder=nothing):
        if isinstance(what, str):
            what, arguments = run_here, (what, *arguments)
        self.connection, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=perform, args=(theirs, folder, hinder, what, arguments), daemon=True)
        self.process.start()
        theirs.close()
        if self.connection.poll(60):
            with contextlib.suppress(EOFError):
                self.connection.recv()

    def send(self, number):
        with contextlib.suppress(ProcessLookupError):  # it may have ended
            os.kill(self.process.pid, number)

    def end(self, timeout=600):
        """What came of it; of a killed one, minus the signal as the status."""
        try:
            assert self.connection.poll(timeout), "it does not end"
            result = self.connection.recv()
        except EOFError:
            result = Result(None, "", "")
        self.process.join()
        if isinstance(result, Result) and result.status is None:
            return Result(self.process.exitcode, "", "")
        return result


@pytest.fixture(scope="module")
def forkserver(environment):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_faults", "torch._dynamo"])  # which an optimizer imports
    before = dict(os.environ)
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    os.environ.update(environment, PYTHONPATH=paths, CUDA_VISIBLE_DEVICES="")
    try:
        process = context.Process(target=nothing)
        process.start()
        process.join()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


@pytest.fixture
def child(forkserver, tmp_path):
    """Starts a child in an empty folder."""
    children = []

    def child(what, *arguments, hinder=nothing):
        children.append(Child(forkserver, tmp_path, what, *arguments, hinder=hinder))
        return children[-1]

    yield child
    for each in children:
        each.process.kill()
        each.process.join()


def at_moment(number, act, after=True):
    """Do something at a moment of the writing: before, within and after each of its steps, counted over all files."""
    moments = iter(range(number - 1, -1, -1))

    def moment():
        if next(moments, None) == 0:
            act()

    def stepwise(function):
        def step(*arguments, **options):
            moment()
            result = function(*arguments, **options)
            if after:
                moment()
            return result

        return step

    def write_bytes(path, content):
        half = len(content) // 2
        with open(path, "wb") as file:
            for part in content[:half], content[half:]:
                moment()
                file.write(part)
                file.flush()
        moment()

    Path.write_bytes = write_bytes
    for name in "mkdir", "fsync", "replace":
        setattr(os, name, stepwise(getattr(os, name)))


def slow_disk(seconds):
    """So that most of the time goes into writing."""
    at_moment(-1, nothing)
    for name in "mkdir", "fsync", "replace":
        function = getattr(os, name)
        setattr(os, name, lambda *a, function=function, **k: (time.sleep(seconds), function(*a, **k))[1])


def quick_figures():
    """Figures with nothing but their titles."""
    ClassifyTask_predict.figure = lambda path, *content: plots.save(plots.new_figure("title", "", height=1), path)
    for name in "training_curve", "confusion_matrix", "predictions", "misclassified", "architecture":
        setattr(plots, name, lambda path, *content: plots.save(plots.new_figure("title", "", height=1), path))


def both(*hinders):
    for hinder in hinders:
        hinder()


def signal_self(number):
    os.kill(os.getpid(), number)


def fail(code):
    raise OSError(code, os.strerror(code))


def limit(what, amount):
    resource.setrlimit(getattr(resource, what), (amount, amount))


for subset in "train", "test":
    digits(subset)  # where this module is loaded before the processes are forked, none of them has to


@pytest.fixture
def begun(child, tmp_path):
    """A folder with the checkpoint of two epochs of three, its path."""
    arguments = (*DIGITS, "--epochs", 3, "--record-dir", "run")
    child(TRAIN, *arguments, hinder=partial(stop_after, 2)).end()
    path = tmp_path / "run" / "LeNet5.pt"
    assert utils.load_checkpoint(path)["epoch"] == 2 and list(contents(tmp_path)) == [path]
    return path


def stop_after(epoch):
    save = utils.save_checkpoint

    def save_and_stop(path, checkpoint):
        save(path, checkpoint)
        if checkpoint["epoch"] == epoch:
            raise KeyboardInterrupt

    utils.save_checkpoint = save_and_stop


# ---------------------------------------------------------------------------------------------- killed


@POSIX
@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_trainings_lose_nothing(recipe, kills, child, tmp_path, tally):
    """Half of them are killed at a random time, half at a random moment of the writing."""
    rng = random.Random(f"{recipe} {kills}")
    arguments = (*DIGITS, *RECIPES[recipe], "--epochs", EPOCHS, "--record-dir")
    start = time.perf_counter()
    child(TRAIN, *arguments, "whole").end().succeeded()
    duration = time.perf_counter() - start
    whole = utils.load_checkpoint(tmp_path / "whole" / "LeNet5.pt")
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
                die = partial(signal_self, signal.SIGKILL)
                hinder = partial(at_moment, rng.randint(1, 1 + 15 * (EPOCHS - epoch)), die)
                run = child(TRAIN, *arguments, folder, "--resume", hinder=hinder)
            result = run.end()
            path = folder / "LeNet5.pt"
            if path.exists():
                checkpoint = utils.load_checkpoint(path)
                assert epoch <= checkpoint["epoch"] <= EPOCHS
                epoch = checkpoint["epoch"]
            if result.status != -signal.SIGKILL:
                break
            killed[when] += 1
            tally[f"training killed {when}, {recipe}"] += 1
        result.succeeded()
        assert same(checkpoint, whole) and epoch == EPOCHS
        assert list(contents(folder)) == [path]
        path.unlink()


@POSIX
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
            moment = partial(at_moment, rng.randint(1, 40), partial(signal_self, number))
            run = child(*arguments, hinder=moment)
        result = run.end().said("stopped", "--resume")
        assert result.status == status
        told = result.out.count("epoch ")
        if told:
            assert told <= utils.load_checkpoint(folder / "LeNet5.pt")["epoch"] <= told + 1
        assert [path.name for path in contents(folder)] in ([], ["LeNet5.pt"])
        assert len(list(folder.glob("*"))) == len(contents(folder))
        tally[f"training stopped with status {status}"] += 1


# ---------------------------------------------------------------------------------------------- disks


STEPS = pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.faults)], ids=["short", "long"])
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)


@POSIX
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(begun, child, tally):
    before, folder, refused = begun.read_bytes(), begun.parent, 0
    for moment in range(1, 14):
        begun.write_bytes(before)
        hinder = partial(at_moment, moment, partial(fail, ERRORS[moment % 3]), after=False)
        result = child(TRAIN, *DIGITS, "--record-dir", folder, "--resume", hinder=hinder).end()
        assert [path.name for path in folder.iterdir()] == ["LeNet5.pt"]
        if begun.read_bytes() == before:
            result.refused("run")
            refused += 1
        else:  # the error came after the writing, or never
            assert utils.load_checkpoint(begun)["epoch"] == 3
        tally["disk error in the writing of a checkpoint"] += 1
    assert 6 <= refused < moment


@POSIX
@STEPS
def test_figures_that_cannot_be_written_leave_those_before(step, begun, child, tally):
    folder = begun.parent
    evaluate = (TEST, "--checkpoint", begun)
    child(*evaluate, hinder=quick_figures).end().succeeded()
    before, refused = contents(folder), 0
    assert len(before) == 7
    for moment in range(1, 40, step):
        for path in before:
            path.write_bytes(before[path])
        full = partial(at_moment, moment, partial(fail, errno.ENOSPC), after=False)
        hinder = partial(both, quick_figures, full)
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
    for most in 0, 1, 4096, size // 2, size - 1:
        hinder = partial(limit, "RLIMIT_FSIZE", most)
        child(TRAIN, *DIGITS, "--record-dir", folder, "--resume", hinder=hinder).end().refused("too large", folder)
        assert contents(folder) == before and len(list(folder.iterdir())) == 7
        tally["disk full while a checkpoint is written"] += 1
    for most in 0, 1000, 50_000, 100_000:
        hinder = partial(limit, "RLIMIT_FSIZE", most)
        child(TEST, "--checkpoint", begun, "--weights", "last", hinder=hinder).end().refused(folder)
        assert contents(folder) == before and len(list(folder.iterdir())) == 7
        tally["disk full while figures are written"] += 1


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


@POSIX
def test_a_full_disk_and_a_read_only_one_leave_what_is_on_them(small_disk, begun, child, tally):
    disk, make_read_only = small_disk
    folder = disk / "run"
    shutil.copytree(begun.parent, folder)
    resume = (TRAIN, *DIGITS, "--record-dir", folder, "--resume")
    evaluate = (TEST, "--checkpoint", folder / "LeNet5.pt")
    for left in 0, 1, 10, 100, 500, 900:  # KiB
        free = shutil.disk_usage(disk).free // 1024
        (disk / "filler").write_bytes(bytes((free - left) * 1024))
        before = contents(disk)
        child(*resume).end().refused("No space left")
        if left < 500:
            child(*evaluate).end().refused("No space left")
        assert contents(disk) == before and [path.name for path in folder.iterdir()] == ["LeNet5.pt"]
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
        assert contents(folder) == before
    finally:
        folder.chmod(0o755)
    tally["read-only folder"] += 1


@POSIX
@STEPS
def test_a_folder_that_is_removed_is_made_again_or_missed_in_one_line(step, child, tmp_path, tally):
    outcomes = collections.Counter()
    folder = tmp_path / "run"
    for moment in range(1, 40, step):
        hinder = partial(at_moment, moment, partial(shutil.rmtree, folder, ignore_errors=True))
        result = child(TRAIN, *DIGITS, "--epochs", 3, "--record-dir", folder, hinder=hinder).end()
        outcomes[result.status] += 1
        if result.status:
            result.refused("run")
        elif folder.exists():  # and not removed after the last writing
            assert utils.load_checkpoint(folder / "LeNet5.pt")["epoch"] == 3
            assert [path.name for path in folder.iterdir()] == ["LeNet5.pt"]
        shutil.rmtree(folder, ignore_errors=True)
        tally["record folder removed"] += 1
    assert set(outcomes) == {0, 2}


# ---------------------------------------------------------------------------------------------- two at once


@POSIX
def test_of_two_trainings_in_one_folder_the_second_is_refused(child, tmp_path, tally):
    arguments = (TRAIN, *DIGITS, "--epochs", EPOCHS, "--record-dir")
    child(*arguments, "alone").end().succeeded()
    first = child(*arguments, "run", hinder=partial(slow_disk, 0.1))
    wait_for(tmp_path / "run" / "LeNet5.pt")
    for flags in (), ("--resume",), ("--seed", 1):
        child(*arguments, "run", *flags).end().refused("another process is writing", "--record-dir")
        tally["second training in one folder"] += 1
    child(TEST, "--checkpoint", "run/LeNet5.pt", hinder=quick_figures).end().succeeded()  # which a test may look at
    first.end().succeeded()
    alone, run = (utils.load_checkpoint(tmp_path / name / "LeNet5.pt") for name in ("alone", "run"))
    assert same(alone, run)
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


@POSIX
def test_many_trainings_that_go_on_with_one_another_end_as_one(child, tmp_path, tally):
    arguments = (TRAIN, *DIGITS, "--epochs", EPOCHS, "--record-dir")
    child(*arguments, "alone").end().succeeded()
    alone = utils.load_checkpoint(tmp_path / "alone" / "LeNet5.pt")
    for _ in range(3):
        runs = [child(*arguments, "run", "--resume") for _ in range(3)]
        results = [run.end() for run in runs]
        for result in results:
            if result.status:
                result.refused("another process is writing")
        assert any(result.status == 0 for result in results)
        assert same(alone, utils.load_checkpoint(tmp_path / "run" / "LeNet5.pt"))
        assert list(contents(tmp_path / "run")) == [tmp_path / "run" / "LeNet5.pt"]
        shutil.rmtree(tmp_path / "run")
        tally["three trainings started at once"] += 1


@POSIX
def test_a_killed_process_holds_no_lock(child, tmp_path):
    arguments = (TRAIN, *DIGITS, "--epochs", EPOCHS, "--record-dir", "run")
    first = child(*arguments, hinder=partial(slow_disk, 0.1))
    wait_for(tmp_path / "run" / "LeNet5.pt")
    first.send(signal.SIGKILL)
    assert first.end().status == -signal.SIGKILL
    assert len(list((tmp_path / "run").iterdir())) > 1  # the lock at least
    child(*arguments, "--resume").end().succeeded()
    assert list(contents(tmp_path)) == [tmp_path / "run" / "LeNet5.pt"]


@POSIX
def test_of_two_tests_in_one_folder_the_second_is_refused(begun, child, tally):
    hinder = partial(both, quick_figures, partial(slow_disk, 0.05))
    first = child(TEST, "--checkpoint", begun, hinder=hinder)
    wait_for(begun.with_name(".metrics.json.lock"))
    child(TEST, "--checkpoint", begun, "--weights", "last", hinder=quick_figures).end().refused("metrics.json")
    first.end().succeeded()
    assert json.loads(begun.with_name("metrics.json").read_text())["weights"] == "model"
    assert len(list(begun.parent.iterdir())) == 7
    tally["second test in one folder"] += 1


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.005)


# ---------------------------------------------------------------------------------------------- data


def damaged(name, content, other):
    """A good file's damaged forms, by the names of the damage."""
    header = 16 if "images" in name else 8
    yield "empty", b""
    yield "one byte missing", content[:-1]
    yield "half", content[: len(content) // 2]
    yield "the header alone", content[:header]
    for bit in 0, 8 * header, 4 * len(content), 8 * len(content) - 1:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} flipped", bytes(flipped)
    yield "another magic number", b"\0\0\x0d" + content[3:]
    yield "another count", content[:4] + (7).to_bytes(4, "big") + content[8:]
    yield "terabytes", content[:4] + b"\xff" * (header - 4) + content[header:]
    yield "swapped", other
    yield "garbage behind", content + b"garbage"
    yield "a folder", None


def put(path, content):
    """Put a file, a folder (None), or nothing at all (False), in the place of what is there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    elif content is not False:
        path.write_bytes(content)


def damage_data(data, name, other, tally):
    """Damage one of MNIST's files, packed and unpacked, in every way: it is mended, or refused and left."""
    raw = data / "MNIST" / "raw"
    archive, unpacked = raw / f"{name}.gz", raw / name
    assert utils.find_dataset("mnist", data) == "mnist"
    packed, content = archive.read_bytes(), unpacked.read_bytes()
    for path, good, stranger in (
        (unpacked, content, (raw / other).read_bytes()),
        (
            archive,
            packed,
            (raw / f"{other}.gz").read_bytes(),
        ),
    ):
        for what, bad in damaged(name, good, stranger):
            put(path, bad)
            if path == unpacked:
                assert utils.find_dataset("mnist", data) == "mnist"
                assert utils.mnist_content(raw, *entry(name)) == content
                if bad is not None:  # a folder is nobody's to remove
                    assert unpacked.read_bytes() == content, what
                put(path, bad)
                put(archive, False)
            else:
                assert utils.find_dataset("mnist", data) == "mnist"  # for the unpacked one is good
                put(unpacked, False)
            for choice in "auto", "mnist":
                with pytest.raises(UserError) as error:
                    utils.find_dataset(choice, data)
                assert str(path) in str(error.value) and "delete it" in str(error.value), what
            assert path.is_dir() if bad is None else path.read_bytes() == bad
            assert not list(raw.glob(".*"))
            put(archive, packed)
            put(unpacked, content)
            tally[f"{'archive' if path == archive else 'unpacked file'} of MNIST damaged"] += 1


def entry(name):
    return next(file for files in utils.MNIST.values() for file in files if file[0] == name)


OTHER = dict(zip(NAMES, [NAMES[1], NAMES[0], NAMES[3], NAMES[2]]))  # images for labels and labels for images


@pytest.mark.parametrize("name", NAMES)
def test_damaged_data_are_mended_or_refused(name, tiny_mnist, tally):
    damage_data(tiny_mnist, name, OTHER[name], tally)
    damage_data(tiny_mnist, name, NAMES[NAMES.index(name) - 2], tally)  # training for test


@pytest.mark.faults
@pytest.mark.parametrize("name", NAMES)
def test_damaged_real_data_are_mended_or_refused(name, mnist, tmp_path, tally):
    shutil.copytree(mnist / "MNIST", tmp_path / "MNIST")
    for archive in (tmp_path / "MNIST" / "raw").iterdir():
        archive.chmod(0o644)
    damage_data(tmp_path, name, OTHER[name], tally)


def test_a_file_cut_at_any_byte_is_refused(tiny_mnist, tally):
    raw = tiny_mnist / "MNIST" / "raw"
    name = "t10k-labels-idx1-ubyte"
    content = utils.mnist_content(raw, *entry(name))
    packed = (raw / f"{name}.gz").read_bytes()
    (raw / f"{name}.gz").unlink()
    for size in range(len(content)):
        (raw / name).write_bytes(content[:size])
        with pytest.raises(UserError, match=name):
            utils.mnist_content(raw, *entry(name))
    (raw / name).unlink()
    for size in range(len(packed)):
        (raw / f"{name}.gz").write_bytes(packed[:size])
        with pytest.raises(UserError, match=name):
            utils.mnist_content(raw, *entry(name))
    tally["file of MNIST cut"] += len(content) + len(packed)


@LINUX
def test_data_that_would_fill_the_memory_are_refused_in_little(child, tmp_path, tally):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in NAMES[0], f"{NAMES[0]}.gz":
        with open(raw / name, "wb") as file:
            file.truncate(2**40)  # a terabyte, of which nothing is on the disk
        run = child(TRAIN, "--data-dir", tmp_path, hinder=partial(limit_memory, 2**28))
        run.end().refused(raw / name, "damaged")
        (raw / name).unlink()
        tally["file of a terabyte"] += 1


def limit_memory(more):
    """Let the process take this many bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit("RLIMIT_AS", pages * resource.getpagesize() + more)


# ---------------------------------------------------------------------------------------------- checkpoints


VALUES = [
    *(None, True, False, -1, 0, 1, 2, 3, 7, 10**10, 2**63, 10**400, 0.5, -0.5, 1e-30, 1e30, math.nan, math.inf),
    *("", "adam", "mnist", "digits", "x" * 10_000, "a\nb", "\0", "../../a", "/", "é\ud800", "1", b"bytes", 1j),
    *([], {}, (), set(), [1], {"a": 1}, {0: {}}, [[]], ["epoch"], range(3), torch.float16, torch.Size([2])),
    *(torch.zeros(()), torch.zeros(0), torch.ones(3), torch.full((6,), math.nan), torch.ones(6, 1, 5, 5).half()),
    *(torch.arange(3), torch.zeros(5056, dtype=torch.uint8), torch.ones(6, 1, 5, 5).to_sparse()),
    *(torch.full((6, 1, 5, 5), 1e30), torch.full((6, 1, 5, 5), 1e4), torch.zeros(1).expand(6)),
    *(torch.zeros(1, dtype=torch.complex64), torch.empty(6, 1, 5, 5, device="meta")),
]  # fmt: skip


def deep(levels):
    """Lists within lists."""
    value = []
    for _ in range(levels):
        value = [value]
    return value


def places(content, found):
    """All dictionaries and lists of a checkpoint, at any depth, each once: it may contain itself."""
    if isinstance(content, (dict, list)) and content and not any(place is content for place in found):
        found.append(content)
        for value in content.values() if isinstance(content, dict) else content:
            places(value, found)
    return found


def mutate_content(rng, good):
    """A checkpoint with something in it missing, renamed, changed, or in the place of something else."""
    checkpoint = pickle.loads(pickle.dumps(good))
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        place = rng.choice(places(checkpoint, []))
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        value = rng.choice([*VALUES, deep(50), deep(250)])
        change = rng.choice(["remove", "rename", "set", "set", "set", "set", "move", "add", "nudge"])
        if change == "remove":
            del place[key]
        elif change == "rename" and isinstance(place, dict):
            place[rng.choice([str(key) + "_", "", 0, None, str(key)[:-1]])] = place.pop(key)
        elif change == "move":
            other = rng.choice(places(checkpoint, []))
            place[key] = rng.choice(list(other.values()) if isinstance(other, dict) else other)
        elif change == "add":
            place.update({"more": value}) if isinstance(place, dict) else place.append(value)
        elif change == "nudge" and isinstance(place[key], (int, float)):
            place[key] = place[key] * rng.choice([-1, 0, 1.5, 2, 1e10]) + rng.choice([0, 1, -1])
        elif change == "nudge" and isinstance(place[key], torch.Tensor) and place[key].numel():
            tensor = place[key].flatten()
            tensor[rng.randrange(len(tensor))] = rng.choice([0, 1, 255])
        else:
            place[key] = value
        if not checkpoint:
            break
    file = io.BytesIO()
    torch.save(checkpoint, file)
    return file.getvalue()


def mutate_bytes(rng, content):
    """Bytes flipped, cut, inserted, overwritten or repeated, anywhere or near the ends, which hold the structure."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 3, 10])):
        size = max(1, len(content))
        near = rng.randrange(min(size, 4000))
        place = rng.choice([rng.randrange(size), near, size - 1 - near])
        length = rng.choice([1, 2, 4, 16, rng.randrange(1, size + 1)])
        change = rng.randrange(7)
        if change < 2:
            content[place : place + 1] = bytes([(content[place] if content else 0) ^ 1 << rng.randrange(8)])
        elif change == 2:
            del content[place : place + length]
        elif change == 3:
            content[place:place] = rng.randbytes(min(length, 100))
        elif change == 4:
            content[place : place + length] = rng.choice([b"\0", b"\xff", b"\x80"]) * min(length, len(content) - place)
        elif change == 5:
            content[place:place] = content[place : place + min(length, 10_000)]
        else:
            del content[place:]
    return bytes(content)


def mutate_pickle(rng, good):
    """A checkpoint whose pickle, by itself, is mutated, its sum being right: what only the inspection can notice."""
    return archive((name, mutate_bytes(rng, member) if name.endswith(".pkl") else member) for name, member in good)


NAMES_ABROAD = ["/etc/passwd", "archive/../../a", "../a", "..", "/", "archive/data/", "archive/C:\\a", "C:/a", "é"]


def mutate_members(rng, good):
    """A checkpoint with members missing, doubled, renamed, exchanged, cut, mutated or packed."""
    members = list(good)
    for _ in range(rng.choice([1, 1, 2])):
        place = rng.randrange(len(members))
        name, member = members[place]
        other = rng.choice(members)
        members[place : place + 1] = rng.choice(
            [
                [],
                [(name, member)] * 2,
                [(name, other[1])],
                [(other[0], member)],
                [(name, member[: rng.randrange(len(member) + 1)])],
                [(name, mutate_bytes(rng, member))],
                [(name, member), (rng.choice(NAMES_ABROAD), member)],
                [(rng.choice([name.upper(), "other/" + name, name.partition("/")[2], name + "/"]), member)],
            ]
        )  # fmt: skip
        members = members or [("archive/version", b"3")]
    return archive(members, compression=rng.choice([zipfile.ZIP_STORED] * 5 + [zipfile.ZIP_DEFLATED]))


def archive(members, **options):
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", **options) as content:
        warnings.simplefilter("ignore")  # of members that are there twice
        for name, member in members:
            content.writestr(name, member)
    return file.getvalue()


def equal(one, other):
    """Whether two checkpoints are the same in everything."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def try_mutations(kind, seed, count, good):
    """Mutate the checkpoint at `good` and use it as the scripts do; returns how often which outcome was seen."""
    limit_memory(2**30)
    quick_figures()
    found_classes = []
    sys.addaudithook(lambda event, arguments: found_classes.append(arguments) if event == "pickle.find_class" else None)
    original, content = utils.load_checkpoint(good), good.read_bytes()
    with zipfile.ZipFile(good) as file:
        members = [(name, file.read(name)) for name in file.namelist()]
    mutate = {
        "bytes": partial(mutate_bytes, content=content),
        "pickle": partial(mutate_pickle, good=members),
        "members": partial(mutate_members, good=members),
        "content": partial(mutate_content, good=original),
    }[kind]
    path, outcomes = Path("mutant", "LeNet5.pt"), collections.Counter()
    path.parent.mkdir(exist_ok=True)
    write_picture(Path("digit.png"))
    for i in range(count):
        mutant = mutate(random.Random(f"{kind} {seed} {i}"))
        path.write_bytes(mutant)
        found_classes.clear()
        start = time.perf_counter()
        try:
            checkpoint = utils.load_checkpoint(path)
        except UserError as error:
            assert str(path) in str(error), (kind, seed, i, error)
            outcomes["refused"] += 1
            commands = i % 100 == 0
        except BaseException as error:
            raise AssertionError(f"mutant {(kind, seed, i)} raises {error!r}") from error
        else:
            right = equal(checkpoint, original)
            assert right or kind != "bytes", f"mutant {(kind, seed, i)} is taken for another checkpoint"
            outcomes["as the original" if right else "loaded"] += 1
            commands = not right
        assert time.perf_counter() - start < 20 and not found_classes, (kind, seed, i)
        if commands:  # as a whole, too
            for script in (
                (PREDICT, "digit.png", "--figure", "--checkpoint", path),
                (TEST, "--checkpoint", path),
                (TRAIN, *DIGITS, "--record-dir", path.parent, "--resume"),
            ):
                result = run_here(*script)
                if result.status == 0:
                    assert result.err == "", (kind, seed, i, result)
                    outcomes[f"{script[0]} ran"] += 1
                else:
                    assert path.read_bytes() == mutant, (kind, seed, i)
                    assert result.status == 2 and result.err.count("\n") == 1, f"mutant {(kind, seed, i)}: {result.err}"
        shutil.rmtree(path.parent)
        path.parent.mkdir()
    assert sorted(os.listdir()) == ["digit.png", "mutant", "run"]
    return outcomes


def write_picture(path):
    """A digit, dark on light."""
    image = 255 - digits("test")[0][0].numpy()
    Image.fromarray(image).resize((112, 112)).save(path)


@LINUX
@pytest.mark.parametrize("kind", ["bytes", "pickle", "members", "content"])
def test_mutated_checkpoints_load_rightly_or_are_refused(kind, mutations, begun, child, tally):
    outcomes = child(try_mutations, kind, 0, mutations // 4, begun).end(timeout=3600)
    assert isinstance(outcomes, collections.Counter), outcomes
    assert outcomes["refused"] > mutations // 16
    if kind == "content":
        assert outcomes["loaded"] and outcomes[f"{TEST} ran"]
    for outcome, count in outcomes.items():
        tally[f"checkpoint with mutated {kind}: {outcome}"] += count


class Attack:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def attacks(path):
    """Files that would run code, leave their place or fill the memory if they were believed."""
    victim = str(path.with_name("victim"))
    with zipfile.ZipFile(path) as file:
        members = [(name, file.read(name)) for name in file.namelist()]
    good = dict(members)
    root = members[0][0].split("/")[0]

    def with_pickle(content):
        return archive({**good, f"{root}/data.pkl": content}.items())

    codes = {
        "open": Attack(open, victim, "w"),
        "system": Attack(os.system, f"touch {victim}"),
        "eval": Attack(eval, f"open({victim!r}, 'w')"),
        "a method of torch": Attack(torch.save, 0, victim),
        "getattr": Attack(getattr, Attack(importlib.import_module, "os"), "system"),
    }
    for name, attack in codes.items():
        for protocol in 0, 2, 4:
            yield f"{name}, protocol {protocol}", with_pickle(pickle.dumps({"format": attack}, protocol))
            yield f"{name}, protocol {protocol}, alone", pickle.dumps(attack, protocol)
    yield "INST", with_pickle(f"(S'touch {victim}'\nios\nsystem\n.".encode())
    yield "OBJ", with_pickle(f"(cos\nsystem\nS'touch {victim}'\no.".encode())
    head = b"\x80\x02"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n"
    yield "BUILD on a function", with_pickle(head + tensor + b"}X\x01\x00\x00\x00aK\x01sb.")
    yield "a huge memo", with_pickle(head + b"Nr\xff\xff\xff\x7f.")
    yield "a huge number", with_pickle(head + b"\x8b\xff\xff\xff\x7f.")
    yield "huge bytes", with_pickle(b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.")
    yield "a huge text", with_pickle(head + b"X\xff\xff\xff\x7f.")
    yield "a deep list", with_pickle(head + b"]" * 100_000 + b"a" * 99_999 + b".")
    yield "a deep tuple", with_pickle(head + b")" + b"\x85" * 100_000 + b".")
    yield "a doubled list", with_pickle(head + b"]q\x00" + b"]q\x01(h\x00h\x00eh\x01q\x00" * 100 + b".")
    yield "many members", archive((f"{root}/{i}", b"") for i in range(20_000))
    for offset, shape, stride, count in (  # the storage that they claim has six numbers
        (2**62, (6,), (1,), 6),
        (0, (2**31, 2**31), (1, 1), 6),
        (0, (6,), (2**60,), 6),
        (-1, (6,), (1,), 6),
        (1, (6,), (1,), 6),
        (5, (6,), (-1,), 6),
        (0, (2**40,), (0,), 6),
        (0, (7,), (1,), 7),
        (0, (7,), (1,), 6),
        (0, (6,), (1, 1), 6),
    ):
        content = forged(offset, shape, stride, count, key=b"1")
        yield f"a tensor of {shape} at {offset} by {stride} of {count}", with_pickle(content)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        for name, member in members:
            file.writestr(name, member)
        with file.open(f"{root}/data/99", "w") as member:
            for _ in range(100):
                member.write(bytes(2**20))
    yield "a bomb", bomb.getvalue()
    yield "overlapping members", overlapping(root)


def forged(offset, shape, stride, count, key):
    """A pickle of one tensor, by hand."""

    def number(value):
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    def text(value):
        return b"X" + len(value).to_bytes(4, "little") + value

    storage = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(key) + text(b"cpu") + number(count) + b"tQ"
    place = number(offset) + numbers(shape) + numbers(stride)
    hooks = b"ccollections\nOrderedDict\n)R"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + place + b"\x89" + hooks + b"tR."


def overlapping(root):
    """An archive of a thousand members that are one and the same megabyte."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as content:
        content.writestr(f"{root}/data.pkl", bytes(2**20))
        first = content.infolist()[0]
        for i in range(1000):
            member = copy.copy(first)
            member.filename = member.orig_filename = f"{root}/data/{i}"
            content.filelist.append(member)
            content.NameToInfo[member.filename] = member
        content._didModify = True
    return file.getvalue()


def try_attacks(path):
    """Load what attacks make of the checkpoint at path; returns which were refused, and the memory that it took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = []
    for name, content in attacks(path):
        target = path.with_name("attack.pt")
        target.write_bytes(content)
        start = time.perf_counter()
        try:
            utils.load_checkpoint(target)
        except UserError as error:
            assert "MemoryError" not in str(error), name
            refused.append(name)
        assert time.perf_counter() - start < 20, name
        assert not path.with_name("victim").exists(), name
        if "protocol" in name:
            result = run_here(TEST, "--checkpoint", target)
            assert result.status == 2 and result.err.count("\n") == 1, (name, result)
            assert not path.with_name("victim").exists(), name
        target.unlink()
    return refused, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


@LINUX
def test_hostile_checkpoints_run_no_code_and_take_little_memory(begun, child, tally):
    outcome = child(try_attacks, begun).end()
    assert isinstance(outcome, tuple), outcome
    refused, megabytes = outcome
    assert len(refused) == len(set(refused)) > 50 and megabytes < 700
    assert contents(begun.parent).keys() == {begun}
    tally["hostile checkpoint"] += len(refused)


# ---------------------------------------------------------------------------------------------- options

FOLDERS = ["run", "new", "a/b/c", ".", "", "run/LeNet5.pt", "run/LeNet5.pt/below", "x" * 300, "/dev/null/x", "é\udcff"]
NUMBERS = ["1", "2", "3", "+1", " 1", "1_0", "०", "0", "-1", "-0", "x", "1e-3", "1e5", "1e-320", "1e999", "nan", "5001"]
COMMON = {
    "--device": ["auto", "cpu", "cpu:1", "cuda", "cuda:99", "meta", "", "gpu"],
    "--record-dir": FOLDERS,
    "--help": [None],
}
CHECKPOINTS = ["run/LeNet5.pt", "missing.pt", "run", "", "text", "/dev/null", "a/b", "\udcff"]
DATA = {
    "--dataset": ["auto", "mnist", "digits", "digits", "digits", "Digits", ""],
    "--data-dir": FOLDERS,
    "--recipe": ["adam", "1998", "adam", "", "2024"],
}
FLAGS = {
    TRAIN: {
        **COMMON,
        **DATA,
        **dict.fromkeys(("--epochs", "--batch-size", "--lr"), NUMBERS),
        "--seed": [*NUMBERS, str(2**63 - 1), str(2**63)],
        "--resume": [None],
        "--plain": [None],
    },
    TEST: {**COMMON, **DATA, "--checkpoint": CHECKPOINTS, "--weights": ["model", "last", "best"]},
    PREDICT: {**COMMON, "--checkpoint": CHECKPOINTS, "--csv": [None], "--figure": [None]},
}
PICTURES = ["digit.png", "text", "missing.png", "run", "", "run/LeNet5.pt", "\udcff.png"]


def command_lines(script):
    """Flags with values that they may or may not take, in any order, and now and then anything at all."""
    text = st.text(st.characters(exclude_characters="\0/\\:", exclude_categories=["Cs"]), max_size=6)
    flags = [
        st.sampled_from(values).map(lambda value, flag=flag: [flag] if value is None else [flag, value])
        for flag, values in FLAGS[script].items()
    ]
    bare = st.sampled_from(list(FLAGS[script])).map(lambda flag: [flag])
    words = st.lists(st.one_of(*flags, *flags, *flags, bare, text.map(lambda word: [word])), max_size=5)
    if script == PREDICT:
        start = st.lists(st.sampled_from(PICTURES), max_size=3)
    else:
        start = st.sampled_from([[], ["--dataset", "digits"], ["--dataset", "digits", "--record-dir", "run"]])
    return st.builds(lambda start, words: sum(words, start), start, words)


@pytest.mark.parametrize("script", FLAGS)
def test_any_options_give_a_run_or_one_line(script, mutations, trained, environment, tmp_path, monkeypatch, tally):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(utils, "load_dataset", few_digits)
    monkeypatch.setattr(ClassifyTask_test, "draw", lambda *arguments: None)
    monkeypatch.setattr(ClassifyTask_predict, "figure", lambda path, *arguments: path.write_bytes(b"a figure"))
    before, statuses = signal.getsignal(signal.SIGTERM), collections.Counter()

    @settings(max_examples=mutations // 10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(command_lines(script))
    def run(arguments):
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(trained[0], "run")
        Path("text").write_text("neither a checkpoint nor a picture")
        write_picture(Path("digit.png"))
        result = run_here(script, *arguments)
        statuses[result.status] += 1
        if result.status == 0:
            assert result.out and set(line[:8] for line in result.err.splitlines()) <= {"WARNING:"}, result
        else:
            lines = [line for line in result.err.splitlines() if not line.startswith("WARNING:")]
            assert result.status == 2 and lines and all(line.startswith(script) for line in lines), result
            assert len(lines) == 1 or script == PREDICT and len(lines) <= len(arguments), result  # one a picture
        assert not list(tmp_path.rglob(".*"))
        assert utils.load_checkpoint(Path("run", "LeNet5.pt"))

    run()
    signal.signal(signal.SIGTERM, before)
    assert set(statuses) == {0, 2}
    tally[f"command line of {script}"] += statuses.total()
