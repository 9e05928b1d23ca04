"""The scripts as a user runs them: what they print, write and refuse."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, contents, few_digits

import checkpoint
import ClassifyTask_test
import mnist as datasets
import utils
from checkpoint import FILE

TRAIN, TEST = "ClassifyTask_train.py", "ClassifyTask_test.py"
DIGITS = ("--dataset", "digits")
MOMENT = ("--epochs", 1, "--batch-size", 500)  # of training
NAMES = ("training_curve", "ConfusionMatrix", "Result_of_LeNet_Training", "misclassified", "lenet")
FIGURES = {f"{name}.png" for name in NAMES}


@pytest.fixture
def run(trained, tmp_path):
    """A folder of one's own with a trained checkpoint in it."""
    return shutil.copytree(trained[0], tmp_path / "run")


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(ClassifyTask_test, "draw", lambda *arguments: None)


# ---------------------------------------------------------------------------------------------- training


def test_training_says_what_it_does_in_plain_lines(trained):
    folder, (_, out, err) = trained
    assert err == "" and "\r" not in out and "\x1b" not in out
    assert "LeNet-5 on digits, recipe adam, seed 0, device " in out
    lines = out.splitlines()
    epochs = [line for line in lines if line.startswith("epoch")]
    saved = checkpoint.load(folder / FILE)
    accuracies = [row["test_accuracy"] for row in saved.history]
    for number, (line, accuracy) in enumerate(zip(epochs, accuracies, strict=True), 1):
        figures = rf"train loss \d\.\d+, accuracy \d+\.\d+%  test accuracy {accuracy:.2%}  \d+\.\d s"
        assert re.fullmatch(rf"epoch  {number}/2  {figures}", line)
    test_set = datasets.load_dataset("digits", None, "test")
    last = utils.accuracy(checkpoint.network(saved, "last"), *test_set)
    assert utils.accuracy(checkpoint.network(saved), *test_set) == accuracies[-1] > 0.5
    assert f"test accuracy {accuracies[-1]:.2%} of 360 digits" in out and f"the last weights alone: {last:.2%}" in out
    assert lines[-1].endswith(f"python ClassifyTask_test.py --checkpoint {folder / FILE}")


def test_real_mnist_from_training_to_figures(mnist, command, tmp_path):
    command(TRAIN, "--data-dir", mnist, "--epochs", 1, "--batch-size", 100, "--lr", 0.002).succeeded()
    result = command(TEST, "--data-dir", mnist).succeeded()
    assert result.err == "" and "LeNet-5 on mnist" in result.out and "errors in 10,000 digits" in result.out
    assert {path.name for path in (tmp_path / "Record").iterdir()} == FIGURES | {FILE, "metrics.json"}
    metrics = json.loads((tmp_path / "Record" / "metrics.json").read_text())
    assert 0.93 < metrics["accuracy"] < 0.995 and metrics["dataset"] == "mnist"


