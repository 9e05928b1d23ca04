"""The scripts as a user runs them: what they print, write and refuse."""

import contextlib
import json
import math
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, contents, same

import checkpoint
import ClassifyTask_test
import mnist as datasets
import recipes
import training
import utils
from checkpoint import FILE

TRAIN, TEST = "ClassifyTask_train.py", "ClassifyTask_test.py"
DIGITS = ("--dataset", "digits")
MOMENT = ("--epochs", 1, "--batch-size", 500)  # of training
FIGURES = {
    "training_curve.png",
    "ConfusionMatrix.png",
    "Result_of_LeNet_Training.png",
    "misclassified.png",
    "lenet.png",
}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="pipes and Ctrl-C are other things there")


@pytest.fixture
def run(trained, tmp_path):
    """A folder of one's own with a trained checkpoint in it."""
    return shutil.copytree(trained[0], tmp_path / "run")


@pytest.fixture
def few_digits(monkeypatch):
    """240 training and 100 test digits, for what need not be learnt."""
    load, counts = datasets.load_dataset, {"train": 240, "test": 100}
    monkeypatch.setattr(datasets, "load_dataset", lambda *which: [t[: counts[which[2]]] for t in load(*which)])


@pytest.fixture
def start(environment, tmp_path):
    """Starts the training of a user who watches it."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            command = [sys.executable, str(ROOT / TRAIN), *map(str, arguments)]
            options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": tmp_path, "env": environment}
            process = subprocess.Popen(command, encoding="utf-8", **options)
            stack.callback(process.kill)
            return process

        yield start


# ---------------------------------------------------------------------------------------------- training


def test_training_says_what_it_does_in_plain_lines(trained):
    out, err = trained[1].out, trained[1].err
    assert err == "" and "\r" not in out and "\x1b" not in out
    lines = out.splitlines()
    first = next(
        i for i, line in enumerate(lines) if line.startswith("LeNet-5 on digits, recipe adam, seed 0, device ")
    )
    epochs = [line for line in lines[first:] if line.startswith("epoch")]
    for number, line in enumerate(epochs, 1):
        figures = r"train loss \d\.\d+, accuracy \d+\.\d+%  test accuracy \d+\.\d+%  \d+\.\d s"
        assert re.fullmatch(rf"epoch  {number}/2  {figures}", line)
    saved = checkpoint.load(trained[0] / FILE)
    tested = [row["test_accuracy"] for row in saved.history]
    assert len(epochs) == len(tested) == 2 and all(f"test accuracy {t:.2%}" in e for t, e in zip(tested, epochs))
    test_set = datasets.load_dataset("digits", None, "test")
    last = utils.accuracy(checkpoint.network(saved, "last"), *test_set)
    assert utils.accuracy(checkpoint.network(saved), *test_set) == tested[-1] > 0.5
    assert f"test accuracy {tested[-1]:.2%} of 360 digits" in out and f"the last weights alone: {last:.2%}" in out
    assert lines[-1].endswith(f"python ClassifyTask_test.py --checkpoint {trained[0] / FILE}")


def test_each_data_set_has_its_own_folder(call, tmp_path):
    call(TRAIN, *DIGITS, *MOMENT).succeeded()
    assert list(contents(tmp_path)) == [tmp_path / "Record" / "digits" / FILE]


def test_real_mnist_from_training_to_figures(mnist, command, tmp_path):
    command(TRAIN, "--data-dir", mnist, "--epochs", 1, "--batch-size", 100, "--lr", 0.002).succeeded()
    result = command(TEST, "--data-dir", mnist).succeeded()
    assert result.err == "" and "LeNet-5 on mnist" in result.out and "errors in 10,000 digits" in result.out
    assert {path.name for path in (tmp_path / "Record").iterdir()} == FIGURES | {FILE, "metrics.json"}
    metrics = json.loads((tmp_path / "Record" / "metrics.json").read_text())
    assert 0.93 < metrics["accuracy"] < 0.995 and metrics["dataset"] == "mnist"
    assert sum(row["support"] for row in metrics["classes"]) == 10_000


@pytest.mark.parametrize("flags", [(), ("--recipe", "1998")], ids=["adam", "1998"])
def test_a_diverging_training_is_told_and_what_was_saved_is_kept(flags, call, run, few_digits):
    before = contents(run)
    call(TRAIN, *DIGITS, *flags, "--record-dir", run, "--lr", "1e4").refused("diverged in epoch 1", "smaller --lr")
    assert contents(run) == before


def test_too_large_a_batch_for_the_memory_is_told(call, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "pad", lambda images: torch.empty(2**60))
    call(TRAIN, *DIGITS, "--record-dir", "run").refused("out of memory", "--batch-size")
    assert contents(tmp_path) == {}


# ---------------------------------------------------------------------------------------------- resuming


def stop_in(monkeypatch, epoch):
    """Ctrl-C while this epoch's checkpoint is to be written."""
    save = checkpoint.save

    def interrupted(path, latest):
        if latest.epoch == epoch:
            monkeypatch.setattr(checkpoint, "save", save)
            raise KeyboardInterrupt
        save(path, latest)

    monkeypatch.setattr(checkpoint, "save", interrupted)


