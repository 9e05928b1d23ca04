"""What the tests share: options, one cache of compiled loops, MNIST, scripts run as a user runs them, a trained run."""

import collections
import contextlib
import functools
import gzip
import hashlib
import importlib
import io
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

# Before anything imports numba: one folder for the whole run, so that loops are compiled once, not in each process.
if "NUMBA_CACHE_DIR" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="numba-")
    os.environ["NUMBA_CACHE_DIR"] = CACHE.name
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other are slow beside other tests

import numpy as np
import pytest

import checkpoint
import mnist as datasets
import training
import utils
from recipes import RECIPES

ROOT = Path(utils.__file__).parent
NAMES = [name for files in datasets.MNIST.values() for name, *_ in files]
TALLY = collections.Counter()


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=200, help="of trainings, in the long search for faults")
    parser.addoption("--mutations", type=int, default=10_000, help="of checkpoints, in the long search for faults")
    parser.addoption("--tally", type=Path, help="write to this JSON file how many faults of which kind were tried")


def pytest_generate_tests(metafunc):
    """A test that takes kills or mutations has a short version, which is always run, and a long one."""
    for option, short in ("kills", 8), ("mutations", 240):
        if option in metafunc.fixturenames:
            long = pytest.param(metafunc.config.getoption(option), marks=pytest.mark.faults)
            metafunc.parametrize(option, [short, long], ids=["short", "long"])


@pytest.fixture
def tally():
    """Counts the faults tried, by their kind."""
    return TALLY


def pytest_sessionfinish(session, exitstatus):
    if path := session.config.getoption("--tally"):
        command = " ".join(["python -m pytest", *session.config.invocation_params.args])
        made_on = {"system": f"{platform.system()} {platform.machine()}", "versions": utils.versions()}
        utils.save_json(path, {"command": command, "tried": dict(TALLY), "failed": session.testsfailed, **made_on})


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


def same(one: checkpoint.Checkpoint, other: checkpoint.Checkpoint) -> bool:
    """Whether two checkpoints hold bit for bit the same training; only its duration may differ."""

    def bits(saved):
        named = [(group, name, t) for group, tensors in checkpoint.groups(saved).items() for name, t in tensors.items()]
        tensors = [(group, name, tensor.numpy().tobytes()) for group, name, tensor in named]
        history = [{**row, "seconds": 0} for row in saved.history]
        return sorted(tensors), history, saved.recipe, saved.dataset, saved.seed

    return bits(one) == bits(other)


def contents(folder: Path) -> dict[Path, bytes]:
    """All files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def environment():
    """The environment of scripts: no network wherever the tests run, no foreign modules."""
    unreachable = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "HTTP", "HTTPS")}
    kept = {key: value for key, value in os.environ.items() if key.lower() not in ("pythonpath", "no_proxy")}
    return {**kept, **unreachable, "PYTHONUTF8": "1"}


def execute(environment, folder, script, *arguments, timeout=300, **options) -> Result:
    """Run a script as a user does, in this folder, to its end."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    run = subprocess.run(command, cwd=folder, env=environment, encoding="utf-8", timeout=timeout, **options)
    return Result(run.returncode, run.stdout or "", run.stderr or "")


@pytest.fixture
def command(environment, tmp_path):
    """Runs a script as a user does, in an empty folder, to its end."""
    return functools.partial(execute, environment, tmp_path)


@pytest.fixture
def call(environment, monkeypatch, tmp_path):
    """Runs a script in this process, in an empty folder: all but starting Python is as in `command`."""
    for key in os.environ.keys() | environment.keys():
        monkeypatch.setenv(key, environment[key]) if key in environment else monkeypatch.delenv(key)
    monkeypatch.chdir(tmp_path)
    return lambda script, *arguments: run_here(importlib.import_module(Path(script).stem).main, script, *arguments)


