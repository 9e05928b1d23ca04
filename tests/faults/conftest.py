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

import ClassifyTask_test
import utils
from digits import mnist as datasets
from figures import diagrams
from reading import ctc
from training import checkpoint
from training.checkpoint import FILE

TRAIN, TEST, PREDICT = (f"ClassifyTask_{name}.py" for name in ("train", "test", "predict"))
DIGITS = ("--dataset", "digits")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs processes that are forked and killed as in POSIX")
CONTEXT = multiprocessing.get_context(None if sys.platform == "win32" else "forkserver")


def perform(connection, folder, hinder, script, arguments):
    """What a child does: say that it begins, run the script, and send what came of it."""
    os.chdir(folder)
    utils.RECORD = folder / "Record"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore Ctrl-C
    datasets.load_dataset, ctc.TEST_LINES = few_digits, 30
    hinder()
    connection.send("begun")
    connection.send(run_here(importlib.import_module(Path(script).stem).main, script, *arguments))


class Child:
    """A process of its own that runs a script in a folder; `hinder` is called in it first."""

    def __init__(self, folder, script, *arguments, hinder=bool):
        self.connection, theirs = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=perform, args=(theirs, folder, hinder, script, arguments), daemon=True)
        self.process.start()
        theirs.close()
        with contextlib.suppress(EOFError):
            assert not self.connection.poll(60) or self.connection.recv() == "begun"

    def send(self, number):
        with contextlib.suppress(ProcessLookupError):  # it may have ended
            os.kill(self.process.pid, number)

    def end(self) -> Result:
        """What came of it; of a killed one, minus the signal as the status."""
        assert self.connection.poll(600), "it does not end"
        result = None
        with contextlib.suppress(EOFError):
            result = self.connection.recv()
        self.process.join()
        return result or Result(self.process.exitcode, "", "")


@pytest.fixture
def child(environment, tmp_path, monkeypatch):
    """Starts a child in an empty folder; the process that it is forked from starts with the first one."""
    CONTEXT.set_forkserver_preload(["faults.warm"])
    for key, value in {**environment, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}.items():
        monkeypatch.setenv(key, value)
    children = []
    yield lambda *script, **hinder: children.append(Child(tmp_path, *script, **hinder)) or children[-1]
    for each in children:
        each.process.kill()
        each.process.join()


@pytest.fixture
def here(call, monkeypatch):
    """Runs a script in this process, in an empty folder, on few digits and without figures."""
    monkeypatch.setattr(datasets, "load_dataset", few_digits)
    monkeypatch.setattr(ClassifyTask_test, "draw_digits", lambda *arguments: None)
    monkeypatch.setattr(diagrams, "layer_states", lambda path, *content: path.write_bytes(b"a figure"))
    return call


def write_image(path):
    """A digit, dark on light."""
    Image.fromarray(255 - digits("test")[0][0].numpy()).resize((112, 112)).save(path)


@pytest.fixture
def begun(child, tmp_path):
    """The path of a checkpoint after two epochs of three."""
    child(TRAIN, *DIGITS, "--epochs", 3, "--record-dir", "run", hinder=partial(stop_after, 2)).end()
    path = tmp_path / "run" / FILE
    assert checkpoint.load(path).epoch == 2 and list(path.parent.iterdir()) == [path]
    return path


def stop_after(epoch):
    save = checkpoint.save

    def save_and_stop(path, latest):
        save(path, latest)
        if latest.epoch == epoch:
            raise KeyboardInterrupt

    checkpoint.save = save_and_stop


def before_each_step_of_writing(act):
    """Have act called before a folder is made, half a file written, a file flushed or put in its place."""

    def hindered(function):
        return lambda *arguments, **options: (act(), function(*arguments, **options))[1]

    def write_bytes(path, content):
        with open(path, "wb", buffering=0) as file:
            for part in content[: len(content) // 2], content[len(content) // 2 :]:
                hindered(file.write)(part)

    Path.write_bytes = write_bytes
    for name in "mkdir", "fsync", "replace":
        setattr(os, name, hindered(getattr(os, name)))


def at_moment(number, act):
    """Do something at a moment of the writing; the moments are counted over all files."""
    moments = itertools.count(1)
    before_each_step_of_writing(lambda: next(moments) == number and act())


def slow_disk(seconds, threads=1):
    """So that most of the time goes into writing; with two threads, one of them makes the images."""
    torch.set_num_threads(threads)
    before_each_step_of_writing(partial(time.sleep, seconds))


def fail(code):
    raise OSError(code, os.strerror(code))


def limit_file_size(most):
    import resource  # only POSIX has it

    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
