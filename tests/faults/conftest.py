"""Scripts in processes of their own, forked from one that has done the imports, and hindered as a test likes."""

import contextlib
import errno
import functools
import importlib
import io
import itertools
import multiprocessing
import os
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT, Result
from PIL import Image

import checkpoint
import ClassifyTask_test
import diagrams
import mnist as datasets
import plots
import utils

if sys.platform != "win32":
    import resource

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs processes that are forked and killed as in POSIX")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the limits that Linux sets to a process")

TRAIN, TEST, PREDICT = (f"ClassifyTask_{name}.py" for name in ("train", "test", "predict"))
DIGITS = ("--dataset", "digits")
FILE = checkpoint.FILE
EPOCHS = 5

load_dataset = datasets.load_dataset


@functools.cache
def digits(subset):
    count = {"train": 96, "test": 100}[subset]
    return [tensor[:count] for tensor in load_dataset("digits", None, subset)]


def few_digits(name, data_dir, subset):
    """In the place of mnist.load_dataset: a few of the digits, read once, before the processes are forked."""
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


def perform(connection, folder, hinder, script, arguments):
    """What a child does: say that it begins, run the script, and send what came of it."""
    os.chdir(folder)
    datasets.load_dataset = few_digits
    hinder()
    connection.send("begun")
    connection.send(run_here(script, *arguments))


def nothing():
    pass


class Child:
    """A process of its own that runs a script in a folder."""

    def __init__(self, context, folder, script, *arguments, hinder=nothing):
        self.connection, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=perform, args=(theirs, folder, hinder, script, arguments), daemon=True)
        self.process.start()
        theirs.close()
        if self.connection.poll(60):
            with contextlib.suppress(EOFError):
                self.connection.recv()

    def send(self, number):
        with contextlib.suppress(ProcessLookupError):  # it may have ended
            os.kill(self.process.pid, number)

    def end(self) -> Result:
        """What came of it; of a killed one, minus the signal as the status."""
        try:
            assert self.connection.poll(600), "it does not end"
            result = self.connection.recv()
        except EOFError:
            result = None
        self.process.join()
        return result or Result(self.process.exitcode, "", "")


@pytest.fixture(scope="session")
def forkserver(environment, trained):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults.warm"])
    with pytest.MonkeyPatch.context() as patch:
        paths = os.pathsep.join(map(str, (ROOT, Path(__file__).parents[1])))
        for key, value in {**environment, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}.items():
            patch.setenv(key, value)
        process = context.Process(target=nothing)
        process.start()
        process.join()
    return context


@pytest.fixture
def child(forkserver, tmp_path):
    """Starts a child in an empty folder."""
    children = []

    def child(script, *arguments, hinder=nothing):
        children.append(Child(forkserver, tmp_path, script, *arguments, hinder=hinder))
        return children[-1]

    yield child
    for each in children:
        each.process.kill()
        each.process.join()


@pytest.fixture
def here(environment, monkeypatch, tmp_path):
    """Runs a script in this process, in a folder with a picture, on few digits and without figures."""
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(datasets, "load_dataset", few_digits)
    monkeypatch.setattr(ClassifyTask_test, "draw", lambda *arguments: None)
    monkeypatch.setattr(diagrams, "layer_states", lambda path, *content: path.write_bytes(b"a figure"))
    before = signal.getsignal(signal.SIGTERM)
    yield run_here
    signal.signal(signal.SIGTERM, before)


def write_picture(path):
    """A digit, dark on light."""
    Image.fromarray(255 - digits("test")[0][0].numpy()).resize((112, 112)).save(path)


@pytest.fixture
def begun(child, tmp_path):
    """The path of a checkpoint after two epochs of three."""
    child(TRAIN, *DIGITS, "--epochs", 3, "--record-dir", "run", hinder=partial(stop_after, 2)).end()
    path = tmp_path / "run" / FILE
    assert checkpoint.load(path).epoch == 2 and list(path.parent.iterdir()) == [path]
    return path


# ---------------------------------------------------------------------------------------------- hindrances


def stop_after(epoch):
    save = checkpoint.save

    def save_and_stop(path, latest):
        save(path, latest)
        if latest.epoch == epoch:
            raise KeyboardInterrupt

    checkpoint.save = save_and_stop


def at_moment(number, act, after=True):
    """Do something at a moment of the writing: before, within and after each of its steps, counted over all files."""
    moments = itertools.count(1)

    def moment():
        if next(moments) == number:
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
    for name in "mkdir", "fsync", "replace":
        function = getattr(os, name)
        setattr(os, name, lambda *a, function=function, **k: (time.sleep(seconds), function(*a, **k))[1])


def quick_figures():
    """Figures with nothing but their titles."""
    for name in "training_curve", "confusion_matrix", "predictions", "misclassified", "architecture", "layer_states":
        for module in plots, diagrams:
            if hasattr(module, name):
                setattr(module, name, lambda path, *content: plots.save(plots.new_figure("title", "", height=1), path))


def both(*hinders):
    for hinder in hinders:
        hinder()


def signal_self(number):
    os.kill(os.getpid(), number)


def fail(code=errno.ENOSPC):
    raise OSError(code, os.strerror(code))


def limit(what, amount):
    resource.setrlimit(getattr(resource, what), (amount, amount))


def limit_memory(more):
    """Let the process take this many bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit("RLIMIT_AS", pages * resource.getpagesize() + more)
