"""What holds for all scripts: mistakes are refused in one line, and all is found and written beside the scripts."""

import shutil
import signal
import subprocess
import sys
from functools import partial

import pytest
import safetensors.torch
import torch
from conftest import ROOT, Result, contents, execute
from faults.conftest import DIGITS, FILE, PREDICT, TEST, TRAIN

import utils
from model import LeNet5
from training import checkpoint

MOMENT = ("--epochs", 1, "--batch-size", 500)  # of training
BAD_FLAGS = {
    TRAIN: """--epochs=0 --epochs=-1 --epochs=1.5 --epochs= --epochs=5001 --batch-size=0 --batch-size=1e2
        --lr=0 --lr=-1 --lr=nan --lr=inf --lr=1e9 --seed=-1 --seed=x --seed=4294967296 --recipe=2024
        --dataset=cifar --dataset --nonsense stray --resume=yes --device=cuda:99 --device= --device=meta""",
    TEST: "--weights=best --recipe=2024 --dataset --nonsense --epochs=2 stray --device=gpu --checkpoint=missing",
}
OLD_FLAGS = {  # script, old flag and new one
    *((TRAIN, "--distort", "--augment"), (TEST, "--no-distort", "--no-augment")),
    *((TRAIN, "--recipe adam", "--recipe default"), (TEST, "--recipe=adam", "--recipe default")),
    *((TEST, "--weights reported", "--weights ema"), (TRAIN, "--start=any", "--initial")),
}


def test_bad_and_old_flags(call, tmp_path):
    for script, flags in BAD_FLAGS.items():
        for flag in flags.split():
            assert call(script, *DIGITS, flag).refused(script, *flag.split("=")[-1:]).out == ""
        assert "--record-dir DIR" in call(script, "--help").succeeded().out
    for script, old, new in OLD_FLAGS:
        call(script, *old.split()).refused(f"{old.replace('=', ' ').removesuffix(' any')} is called {new} now")
    for script in TRAIN, TEST:
        call(script, *DIGITS, "--recipe", "numbers", "--no-augment").refused(
            "augment cannot be False", "leave the flag"
        )
    assert contents(tmp_path) == {} and utils.first_line(None) == ""  # as python -OO has docstrings


def test_an_old_checkpoint(call, tmp_path):
    tensors = {f"reported.{name}": tensor for name, tensor in LeNet5().state_dict().items()}
    content = {"format": 2, "arguments": {}, "recipe": {"name": "adam"}}
    text = checkpoint.canonical(content | {"digest": checkpoint.digest(tensors, content)})
    (tmp_path / "run").mkdir()
    safetensors.torch.save_file(tensors, tmp_path / "run" / FILE, {"format": "pt", "lenet5": text})
    torch.save(tensors, tmp_path / "pickle")
    before, old = contents(tmp_path), ("--checkpoint", f"run/{FILE}")
    for script in (TRAIN, *DIGITS, "--record-dir", "run", "--resume"), (TEST, *old), (PREDICT, "any.png", *old):
        call(*script).refused(f"run/{FILE} has format 2, of an older version", "train again")
    call(TEST, "--checkpoint", "pickle").refused("pickle is a pickle, as older versions wrote", "train again")
    assert contents(tmp_path) == before


def test_a_data_folder_that_is_named_must_exist(call, tmp_path):
    (tmp_path / "five.png").touch()
    for script in TRAIN, TEST:
        for name, words in ("odd/missing", "is missing"), ("five.png", "is a file"):
            assert call(script, "--data-dir", name).refused(f"'{name}' {words}").out == ""
    assert list(tmp_path.iterdir()) == [tmp_path / "five.png"]


def test_without_mnist_and_network_the_digits_do_and_this_is_said(call, tmp_path):
    for script in TRAIN, TEST:
        call(script, "--dataset", "mnist").refused("train-images-idx3-ubyte.gz is missing", "MNIST's four .gz files")
    assert list(tmp_path.iterdir()) == []
    result = call(TRAIN, *MOMENT).succeeded()
    assert result.err.count("WARNING") == 2 and "INSTEAD OF MNIST" in result.err
    assert "LeNet-5 on digits" in result.out and "LeNet-5 on mnist" not in result.out
    assert list(contents(tmp_path)) == [tmp_path / "Record" / "default-digits" / FILE]


def test_a_stop_amid_the_imports_is_one_line(environment, monkeypatch, tmp_path):
    for name in "numpy", "sklearn", "torch", "tqdm":
        (tmp_path / f"{name}.py").write_text("import signal, time; signal.raise_signal(signal.SIGINT); time.sleep(9)")
    monkeypatch.setitem(environment, "PYTHONPATH", str(tmp_path))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would ignore Ctrl-C
    for script in TRAIN, TEST, PREDICT, "tools/page.py", "tools/export_onnx.py", "tools/animation.py":
        assert execute(environment, ROOT, script).said("stopped").status == 130
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no /dev/full there")
def test_a_full_disk_under_the_log_is_one_line(environment, tmp_path):
    with open("/dev/full", "w") as log:
        flags = (*DIGITS, *MOMENT, "--record-dir", tmp_path)
        execute(environment, tmp_path, TRAIN, *flags, stdout=log).refused("No space left")


ROOMS = ("training", "digits", "reading", "figures", "experiments", "tools")
SHIPPED = [f"Record/reference/{name}" for name in (FILE, f"numbers/{FILE}", "number.jpg")]


@pytest.mark.skipif(not shutil.which("git"), reason="no git here")
def test_a_clone_used_from_another_folder_stays_clean(environment, monkeypatch, tmp_path):
    clone, elsewhere = tmp_path / "clone", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for room in ROOMS:
        shutil.copytree(ROOT / room, clone / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*SHIPPED, *(path.name for path in ROOT.glob("*.py")), ".gitignore"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)

    def run(folder, *command) -> str:
        options = {"cwd": folder, "env": environment, "encoding": "utf-8", "capture_output": True}
        done = subprocess.run(list(map(str, command)), **options)
        return Result(done.returncode, done.stdout, done.stderr).succeeded().out

    def python(script, *arguments):
        """From another folder, by a Python that does not look for modules beside the script."""
        with monkeypatch.context() as patch:
            patch.setitem(environment, "PYTHONSAFEPATH", "1")
            return run(elsewhere, sys.executable, clone / script, *arguments)

    git = partial(run, clone, "git")
    for words in "init -q", "add -A", "-c user.name=a -c user.email=a@b.c commit -qm clone":
        git(*words.split())
    folder = clone / "Record" / "default-digits"
    assert python(TRAIN, *DIGITS, *MOMENT, "--plain").endswith(f"{TEST} --checkpoint {folder / FILE}\n")
    assert f"metrics.json: {folder}\n" in python(TEST, *DIGITS)
    read = python(PREDICT, "--number", "--figure", clone / SHIPPED[2])
    assert f"shipped, {clone / SHIPPED[1]}; " in read and "number.jpg: 1998," in read
    assert "epoch 20  test accuracy" in run(elsewhere, sys.executable, clone / "minimal.py")
    assert "demo.html" in python("tools/page.py")
    for module in "-m tools.page", "-m experiments codes --tiny":
        assert "Record" in run(clone, sys.executable, *module.split())
    written = {"demo.html", "prediction-1.png", "study/tiny/codes.json", f"default-digits/{FILE}"}
    assert written <= {path.relative_to(clone / "Record").as_posix() for path in contents(clone / "Record")}
    assert git("status", "--porcelain") == "" and not list(elsewhere.iterdir())