@pytest.mark.parametrize("flags", [(), ("--plain",), ("--recipe", "1998")], ids=["fast", "plain", "1998"])
def test_a_resumed_training_is_that_without_interruption(flags, call, tmp_path, monkeypatch, few_digits):
    arguments = (*DIGITS, *flags, "--epochs", 4, "--lr", 0.0003, "--seed", 5)
    call(TRAIN, *arguments, "--record-dir", "whole").succeeded()
    for epoch in 2, 4:
        stop_in(monkeypatch, epoch)
        result = call(TRAIN, *arguments, "--record-dir", "parts", "--resume").said("stopped", "--resume")
        assert result.status == 130 and checkpoint.load(tmp_path / "parts" / FILE).epoch == epoch - 1
    call(TRAIN, *DIGITS, *flags, "--record-dir", "parts", "--resume").succeeded()  # the rest is in the checkpoint
    whole, parts = (checkpoint.load(tmp_path / name / FILE) for name in ("whole", "parts"))
    assert same(whole, parts) and parts.finished and parts.recipe.learning_rates[0] == 0.0003 and parts.seed == 5


@POSIX
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_command_keeps_the_last_epoch(number, status, start, tmp_path):
    process = start(*DIGITS, "--epochs", 5000, "--batch-size", 100, "--record-dir", "run")
    while not (line := process.stdout.readline()).startswith("epoch  2/5000"):
        assert line, process.stderr.read()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status and err.count("\n") == 1 and "stopped" in err
    assert list(contents(tmp_path)) == [tmp_path / "run" / FILE] and len(list((tmp_path / "run").iterdir())) == 1
    assert 2 <= checkpoint.load(tmp_path / "run" / FILE).epoch < 5000


@POSIX
def test_a_reader_that_goes_away_is_one_line(start):
    process = start(*DIGITS, "--epochs", 5000, "--record-dir", "run")
    while not process.stdout.readline().startswith("epoch  1"):
        assert process.poll() is None
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait() == 2 and err.count("\n") == 1 and "pipe" in err


def test_a_finished_run_is_left_alone(command, run):
    before = contents(run)
    result = command(TRAIN, *DIGITS, "--record-dir", run, "--epochs", 2, "--resume").succeeded()
    assert "finished" in result.out and result.err == "" and contents(run) == before


def test_resuming_without_a_checkpoint_is_starting(call, tmp_path):
    call(TRAIN, *DIGITS, *MOMENT, "--record-dir", "run", "--resume").succeeded()
    assert checkpoint.load(tmp_path / "run" / FILE).finished


CONTRADICTIONS = {
    "--epochs=3": "epochs 2, not 3",
    "--batch-size=64": "batch size 32, not 64",
    "--lr=0.1": "learning rate 0.0005, not 0.1",
    "--seed=1": "seed 0, not 1",
    "--recipe=1998": "recipe adam, not 1998",
    "--dataset=mnist": "data set digits, not mnist",
}


@pytest.mark.parametrize(("flag", "words"), CONTRADICTIONS.items(), ids=CONTRADICTIONS)
def test_a_flag_that_contradicts_the_checkpoint_is_refused(flag, words, call, run, tiny_mnist):
    before = contents(run)
    arguments = (*DIGITS, "--data-dir", tiny_mnist, "--record-dir", run, "--resume")
    call(TRAIN, *arguments, flag).refused(words, FILE)
    assert contents(run) == before


@pytest.mark.parametrize("recipe", ["adam", "1998"])
def test_a_learning_rate_given_again_contradicts_nothing(recipe):
    for lr in np.random.default_rng(0).lognormal(-6, 3, 1000).tolist():
        assert recipes.RECIPES[recipe].override(None, None, lr).learning_rates[0] == lr


# ---------------------------------------------------------------------------------------------- testing


