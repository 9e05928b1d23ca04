"""What the tests share: options, MNIST, scripts run as a user runs them, a trained run.

No test writes into the checkout: what scripts write goes to a folder of the test's own. Shipped files are read from
Record/reference. The GPU is hidden from all tests but those marked cuda, so that scripts mean the CPU by "auto".
"""

import collections
import contextlib
import functools
import gzip
import hashlib
import importlib
import io
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other are slow beside other tests

import numpy as np
import pytest

import utils
from digits import mnist as datasets
from digits.mnist import Data
from training import checkpoint, provenance

ROOT = utils.ROOT
REFERENCE = ROOT / "Record" / "reference"
NAMES = [name for files in datasets.MNIST.values() for name, *_ in files]
TALLY = collections.Counter()  # how many faults were tried, by their kind


def pytest_configure(config):
    if "cuda" not in config.getoption("-m", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        # Compile the loops once, before the workers start: they load what numba keeps beside kernels.py.
        warm = ROOT / "tests" / "warm.py"
        for process in [subprocess.Popen([sys.executable, warm, layout]) for layout in ("BATCH", "SINGLE")]:
            process.wait()


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=200, help="of training runs, in the long search for faults")
    parser.addoption("--mutations", type=int, default=10_000, help="of checkpoints, in the long search for faults")
    parser.addoption("--tally", type=Path, help="write to this JSON file how many faults of which kind were tried")


def pytest_generate_tests(metafunc):
    """A test that takes kills or mutations has a short version, which is always run, and a long one."""
    for option, short in ("kills", 8), ("mutations", 240):
        if option in metafunc.fixturenames:
            long = pytest.param(metafunc.config.getoption(option), marks=pytest.mark.faults)
            metafunc.parametrize(option, [short, long], ids=["short", "long"])


def pytest_sessionfinish(session, exitstatus):
    if path := session.config.getoption("--tally"):
        command = " ".join(["python -m pytest", *session.config.invocation_params.args])
        made_on = {"system": f"{platform.system()} {platform.machine()}", "versions": provenance.versions()}
        provenance.save_json(path, {"command": command, "tried": dict(TALLY), "failed": session.testsfailed, **made_on})


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
        assert all(str(word) in self.err for word in words), (words, self)
        return self


def same(one: checkpoint.Checkpoint, other: checkpoint.Checkpoint) -> bool:
    """Whether two checkpoints hold bit for bit the same training run; only its duration may differ."""

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
    kept = {key: value for key, value in os.environ.items() if key.lower() not in ("pythonpath", "no_proxy")}
    unreachable = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return {**kept, **unreachable, "PYTHONUTF8": "1"}


def execute(environment, folder, script, *arguments, **options) -> Result:
    """Run a script as a user does, in this folder, to its end."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 300, **options}
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    run = subprocess.run(command, cwd=folder, env=environment, encoding="utf-8", **options)
    return Result(run.returncode, run.stdout or "", run.stderr or "")


@pytest.fixture
def own_folders(monkeypatch, tmp_path):
    """An empty folder of the test's own in place of the checkout's data/ and Record/; it is the current one, too."""
    monkeypatch.setattr(utils, "DATA", tmp_path / "data")
    monkeypatch.setattr(utils, "RECORD", tmp_path / "Record")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(environment, monkeypatch, own_folders):
    """Runs a script in this process: all but starting Python is as in `execute`."""
    for key in os.environ.keys() | environment.keys():
        monkeypatch.setenv(key, environment[key]) if key in environment else monkeypatch.delenv(key)
    return lambda script, *arguments: run_here(importlib.import_module(Path(script).stem).main, script, *arguments)


@pytest.fixture
def run_main(own_folders):
    """Runs an experiment's or a tool's main, in this process, where nothing is shipped but the reference checkpoint."""
    checkpoint.save(own_folders / "Record" / "reference" / checkpoint.FILE, reference())
    return lambda main, *arguments: run_here(main, "experiment.py", *arguments)


def run_here(main, name, *arguments) -> Result:
    """Run the main of a script of this name in this process, to its end."""
    out, err, before = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    argv = patch.object(sys, "argv", [name, *map(str, arguments)])
    with argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        utils.run_script(main, getattr(sys.modules[main.__module__], "AFTER_STOP", ""))
    signal.signal(signal.SIGTERM, before)
    return Result(stop.value.code or 0, out.getvalue(), err.getvalue())


load_dataset = datasets.load_dataset


@functools.cache
def digits(subset):
    """A few of the digits, for what need not be learnt: images and labels."""
    return [tensor[:100] for tensor in load_dataset("digits", None, subset)]


def few() -> Data:
    return Data("digits", digits("train"), digits("test"))


def few_digits(name, data_dir, subset):
    """In the place of mnist.load_dataset: a few digits only."""
    return digits(subset) if name == "digits" else load_dataset(name, data_dir, subset)


@functools.cache
def reference(recipe="") -> checkpoint.Checkpoint:
    """The checkpoint shipped of the default recipe, or of another one."""
    return checkpoint.load(REFERENCE / recipe / checkpoint.FILE)


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
    raw, random, table = tmp_path / "data" / "MNIST" / "raw", np.random.default_rng(0), {}
    raw.mkdir(parents=True)
    for subset, count in ("train", 600), ("test", 200):
        images = random.integers(0, 2, (count, 28, 28), np.uint8) * 255
        labels, table[subset] = np.arange(count, dtype=np.uint8) % 10, []
        files = (2051, count, 28, 28, images), (2049, count, labels)
        for (name, *_), (*numbers, values) in zip(datasets.MNIST[subset], files):
            content = b"".join(number.to_bytes(4, "big") for number in numbers) + values.tobytes()
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
