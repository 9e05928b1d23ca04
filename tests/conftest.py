"""What the tests share: the options, real and made-up MNIST, scripts run as a user runs them, a trained checkpoint."""

import collections
import functools
import gzip
import hashlib
import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import sklearn.datasets
import torch

import utils
from ClassifyTask_train import RECIPES, train

ROOT = Path(utils.__file__).parent
NAMES = [name for files in utils.MNIST.values() for name, *_ in files]
TALLY = collections.Counter()


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=200, help="of trainings, in the long search for faults")
    parser.addoption("--mutations", type=int, default=10_000, help="of checkpoints, in the long search for faults")
    parser.addoption("--tally", type=Path, help="write to this JSON file how many faults of which kind were tried")


def pytest_generate_tests(metafunc):
    """A test that takes kills or mutations has a short version, which is always run, and a long one."""
    for option, short in ("kills", 15), ("mutations", 240):
        if option in metafunc.fixturenames:
            long = pytest.param(metafunc.config.getoption(option), marks=pytest.mark.faults)
            metafunc.parametrize(option, [short, long], ids=["short", "long"])


@pytest.fixture
def tally():
    """Counts the faults tried, by their kind."""
    return TALLY


def pytest_sessionfinish(session, exitstatus):
    if path := session.config.getoption("--tally"):
        content = {
            "command": " ".join(["pytest", *session.config.invocation_params.args]),
            "tried": dict(TALLY),
            "failed": session.testsfailed,
            "system": f"{platform.system()} {platform.machine()}",
            "versions": utils.versions(),
        }
        path.write_text(json.dumps(content, indent=1) + "\n")


load_digits = functools.cache(sklearn.datasets.load_digits)


class Result(NamedTuple):
    """What came of a run."""

    status: int
    out: str
    err: str

    def succeeded(self) -> "Result":
        assert self.status == 0, self
        return self

    def refused(self, *words: str) -> "Result":
        """As a user's mistake or a broken file is: status 2 and exactly one line, here with these words."""
        assert self.status == 2, self
        return self.said(*words)

    def said(self, *words: str) -> "Result":
        """Nothing on standard error but one line, with these words."""
        assert self.err.count("\n") == 1 and self.err.endswith("\n") and "Traceback" not in self.err, self
        for word in words:
            assert str(word) in self.err, (word, self)
        return self


def same(one, other):
    """Whether two checkpoints hold bit for bit the same training; only its duration may differ."""
    for weights in ("model", "last"):
        if not all(torch.equal(tensor, other[weights][name]) for name, tensor in one[weights].items()):
            return False
    states = [checkpoint["optimizer"]["state"][0] for checkpoint in (one, other)]
    if not all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()):
        return False
    rows = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in checkpoint["history"]]
        for checkpoint in (one, other)
    ]
    return rows[0] == rows[1] and torch.equal(one["random_state"], other["random_state"])


