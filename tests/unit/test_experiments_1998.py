"""Experiments about the paper's other networks, rejection, calibration and writers: what they write, and statistics."""

import gzip

import numpy as np
import pytest
import torch
from test_experiments import STUDY, TINY, read, rehearse, start, write  # noqa: F401, two of them are fixtures
from torch.nn import functional as F

from ClassifyTask_test import wilson_interval
from digits import mnist
from experiments import rejection, results, section_3, writers
from experiments.runner import Context
from model import TableConvolution
from training.optimizer import propagate_back
from utils import UserError


def test_the_networks_are_those_of_the_paper():
    """Their sizes are; and the curvature of the output's weights is what its definition gives."""
    torch.manual_seed(0)
    images = torch.rand(3, 1, 32, 32)
    for name, parameters in ("lenet-1", 2_578), ("lenet-4", 16_998):
        network = section_3.build(name)
        assert sum(p.numel() for p in network.parameters()) == parameters
        logits = network(images)
        assert logits.shape == (3, 10) and torch.allclose(network(images[1:2]), logits[1:2], atol=1e-6)
        h = propagate_back(list(network), images, torch.ones_like)
        assert [each.shape for each in h] == [p.shape for p in network.parameters()]
        assert h[-1].tolist() == pytest.approx([1.0] * 10)  # each output's own bias
        states = network[:-2](images)  # (3, 12, 4, 4) or (3, 120, 1, 1)
        assert torch.allclose(h[-2][0], states.square().mean(0), atol=1e-6)
    sparse, table = network[7], TableConvolution(16, section_3.UNITS)
    table.load_state_dict(sparse.state_dict())
    maps = torch.rand(2, 16, 5, 5)
    assert torch.allclose(sparse(maps), table(maps), atol=1e-5)
    border = network[0](images) - network[0](F.pad(images[..., 2:-2, 2:-2], (2, 2, 2, 2)))
    assert border.abs().max() > 0  # LeNet-4 sees all 32x32
    small = section_3.build("lenet-1")
    assert torch.equal(small(images), small(F.pad(images[..., 2:-2, 2:-2], (2, 2, 2, 2))))
    square = torch.zeros(1, 28, 28, dtype=torch.uint8)
    square[:, 4:24, 4:24] = 255
    assert section_3.prepared("lenet-1", square).float().sum() / 255 == pytest.approx(16 * 16, abs=1)


def test_section_3_chooses_by_validation_and_rejection_reads_its_logits(rehearse, monkeypatch):  # noqa: F811
    asked, load, validation = [], mnist.load_dataset, Context.validation
    monkeypatch.setattr(mnist, "load_dataset", lambda *args: asked.append(args[2]) or load(*args))
    monkeypatch.setattr(Context, "validation", lambda context: asked.append("validation") or validation(context))
    monkeypatch.setattr(section_3, "ROUNDS", 2)
    found = rehearse("section_3")
    assert asked.count("validation") == 4 and "validation" not in asked[asked.index("test") :]
    tried = [run for run in found["runs"] if run["variant"] not in section_3.TITLES]
    assert len(tried) == 4
    for name in "lenet-1", "lenet-4":
        accuracies = {run["factor"]: run["accuracy"] for run in tried if run["network"] == name}
        assert accuracies[found["factors"][name]] == max(accuracies.values()) > min(accuracies.values())
    runs = {run["variant"]: run for run in found["runs"]}
    assert runs["lenet-4"]["factor"] == runs["boosted-lenet-4"]["factor"] == found["factors"]["lenet-4"]
    assert runs["boosted-lenet-4"]["parameters"] == 3 * runs["lenet-4"]["parameters"]
    assert runs["boosted-lenet-4"]["sizes"][0] == 100 and len(runs["boosted-lenet-4"]["members"]) == 3
    labels = mnist.load_dataset("digits", None, "test")[1]
    for name in section_3.TITLES:
        logits = np.load(TINY / "networks" / f"{name}-0.npy")
        assert logits.dtype == np.float32 and logits.shape == (100, 10)
        assert (logits.argmax(1) == labels.numpy()).mean() == runs[name]["accuracy"]
    before = (TINY / "networks" / "lenet-1-0.npy").read_bytes()
    (TINY / "networks" / "lenet-1-0.npy").unlink()
    few = [*section_3.TITLES, "default", "1998"]
    monkeypatch.setattr(rejection, "TITLES", {name: rejection.TITLES[name] for name in few})
    content = rehearse("rejection")
    assert (TINY / "networks" / "lenet-1-0.npy").read_bytes() == before  # trained again
    shown = {run["variant"]: run for run in content["runs"]}
    assert list(shown) == few and (TINY / "rejection.png").exists()
    for name, run in shown.items():
        assert run["curve"][0] == pytest.approx(1 - run["accuracy"])
        assert ("bins" in run) == (name in rejection.OURS)
    best, second = np.sort(np.load(TINY / "networks" / "lenet-4-0.npy"))[:, :-3:-1].T
    sure = np.argsort(second - best)[: round(100 * (1 - rejection.SHARES[-1]))]
    right = np.load(TINY / "networks" / "lenet-4-0.npy").argmax(1) == labels.numpy()
    assert shown["lenet-4"]["curve"][-1] == pytest.approx(1 - right[sure].mean())
    made = rejection.tables(content)
    assert "| LeNet-1 | 1 |" in made["rejection"] and made["rejection"].splitlines()[2].endswith("| 3.7 |")
    assert "LeNet-1" not in made["calibration"]
    (TINY / "networks" / "lenet-1-0.npy").write_bytes(b"")
    with pytest.raises(UserError, match="lenet-1-0.npy is damaged; delete it"):
        section_3.logits(Context("", "digits", tiny=True), "lenet-1", 0)


def test_boosting_learns_on_what_was_misclassified_and_on_what_is_disputed(monkeypatch):
    """Networks that answer by the images alone stand in for trained ones."""
    answers = [lambda i: i % 4 % 3, lambda i: i % 4 % 2, lambda i: i * 0]  # of images whose grey level is i
    sets = []

    def train(variant, digits, size, rates, factor, draws, strength=0.0):
        sets.append((digits, size, strength))
        answer = answers[len(sets) - 1]
        return lambda inputs: F.one_hot(answer((inputs[:, 0, 0, 0] * 100).round().long()), 10).float()

    images = torch.arange(40, dtype=torch.uint8).view(-1, 1, 1).expand(-1, 32, 32)
    monkeypatch.setattr(section_3, "train", train)
    monkeypatch.setattr(section_3, "augment", lambda images, *_: images)
    monkeypatch.setattr("utils.normalize", lambda images: images[:, None] / 100)
    networks, sizes = section_3.boost((images, torch.arange(40) % 4), [1.0], 1.0, np.random.default_rng(0))
    (_, *first), ((mixed, labels), *second), ((disputed, _), *third) = sets
    assert (first, second, third) == ([40, 0.7], [40, 0.0], [40, 0.0])
    wrong = labels == 3  # the first network answers 0 to each 3, the others it classifies correctly
    assert int(wrong.sum()) == int((~wrong).sum()) == 10 * section_3.ROUNDS
    assert sorted(set((disputed[:, 0, 0] % 4).tolist())) == [2, 3]  # 2: 2 and 0; 3: 0 and 1
    assert sizes == [40, 20 * section_3.ROUNDS, 20 * section_3.ROUNDS] and len(networks) == 3


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