@pytest.mark.parametrize("flags", [(), ("--recipe", "1998")], ids=["adam", "1998"])
def test_a_diverging_training_is_told_and_what_was_saved_is_kept(flags, call, run, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", few_digits)
    before = contents(run)
    call(TRAIN, *DIGITS, *flags, "--record-dir", run, "--lr", "1e4").refused("diverged in epoch 1", "smaller --lr")
    assert contents(run) == before


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are other things there")
def test_a_reader_that_goes_away_is_one_line(environment, tmp_path):
    command = [sys.executable, ROOT / TRAIN, *DIGITS, "--epochs", "5000", "--record-dir", "run"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, encoding="utf-8", **pipes) as process:
        while not process.stdout.readline().startswith("epoch  1"):
            assert process.poll() is None
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 2 and err.count("\n") == 1 and "pipe" in err


def test_a_finished_run_is_left_alone(call, run):
    before = contents(run)
    result = call(TRAIN, *DIGITS, "--record-dir", run, "--epochs", 2, "--lr", 0.0005, "--resume").succeeded()
    assert "finished" in result.out and result.err == "" and contents(run) == before


CONTRADICTIONS = {
    "--epochs=3": "epochs 2, not 3",
    "--batch-size=64": "batch size 32, not 64",
    "--lr=0.1": "learning rate 0.0005, not 0.1",
    "--seed=1": "seed 0, not 1",
    "--recipe=1998": "recipe adam, not 1998",
    "--dataset=mnist": "data set digits, not mnist",
    "--no-distort": "distortions True, not False",
}


@pytest.mark.parametrize(("flag", "words"), CONTRADICTIONS.items(), ids=CONTRADICTIONS)
def test_a_flag_that_contradicts_the_checkpoint_is_refused(flag, words, call, run, tiny_mnist):
    before = contents(run)
    arguments = (*DIGITS, "--data-dir", tiny_mnist, "--record-dir", run, "--resume")
    call(TRAIN, *arguments, flag).refused(words, FILE)
    assert contents(run) == before


# ---------------------------------------------------------------------------------------------- testing


def test_testing_writes_every_file_and_says_so(tested):
    folder, result = tested
    assert {path.name for path in folder.iterdir()} == FIGURES | {FILE, "metrics.json"} and result.err == ""
    metrics = json.loads((folder / "metrics.json").read_text())
    low, high = metrics["interval"]
    assert f"accuracy {metrics['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}" in result.out
    assert f"{metrics['errors']} errors in 360 digits" in result.out
    by_class = re.findall(r"(\d): (\d+)", result.out.partition("by class")[2])
    assert [int(digit) for digit, _ in by_class] == list(range(10))
    assert sum(int(count) for _, count in by_class) == metrics["errors"]


def test_the_metrics_agree_with_each_other_and_with_the_checkpoint(tested):
    metrics, saved = json.loads((tested[0] / "metrics.json").read_text()), checkpoint.load(tested[0] / FILE)
    matrix, test_set = np.array(metrics["confusion_matrix"]), datasets.load_dataset("digits", None, "test")
    assert matrix.sum(1).tolist() == test_set[1].bincount().tolist()
    assert metrics["errors"] == matrix.sum() - matrix.trace() > 0
    assert metrics["accuracy"] == matrix.trace() / 360 == saved.history[-1]["test_accuracy"]
    assert metrics["loss"] == pytest.approx(saved.history[-1]["test_loss"], rel=1e-5)
    assert metrics["interval"] == list(ClassifyTask_test.wilson_interval(int(matrix.trace()), 360))
    assert metrics["last_accuracy"] == utils.accuracy(checkpoint.network(saved, "last"), *test_set)
    for digit, row in enumerate(metrics["classes"]):
        right = matrix[digit, digit]
        assert row["precision"] == pytest.approx(right / max(1, matrix[:, digit].sum()))
        assert row["recall"] == pytest.approx(right / row["support"])
        assert row["support"] == matrix[digit].sum()
    assert (metrics["weights"], metrics["dataset"], metrics["seed"]) == ("reported", "digits", 0)
    assert metrics["recipe"] == saved.recipe.to_json() and set(saved.versions) < set(metrics["versions"])


def test_the_interval_is_wilsons():
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    for right, count, low, high in (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611):
        assert ClassifyTask_test.wilson_interval(right, count) == pytest.approx((low, high), abs=5e-5)


def test_flags_choose_weights_and_folder(call, trained, tmp_path, tiny_mnist, no_figures):
    folder, metrics = tmp_path / "Record" / "digits", {}
    shutil.copytree(trained[0], folder)
    for weights in "reported", "last":
        call(TEST, *DIGITS, "--weights", weights).succeeded()
        metrics[weights] = json.loads((folder / "metrics.json").read_text())
    reported, last = metrics.values()
    assert last["weights"] == "last"
    assert last["accuracy"] == last["last_accuracy"] == reported["last_accuracy"] != reported["accuracy"]
    call(TEST, "--data-dir", tiny_mnist).refused("no checkpoint at", "Record")
    call(TEST, "--checkpoint", folder / FILE, "--record-dir", "elsewhere").succeeded()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["metrics.json"]
    call(TEST, "--checkpoint", folder / FILE, "--dataset", "mnist").refused("trained on digits, not mnist")


def test_a_run_of_1998_is_tested_by_its_own_loss(call, tmp_path, monkeypatch, no_figures):
    monkeypatch.setattr(datasets, "load_dataset", few_digits)
    call(TRAIN, *DIGITS, "--recipe", "1998", "--epochs", 1).succeeded()
    call(TEST, *DIGITS, "--recipe", "1998").succeeded()
    folder = tmp_path / "Record" / "1998" / "digits"
    loss = json.loads((folder / "metrics.json").read_text())["loss"]
    assert loss == pytest.approx(checkpoint.load(folder / FILE).history[-1]["test_loss"], rel=1e-5)


# ---------------------------------------------------------------------------------------------- bad input


BAD_FLAGS = {
    TRAIN: """--epochs=0 --epochs=-1 --epochs=1.5 --epochs= --epochs=5001 --batch-size=0 --batch-size=1e2
        --lr=0 --lr=-1 --lr=nan --lr=inf --lr=1e9 --seed=-1 --seed=x --seed=4294967296 --recipe=2024
        --dataset=cifar --dataset --nonsense stray --resume=yes --device=cuda:99 --device= --device=meta""",
    TEST: "--weights=best --recipe=2024 --dataset --nonsense --epochs=2 stray --device=gpu --checkpoint=missing",
}


@pytest.mark.parametrize("script", BAD_FLAGS)
def test_a_bad_flag_is_refused_in_one_line(script, call, command, tmp_path):
    flags = BAD_FLAGS[script].split()
    for run, flag in [*((call, flag) for flag in flags), (command, "--nonsense")]:
        assert run(script, *DIGITS, flag).refused(script, *flag.split("=")[-1:]).out == ""
    assert "--record-dir DIR" in call(script, "--help").succeeded().out
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("script", [(TRAIN, *DIGITS, *MOMENT), (TEST, "--checkpoint", f"run/{FILE}")])
def test_a_file_in_the_place_of_the_folder_is_refused_and_stays(script, call, run, tmp_path):
    (tmp_path / "file").write_text("mine")
    before = contents(tmp_path)
    for folder in "file", "file/below":
        call(*script, "--record-dir", tmp_path / folder).refused(tmp_path / "file")
    assert contents(tmp_path) == before


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no /dev/full there")
def test_a_full_disk_under_the_log_is_one_line(command):
    with open("/dev/full", "w") as log:
        command(TRAIN, *DIGITS, *MOMENT, "--record-dir", "run", stdout=log).refused("No space left")
