"""Experiments about rejection, calibration and writers: what they write, and statistics."""

import gzip

import numpy as np
import pytest
import torch
from test_experiments import STUDY, TINY, read, rehearse, start, write  # noqa: F401, two of them are fixtures

from ClassifyTask_test import wilson_interval
from experiments import rejection, results, seeds, writers
from experiments.runner import Context
from model import pad
from utils import class_logits


def test_rejection_of_a_rehearsal(rehearse, monkeypatch):  # noqa: F811
    monkeypatch.setattr(rejection, "TITLES", {name: rejection.TITLES[name] for name in ("default", "1998")})
    content = rehearse("rejection")
    assert [run["variant"] for run in content["runs"]] == ["default", "1998"] and (TINY / "rejection.png").exists()
    assert all(run["curve"][0] == pytest.approx(1 - run["accuracy"]) for run in content["runs"])
    context = Context("", "digits", tiny=True)
    images, labels = context.load().test
    logits = class_logits(seeds.network(context, "1998", 0), pad(images))
    best, second = np.sort(logits.numpy())[:, :-3:-1].T
    sure = np.argsort(second - best)[: round(100 * (1 - rejection.SHARES[-1]))]
    right = (logits.argmax(1) == labels).numpy()
    assert content["runs"][1]["curve"][-1] == pytest.approx(1 - right[sure].mean())
    assert "| the paper's LeNet-1 |  | 1.7 | 3.7 |" in rejection.tables(content)["rejection"]


def test_rejection_and_calibration_by_hand():
    margins, right = torch.tensor([0.1, 5.0, 0.2, 3.0, 4.0]), torch.tensor([True, True, False, False, True])
    errors = rejection.errors_accepted(margins, right)
    assert errors == [0, 0, 1, 2, 2]  # in the order of the margins: 5, 4, then the wrong 3 and 0.2, then 0.1
    assert rejection.rejected(errors, 0) == pytest.approx(3 / 5)
    assert rejection.rejected(errors, 0.4) == 0 and rejection.rejected(errors, 0.35) == pytest.approx(2 / 5)
    assert rejection.rejected([1, 1, 2], 0.1) == 1
    assert rejection.rejected([0] * 199 + [1]) == 0 and rejection.rejected([0] * 198 + [1]) == pytest.approx(1 / 199)
    probabilities = torch.full((4, 10), 0.0)
    probabilities[:, 0] = torch.tensor([1.0, 0.9, 0.9, 0.5])
    probabilities[:, 1] = 1 - probabilities[:, 0]
    found = rejection.calibration(probabilities, torch.tensor([0, 0, 1, 0]))
    # In the bin of 1 a right one; in that of 0.9 one of two is right; that of 0.5 is right.
    assert found["calibration_error"] == pytest.approx((0 + 2 * 0.4 + 0.5) / 4)
    assert found["probability"] == pytest.approx(3.3 / 4)
    assert [bin[0] for bin in found["bins"] if bin[0]] == [1, 2, 1] and found["bins"][14] == [1, 1, 1]


def test_the_interval_of_writers_is_wilsons_for_a_digit_each_and_wide_where_one_writer_has_all_errors():
    errors = np.zeros((1, 1000))
    errors[0, :50] = 1
    for own, wilsons in zip(writers.writer_interval(errors, np.arange(1000)), wilson_interval(50, 1000)):
        assert own == pytest.approx(wilsons, abs=0.002)
    low, high = writers.writer_interval(errors, np.arange(1000) // 50)  # twenty writers, the first one has all errors
    assert low == 0 and high == pytest.approx(3 / 20)
    both = np.concatenate([errors, 0 * errors])  # a second network has none: the means of the bounds
    assert writers.writer_interval(both, np.arange(1000) // 50) == pytest.approx([0, 1.5 / 20])


@pytest.fixture
def some_runs(tiny_mnist):
    wrong = {0: [0, 1, 2, 100], 1: [0, 1, 2, 101]}
    write("seeds", runs=[{"variant": "1998", "seed": seed, "misclassified": digits} for seed, digits in wrong.items()])
    return tiny_mnist


def list_of_writers(labels):
    rows = [(label, 4 * (i < 101), i // 10, 0, 48) for i, label in enumerate(labels)]
    return gzip.compress("".join("\t".join(map(str, row)) + "\n" for row in rows).encode())


def test_writers_are_read_from_either_list(start, some_runs, monkeypatch):  # noqa: F811
    monkeypatch.setitem(results.PAPER, "figure 8", {"errors": [[0, 1, 2], [199, 1, 2]]})
    start("writers").refused("qmnist-test-labels-idx2-int.gz", "data/QMNIST/raw", "told by QMNIST's labels")
    labels, listed = np.arange(200) % 10, some_runs / writers.LIST
    listed.write_bytes(list_of_writers(labels))
    start("writers").succeeded()
    found = read(STUDY / "writers.json")
    assert found["groups"]["students"] == {"digits": 101, "writers": 11}
    assert found["groups"]["employees"] == {"digits": 99, "writers": 10}
    row = found["variants"]["1998"]
    assert row["seeds"] == 2 and row["all"]["error"] == pytest.approx(4 / 200)
    assert row["students"]["error"] == pytest.approx(3.5 / 101) and row["employees"]["error"] == pytest.approx(0.5 / 99)
    assert row["all"]["by_digits"] == pytest.approx(wilson_interval(4, 200)) and (STUDY / "writers.png").exists()
    assert found["variants"]["paper"]["all"]["error"] == 0.01
    rows = [(label, 4 * (i < 101), i // 10, *[0] * 5) for i, label in enumerate([*labels, 9])]
    head = b"".join(number.to_bytes(4, "big") for number in (0x0C02, len(rows), 8))
    path = some_runs / f"{writers.QMNIST}.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(head + np.array(rows, ">i4").tobytes()))
    listed.unlink()
    start("writers").succeeded()
    assert read(STUDY / "writers.json") == found
    for content in list_of_writers(labels), path.read_bytes()[:-20], b"":
        path.write_bytes(content)
        start("writers").refused("qmnist-test-labels-idx2-int.gz is damaged or not of MNIST's test digits")
    path.unlink()
    for content in list_of_writers(labels[::-1]), list_of_writers(labels[:-1]), gzip.compress(b"a\tb\tc\n"), b"no":
        listed.write_bytes(content)
        start("writers").refused("mnist-test-writers.tsv.gz is damaged")


def test_writers_of_a_rehearsal(start):  # noqa: F811
    write("seeds", TINY, runs=[{"variant": "1998", "seed": 0, "accuracy": 0.98, "misclassified": [0, 1]}])
    start("writers", "--tiny").succeeded()
    found = read(TINY / "writers.json")
    assert list(found["variants"]) == ["1998"] and found["groups"]["all"] == {"digits": 360, "writers": 90}