def test_testing_writes_every_file_and_says_so(tested):
    folder, result = tested
    assert {path.name for path in folder.iterdir()} == FIGURES | {FILE, "metrics.json"} and result.err == ""
    assert all((folder / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for name in FIGURES)
    metrics = json.loads((folder / "metrics.json").read_text())
    low, high = metrics["interval"]
    assert f"accuracy {metrics['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}" in result.out
    assert f"{metrics['errors']} errors in 360 digits" in result.out
    by_class = re.findall(r"(\d): (\d+)", result.out.partition("by class")[2])
    assert [int(digit) for digit, _ in by_class] == list(range(10))
    assert sum(int(count) for _, count in by_class) == metrics["errors"]


def test_the_metrics_agree_with_each_other_and_with_the_checkpoint(tested):
    metrics, saved = json.loads((tested[0] / "metrics.json").read_text()), checkpoint.load(tested[0] / FILE)
    keys = "accuracy interval last_accuracy loss errors classes confusion_matrix weights dataset recipe seed device"
    assert set(metrics) >= {*keys.split(), "versions"} and set(saved.versions) < set(metrics["versions"])
    matrix, (images, labels) = np.array(metrics["confusion_matrix"]), datasets.load_dataset("digits", None, "test")
    assert matrix.sum(1).tolist() == labels.bincount().tolist()
    assert metrics["errors"] == matrix.sum() - matrix.trace() > 0
    assert metrics["accuracy"] == matrix.trace() / 360 == saved.history[-1]["test_accuracy"]
    assert metrics["loss"] == pytest.approx(saved.history[-1]["test_loss"], rel=1e-5)
    assert metrics["interval"] == list(ClassifyTask_test.wilson_interval(int(matrix.trace()), 360))
    assert metrics["last_accuracy"] == utils.accuracy(checkpoint.network(saved, "last"), images, labels)
    for digit, row in enumerate(metrics["classes"]):
        right, predicted = matrix[digit, digit], matrix[:, digit].sum()
        expected = {
            "precision": right / max(1, predicted),
            "recall": right / row["support"],
            "support": matrix[digit].sum(),
        }
        assert {key: row[key] for key in expected} == pytest.approx(expected)
    assert (metrics["weights"], metrics["dataset"], metrics["seed"]) == ("reported", "digits", 0)
    assert metrics["recipe"] == saved.recipe.to_json()


def test_the_interval_is_wilsons():
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    for right, count, low, high in (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611):
        assert ClassifyTask_test.wilson_interval(right, count) == pytest.approx((low, high), abs=5e-5)
    low, high = ClassifyTask_test.wilson_interval(10, 10)
    assert low < 1 and high == pytest.approx(1)


def test_flags_choose_weights_and_folder(call, trained, tmp_path, monkeypatch, tiny_mnist):
    monkeypatch.setattr(ClassifyTask_test, "draw", lambda *arguments: None)
    folder, metrics = tmp_path / "Record" / "digits", {}
    shutil.copytree(trained[0], folder)
    for weights in "reported", "last":
        call(TEST, *DIGITS, "--weights", weights).succeeded()
        metrics[weights] = json.loads((folder / "metrics.json").read_text())
    reported, last = metrics.values()
    assert last["weights"] == "last"
    assert last["accuracy"] == last["last_accuracy"] == reported["last_accuracy"] != reported["accuracy"]
    call(TEST, "--data-dir", tiny_mnist).refused("no checkpoint at", "Record")
    call(TEST, *DIGITS, "--record-dir", "elsewhere").refused("no checkpoint at", "elsewhere")
    call(TEST, "--checkpoint", folder / FILE, "--record-dir", "elsewhere").succeeded()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["metrics.json"]
    data = ("--data-dir", tiny_mnist)
    call(TEST, "--checkpoint", folder / FILE, *data, "--dataset", "mnist").refused("trained on digits, not mnist")


def test_a_run_of_1998_is_tested_by_its_own_loss(call, tmp_path, monkeypatch, few_digits):
    monkeypatch.setattr(ClassifyTask_test, "draw", lambda *arguments: None)
    for script, *flags in (TRAIN, "--epochs", 1), (TEST,):
        call(script, *DIGITS, "--recipe", "1998", *flags).succeeded()
    folder = tmp_path / "Record" / "1998" / "digits"
    loss = json.loads((folder / "metrics.json").read_text())["loss"]
    assert loss == pytest.approx(checkpoint.load(folder / FILE).history[-1]["test_loss"], rel=1e-5) and loss > math.log(
        10
    )


# ---------------------------------------------------------------------------------------------- bad input


BAD_FLAGS = {
    TRAIN: """--epochs=0 --epochs=-1 --epochs=x --epochs= --epochs=1.5 --epochs=5001 --batch-size=0 --batch-size=1e2
        --lr=0 --lr=-1 --lr=nan --lr=inf --lr=1e9 --lr= --seed=-1 --seed=x --seed=4294967296 --recipe=2024
        --dataset=cifar --dataset --nonsense stray --resume=yes --device=cuda:99 --device= --device=meta""",
    TEST: """--weights=best --recipe=2024 --dataset --checkpoint --nonsense --epochs=2 stray --device=gpu
        --checkpoint=missing""",
}


@pytest.mark.parametrize("script", BAD_FLAGS)
def test_a_bad_flag_is_refused_in_one_line(script, call, command, tmp_path):
    *flags, last = BAD_FLAGS[script].split()
    for run, flag in [*((call, flag) for flag in flags), (command, last)]:
        assert run(script, *DIGITS, flag).refused(script, *flag.split("=")[-1:]).out == ""
    shown = call(script, "--help").succeeded().out
    assert contents(tmp_path) == {} and all(
        f"--{flag}" in shown for flag in ("data-dir DIR", "record-dir DIR", "recipe")
    )


@pytest.mark.parametrize("script", [TRAIN, TEST])
def test_a_damaged_checkpoint_and_a_file_for_a_folder_are_refused_and_stay(script, call, run, tmp_path):
    start, go_on = (
        ((*DIGITS, *MOMENT), (*DIGITS, "--resume")) if script == TRAIN else (("--checkpoint", run / FILE), ())
    )
    (tmp_path / "file").write_text("mine")
    for folder in "file", "file/below":
        call(script, *start, "--record-dir", tmp_path / folder).refused(tmp_path / "file")
    (run / FILE).write_bytes((run / FILE).read_bytes()[:-1])
    before = contents(tmp_path)
    call(script, *go_on, "--record-dir", run, *DIGITS).refused(run / FILE, "damaged")
    assert contents(tmp_path) == before


def test_a_folder_in_the_place_of_the_checkpoint_is_refused(call, tmp_path):
    (tmp_path / "run" / FILE).mkdir(parents=True)
    for flags in (), ("--resume",):
        call(TRAIN, *DIGITS, *MOMENT, *flags, "--record-dir", "run").refused(FILE)
    call(TEST, "--checkpoint", "run").refused("no checkpoint at run")
    assert [path.name for path in tmp_path.rglob("*")] == ["run", FILE]


def test_without_mnist_and_network_the_digits_do_and_this_is_said(command, call, tmp_path):
    for script in TRAIN, TEST:
        call(script, "--dataset", "mnist").refused("train-images-idx3-ubyte.gz is missing", "MNIST's four .gz files")
    assert contents(tmp_path) == {}
    result = command(TRAIN, *MOMENT).succeeded()
    assert result.err.count("WARNING") == 2 and "INSTEAD OF MNIST" in result.err
    assert "LeNet-5 on digits" in result.out and "LeNet-5 on mnist" not in result.out
    assert list(contents(tmp_path)) == [tmp_path / "Record" / "digits" / FILE]


@pytest.mark.parametrize("choice", ["auto", "mnist"])
def test_damaged_or_incomplete_data_never_lead_to_the_digits(choice, call, tiny_mnist, tmp_path):
    archive = tiny_mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    archive.write_bytes(archive.read_bytes()[:-1])
    for script in TRAIN, TEST:
        call(script, "--dataset", choice, "--data-dir", tiny_mnist).refused(archive, "damaged", "delete it")
    archive.unlink()  # three of four files
    call(TRAIN, "--dataset", choice, "--data-dir", tiny_mnist).refused(archive, "is missing")
    assert not (tmp_path / "Record").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no /dev/full, and names are not bytes there")
def test_a_full_disk_under_the_log_and_any_name_of_a_folder(command, call, tmp_path):
    with open("/dev/full", "w") as log:
        command(TRAIN, *DIGITS, *MOMENT, "--record-dir", "run", stdout=log).refused("No space left")
    for name in b"caf\xe9", b"two\nlines", "学 生".encode(), b"%s {0}":
        folder = name.decode("utf-8", "surrogateescape")
        call(TRAIN, *DIGITS, *MOMENT, "--record-dir", folder).succeeded()
        assert [path.name for path in (tmp_path / folder).iterdir()] == [FILE]
        call(TEST, "--checkpoint", f"{folder}/missing").refused("missing")