@pytest.fixture
def run_main(monkeypatch, tmp_path):
    """Runs an experiment's or a tool's main, in this process, in a folder with nothing but the reference checkpoint."""
    monkeypatch.chdir(tmp_path)
    checkpoint.save(tmp_path / utils.RECORD / checkpoint.FILE, reference())
    return lambda main, *arguments: run_here(main, "experiment.py", *arguments)


def run_here(main, name, *arguments) -> Result:
    """Run the main of a script of this name in this process, to its end."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
    before = signal.getsignal(signal.SIGTERM)
    argv = patch.object(sys, "argv", [name, *map(str, arguments)])
    with argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            utils.run_script(main)
        except SystemExit as stop:
            status = stop.code or 0
        except Exception:
            traceback.print_exc()
            status = 1
    signal.signal(signal.SIGTERM, before)
    for stream in out, err:
        stream.flush()
    return Result(status, out.buffer.getvalue().decode(), err.buffer.getvalue().decode())


load_dataset = datasets.load_dataset


@functools.cache
def digits(subset):
    """A few of the digits, for what need not be learnt: images and labels."""
    return [tensor[:100] for tensor in load_dataset("digits", None, subset)]


def few_digits(name, data_dir, subset):
    """In the place of mnist.load_dataset: a few digits only."""
    return digits(subset) if name == "digits" else load_dataset(name, data_dir, subset)


@functools.cache
def reference() -> checkpoint.Checkpoint:
    """The committed checkpoint, or where there is none, one of a moment's training."""
    path = ROOT / utils.RECORD / checkpoint.FILE
    if path.exists():
        return checkpoint.load(path)
    sets = [datasets.load_dataset("digits", ROOT / "data", subset) for subset in ("train", "test")]
    return next(training.train(RECIPES["adam"].override(1, None, None), "digits", 0, *sets))


@pytest.fixture(scope="session", name="mnist")
def real_mnist():
    """The data folder, with real MNIST in it."""
    raw = ROOT / "data" / "MNIST" / "raw"
    missing = [name for name in NAMES if not any((raw / f"{name}{end}").is_file() for end in ("", ".gz"))]
    if missing:
        reason = f"real MNIST is not in {raw}: {', '.join(missing)} missing"
        (pytest.fail if os.environ.get("REQUIRE_MNIST") else pytest.skip)(reason)
    return ROOT / "data"


@pytest.fixture
def tiny_mnist(tmp_path, monkeypatch):
    """A data folder with four archives in MNIST's form, of 600 training and 200 test images, that pass for MNIST."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random, table = np.random.default_rng(0), {}
    for subset, count in ("train", 600), ("test", 200):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = random.integers(0, 2, (count, 28, 28), np.uint8) * 255
        idx = (
            b"".join(number.to_bytes(4, "big") for number in (2051, count, 28, 28)) + images.tobytes(),
            b"".join(number.to_bytes(4, "big") for number in (2049, count)) + labels.tobytes(),
        )
        table[subset] = []
        for (name, *_), content in zip(datasets.MNIST[subset], idx):
            archive = gzip.compress(content, compresslevel=1, mtime=0)
            (raw / f"{name}.gz").write_bytes(archive)
            sums = [hashlib.md5(c, usedforsecurity=False).hexdigest() for c in (archive, content)]
            table[subset].append((name, *sums, len(content)))
    monkeypatch.setattr(datasets, "MNIST", table)
    return raw.parent.parent


@pytest.fixture(scope="session")
def trained(environment, tmp_path_factory):
    """The folder of a run of two epochs on the digits, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    flags = ("--dataset", "digits", "--epochs", 2, "--record-dir", folder)
    return folder, execute(environment, folder, "ClassifyTask_train.py", *flags).succeeded()


@pytest.fixture(scope="session")
def tested(trained, environment, tmp_path_factory):
    """The folder of a copy of that run after its test, and what that printed."""
    folder = shutil.copytree(trained[0], tmp_path_factory.mktemp("tested") / "run")
    flags = ("--checkpoint", folder / checkpoint.FILE)
    return folder, execute(environment, folder, "ClassifyTask_test.py", *flags).succeeded()
