"""Scripts in processes of their own, forked from one that has done the imports, and hindered as a test likes."""

import contextlib
import importlib
import itertools
import multiprocessing
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Result, digits, few_digits, run_here
from PIL import Image

import checkpoint
import ClassifyTask_test
import diagrams
import mnist as datasets

if sys.platform != "win32":
    import resource

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs processes that are forked and killed as in POSIX")

TRAIN, TEST, PREDICT = (f"ClassifyTask_{name}.py" for name in ("train", "test", "predict"))
DIGITS = ("--dataset", "digits")
FILE = checkpoint.FILE
EPOCHS = 5


def perform(connection, folder, hinder, script, arguments):
    """What a child does: say that it begins, run the script, and send what came of it."""
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore Ctrl-C
    datasets.load_dataset = few_digits
    hinder()
    connection.send("begun")
    main = importlib.import_module(Path(script).stem).main
    connection.send(run_here(main, script, *arguments))


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
def here(call, monkeypatch):
    """Runs a script in this process, in an empty folder, on few digits and without figures."""
    monkeypatch.setattr(datasets, "load_dataset", few_digits)
    monkeypatch.setattr(ClassifyTask_test, "draw", lambda *arguments: None)
    monkeypatch.setattr(diagrams, "layer_states", lambda path, *content: path.write_bytes(b"a figure"))
    return call


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


def at_moment(number, act):
    """Do something at a moment of the writing: before, within or after one of its steps, counted over all files."""
    moments = itertools.count(1)

    def moment():
        if next(moments) == number:
            act()

    def stepwise(function):
        def step(*arguments, **options):
            moment()
            return function(*arguments, **options)

        return step

    def write_bytes(path, content):
        half = len(content) // 2
        with open(path, "wb") as file:
            for part in content[:half], content[half:]:
                moment()
                file.write(part)
                file.flush()

    Path.write_bytes = write_bytes
    for name in "mkdir", "fsync", "replace":
        setattr(os, name, stepwise(getattr(os, name)))


def slow_disk(seconds, threads=1):
    """So that most of the time goes into writing; with two threads, one of them makes the pictures."""
    torch.set_num_threads(threads)

    def slowly(function, *arguments, **options):
        time.sleep(seconds)
        return function(*arguments, **options)

    for name in "mkdir", "fsync", "replace":
        setattr(os, name, partial(slowly, getattr(os, name)))


def fail(code):
    raise OSError(code, os.strerror(code))


def limit_file_size(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