def contents(folder):
    """All files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def environment():
    """The environment of scripts: no network wherever the tests run, no foreign modules, one thread."""
    unreachable = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "HTTP", "HTTPS")}
    kept = {key: value for key, value in os.environ.items() if key.lower() not in ("pythonpath", "no_proxy")}
    return {**kept, **unreachable, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "PYTHONUTF8": "1"}


@pytest.fixture
def start(environment, tmp_path):
    """Starts a script as a user does, in an empty folder: a subprocess.Popen."""
    processes = []

    def start(script, *arguments, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": tmp_path, **options}
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        processes.append(subprocess.Popen(command, env=environment, text=True, encoding="utf-8", **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def command(start):
    """Runs a script as a user does, in an empty folder, to its end."""

    def command(script, *arguments, timeout=300, **options):
        process = start(script, *arguments, **options)
        out, err = process.communicate(timeout=timeout)
        return Result(process.returncode, out or "", err or "")

    return command


@pytest.fixture
def call(environment, monkeypatch, tmp_path, capfd):
    """Runs a script in this process, in an empty folder: all but starting Python is as in `command`."""
    for key in os.environ.keys() | environment.keys():
        if key in environment:
            monkeypatch.setenv(key, environment[key])
        else:
            monkeypatch.delenv(key)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sklearn.datasets, "load_digits", load_digits)
    before = signal.getsignal(signal.SIGTERM)

    def call(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            utils.run_script(importlib.import_module(Path(script).stem).main)
        return Result(stop.value.code or 0, *capfd.readouterr())

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def mnist():
    """The data folder, with real MNIST in it."""
    data = ROOT / "data"
    missing = [
        name for name in NAMES if not any((data / "MNIST" / "raw" / (name + end)).is_file() for end in ("", ".gz"))
    ]
    if missing:
        reason = f"real MNIST is not in {data}: {', '.join(missing)} missing"
        (pytest.fail if os.environ.get("REQUIRE_MNIST") else pytest.skip)(reason)
    return data


@pytest.fixture
def tiny_mnist(tmp_path, monkeypatch):
    """A data folder with four archives in MNIST's form, of 600 training and 200 test images, that pass for MNIST."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random, table = np.random.default_rng(0), {}
    for subset, count in ("train", 600), ("test", 200):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = random.integers(0, 2, (count, 28, 28), np.uint8) * 255
        contents = (
            b"".join(number.to_bytes(4, "big") for number in (2051, count, 28, 28)) + images.tobytes(),
            b"".join(number.to_bytes(4, "big") for number in (2049, count)) + labels.tobytes(),
        )
        table[subset] = []
        for (name, *_), content in zip(utils.MNIST[subset], contents):
            archive = gzip.compress(content, compresslevel=1, mtime=0)
            (raw / f"{name}.gz").write_bytes(archive)
            sums = [hashlib.md5(c, usedforsecurity=False).hexdigest() for c in (archive, content)]
            table[subset].append((name, *sums, len(content)))
    monkeypatch.setattr(utils, "MNIST", table)
    return raw.parent.parent


@pytest.fixture(scope="session")
def trained(environment, tmp_path_factory):
    """The folder of a run of two epochs on the digits, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, finish(
        environment, "ClassifyTask_train.py", "--dataset", "digits", "--epochs", 2, "--record-dir", folder
    )


@pytest.fixture(scope="session")
def tested(trained, environment, tmp_path_factory):
    """The folder of a copy of that run after its test, and what that printed."""
    folder = shutil.copytree(trained[0], tmp_path_factory.mktemp("tested") / "run")
    return folder, finish(environment, "ClassifyTask_test.py", "--checkpoint", folder / "LeNet5.pt")


def finish(environment, script, *arguments):
    """Run a script, in the project's root, that is to succeed."""
    command = [sys.executable, script, *map(str, arguments)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=300)
    return Result(run.returncode, run.stdout, run.stderr).succeeded()


@functools.cache
def reference():
    """The committed checkpoint, or where there is none, one of a moment's training."""
    path = ROOT / utils.RECORD / "LeNet5.pt"
    if path.exists():
        return utils.load_checkpoint(path)
    images, labels = utils.load_dataset("digits", ROOT / "data", "train")
    run = {"recipe": {"name": "adam", **RECIPES["adam"], "epochs": 1}, "dataset": "digits", "seed": 0}
    return next(train(run, (images, labels), (images[:100], labels[:100])))


@pytest.fixture
def run_main(monkeypatch, tmp_path, capfd):
    """Runs an experiment's main, in this process and in a folder with nothing but the reference checkpoint."""
    monkeypatch.chdir(tmp_path)
    utils.save_checkpoint(tmp_path / utils.RECORD / "LeNet5.pt", reference())

    def run_main(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["experiment.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            utils.run_script(main)
        return Result(stop.value.code or 0, *capfd.readouterr())

    return run_main
