"""ClassifyTask_test.py as a user runs it: figures, metrics that agree with the checkpoint, which network it takes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import few_digits, reference
from faults.conftest import DIGITS, FILE, TEST, TRAIN

import ClassifyTask_test
import utils
from digits import mnist as datasets
from training import checkpoint

NAMES = ("training_curve", "ConfusionMatrix", "Result_of_LeNet_Training", "misclassified", "lenet")
WRITTEN = {FILE, "metrics.json", *(f"{name}.png" for name in NAMES)}


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(ClassifyTask_test, "draw_digits", lambda *arguments: None)


def metrics_in(folder):
    return json.loads((folder / "metrics.json").read_text())


def files(folder):
    return {path.name for path in folder.iterdir()}


def test_real_mnist_from_training_to_figures(mnist, call, tmp_path):
    flags = ("--epochs", 1, "--batch-size", 500, "--lr", 0.005, "--no-augment", "--record-dir", "Record")
    call(TRAIN, "--data-dir", mnist, *flags).succeeded()
    result = call(TEST, "--data-dir", mnist).succeeded()
    assert result.err == "" and "LeNet-5 on mnist" in result.out and "errors in 10,000 digits" in result.out
    metrics = metrics_in(tmp_path / "Record")
    assert 0.93 < metrics["accuracy"] < 0.995 and metrics["dataset"] == "mnist"
    assert files(tmp_path / "Record") == WRITTEN


def test_all_is_written_and_the_metrics_agree_with_the_checkpoint(call, trained, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "run")
    _, out, err = call(TEST, "--checkpoint", folder / FILE).succeeded()
    assert files(folder) == WRITTEN and err == ""
    metrics, saved = metrics_in(folder), checkpoint.load(folder / FILE)
    matrix, test_set = np.array(metrics["confusion_matrix"]), datasets.load_dataset("digits", None, "test")
    low, high = metrics["interval"]
    assert f"accuracy {metrics['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}" in out
    assert f"{metrics['errors']} errors in 360 digits" in out
    assert [low, high] == ClassifyTask_test.wilson_interval(int(matrix.trace()), 360)
    assert matrix.sum(1).tolist() == test_set[1].bincount().tolist()
    assert metrics["errors"] == matrix.sum() - matrix.trace() > 0
    assert metrics["accuracy"] == matrix.trace() / 360 == saved.history[-1]["test_accuracy"]
    assert metrics["loss"] == pytest.approx(saved.history[-1]["test_loss"], rel=1e-5)
    assert metrics["last_accuracy"] == utils.accuracy(checkpoint.network(saved, last=True), *test_set)
    for digit, row in enumerate(metrics["classes"]):
        right = matrix[digit, digit]
        assert row["precision"] == pytest.approx(right / max(1, matrix[:, digit].sum()))
        assert row["recall"] == pytest.approx(right / row["support"]) and row["support"] == matrix[digit].sum()
        assert f"{digit}: {row['support'] - right}" in out.partition("by class")[2]
    assert (metrics["weights"], metrics["dataset"], metrics["seed"]) == ("ema", "digits", 0)
    assert metrics["recipe"] == saved.recipe.to_json() and set(saved.versions) < set(metrics["versions"])


def test_the_interval_is_wilsons():
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    for right, count, low, high in (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611):
        assert ClassifyTask_test.wilson_interval(right, count) == pytest.approx((low, high), abs=5e-5)


def test_flags_choose_weights_and_folder(call, trained, tmp_path, no_figures):
    folder = shutil.copytree(trained[0], tmp_path / "Record" / "default-digits")
    ema, last = (call(TEST, *DIGITS, "--weights", w).succeeded() and metrics_in(folder) for w in ("ema", "last"))
    assert last["weights"] == "last"
    assert last["accuracy"] == last["last_accuracy"] == ema["last_accuracy"] != ema["accuracy"]
    call(TEST, "--checkpoint", folder / FILE, "--record-dir", "elsewhere").succeeded()
    assert files(tmp_path / "elsewhere") == {"metrics.json"}
    contradictions = {
        "--dataset=mnist": "trained on digits, not mnist",
        "--recipe=1998": "trained by recipe default, not 1998",
        "--no-augment": "trained with augmentation True, not False",
    }
    for flag, words in contradictions.items():
        call(TEST, "--checkpoint", folder / FILE, flag).refused(words, f"leave {flag.split('=')[0]} out")
    call(TEST, "--checkpoint", folder / FILE, "--recipe", "default", "--augment").succeeded()
    call(TEST, *DIGITS, "--no-augment").refused(f"no checkpoint at Record/default-no-augment-digits/{FILE}")


def test_a_run_of_1998_is_tested_by_its_own_loss(call, tmp_path, monkeypatch, no_figures):
    monkeypatch.setattr(datasets, "load_dataset", few_digits)
    flags, folder = (*DIGITS, "--recipe", "1998"), tmp_path / "Record" / "1998-digits"
    call(TRAIN, *flags, "--epochs", 1).succeeded()
    call(TEST, *flags).succeeded()
    loss = checkpoint.load(folder / FILE).history[-1]["test_loss"]
    assert metrics_in(folder)["loss"] == pytest.approx(loss, rel=1e-5)
    call(TEST, *flags, "--weights", "ema").refused("keeps no average", "leave --weights out")


def test_without_a_run_of_ones_own_the_network_shipped_is_tested(call, tiny_mnist, tmp_path, no_figures):
    flags, record, shipped = (TEST, "--data-dir", tiny_mnist), tmp_path / "Record", tmp_path / "Record" / "reference"
    call(*flags).refused(f"no checkpoint at Record/{FILE}")
    checkpoint.save(shipped / FILE, replace(reference(), seed=1))
    said = f"no training run of yours in Record: this is the network shipped, Record/reference/{FILE}\n"
    assert call(*flags).succeeded().out.startswith(said)
    checkpoint.save(record / "fast" / FILE, reference())
    assert " in Record (--record-dir names one of Record/fast): this is" in call(*flags).succeeded().out
    call(*flags, "--checkpoint", shipped / FILE).succeeded()
    assert metrics_in(record)["seed"] == 1 and files(shipped) == {FILE}
    call(*flags, "--record-dir", "empty").refused(f"no checkpoint at empty/{FILE}")
    checkpoint.save(record / FILE, replace(reference(), seed=2))
    assert "shipped" not in call(*flags).succeeded().out and metrics_in(record)["seed"] == 2
    assert "shipped" not in call(*flags, "--reference").succeeded().out and metrics_in(shipped)["seed"] == 1


def test_a_network_for_numbers_is_tested_on_lines(call, tmp_path, monkeypatch):
    monkeypatch.setattr(ClassifyTask_test, "LINES", 60)
    folder = tmp_path / "Record" / "numbers-digits"
    checkpoint.save(folder / FILE, replace(reference("numbers"), dataset="digits"))
    result = call(TEST, *DIGITS, "--recipe", "numbers").succeeded()
    assert files(folder) == {FILE, "training_curve.png", "sweep.png", "metrics.json"}
    metrics = metrics_in(folder)
    errors, lines = metrics["errors_by_length"], metrics["lines_by_length"]
    assert list(errors) == list(lines) == list("123456") and metrics["lines"] == sum(lines.values()) == 60
    assert metrics["errors"] == sum(errors.values()) == 60 - round(60 * metrics["accuracy"]) < 30
    lengths = "  ".join(f"{n}: {errors[n]} of {lines[n]}" for n in lines)
    assert f"{metrics['errors']} errors in 60 lines; by their number of digits: {lengths}\n" in result.out
