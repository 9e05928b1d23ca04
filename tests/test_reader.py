"""reader.py: the sweep is the network at every place, numbers are decoded as defined, lines are made as described."""

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch
from conftest import reference, same

import checkpoint
import reader
from mnist import load_dataset
from model import LeNet5
from reader import NONE, RECIPE
from recipes import RECIPES
from training import train


@pytest.fixture
def network():
    torch.manual_seed(0)
    return LeNet5(**RECIPE.network)


@pytest.mark.parametrize("width", [34, 35, 36, 61])
def test_each_place_has_the_scores_of_its_window(network, width):
    lines = torch.rand(3, 1, 32, width, generator=torch.Generator().manual_seed(width))
    scores = reader.sweep(network, lines)
    assert scores.shape == (3, (width - 32) // 2 + 1, 11)
    for place in range(scores.shape[1]):
        torch.testing.assert_close(scores[:, place], network(lines[..., 2 * place : 2 * place + 32]))


def test_the_sweep_refuses_other_heights(network):
    with pytest.raises(ValueError, match="31x40"):
        reader.sweep(network, torch.zeros(1, 1, 31, 40))


def likelihoods(scores):
    """Every number's probability, by adding up all paths: the definition of CTC."""
    p = scores.softmax(1).tolist()
    found = {}
    for path in itertools.product(range(11), repeat=len(p)):
        number = tuple(digit for digit, _ in itertools.groupby(path) if digit != NONE)
        found[number] = found.get(number, 0) + math.prod(row[digit] for row, digit in zip(p, path))
    return found


def test_numbers_and_their_probabilities():
    """At the end best path and likeliest number differ: three paths read 7, and the likeliest path reads nothing."""
    scores = torch.randn(4, 11, generator=torch.Generator().manual_seed(1)) * 2
    expected = sorted(likelihoods(scores).items(), key=lambda item: -item[1])
    found = reader.beam_search(scores, width=4000)
    for (number, log_p), (right, probability) in zip(found[:5], expected):
        assert number == right and math.exp(log_p) == pytest.approx(probability, rel=1e-4)
    two_ways = torch.full((2, 11), -50.0)
    two_ways[:, NONE], two_ways[:, 7] = math.log(0.6), math.log(0.4)
    assert reader.best_path(two_ways[None]) == [[]] and reader.beam_search(two_ways)[0][0] == (7,)


def test_the_loss_and_the_probability_of_digits():
    scores = torch.randn(4, 11, generator=torch.Generator().manual_seed(2))
    p = likelihoods(scores)
    loss = reader.ctc_losses(scores[None], torch.tensor([3, 3]), torch.tensor([2]))
    assert loss.item() == pytest.approx(-math.log(p[3, 3]), rel=1e-4)
    first, second = reader.digit_probabilities(scores, (3, 8))
    assert first == pytest.approx(p[3, 8] / sum(p[digit, 8] for digit in range(10)), rel=1e-4)
    assert second == pytest.approx(p[3, 8] / sum(p[3, digit] for digit in range(10)), rel=1e-4)


def test_best_path():
    scores = torch.nn.functional.one_hot(torch.tensor([[NONE, 1, 1, NONE, 1, 0, 0], [NONE] * 7]), 11).float()
    assert reader.best_path(scores) == [[1, 1, 0], []]
    assert reader.best_places(scores[0]) == [(1.5, 1), (4, 1), (5.5, 0)]


@pytest.fixture(scope="module")
def sets():
    return [load_dataset("digits", Path("data"), subset) for subset in ("train", "test")]


def test_resumed_is_uninterrupted_bit_for_bit(sets, tmp_path):
    recipe = RECIPE.override(epochs=2)
    start = LeNet5(activation="relu")
    first, second = reader.train(recipe, "digits", 1, *sets, start)
    checkpoint.save(tmp_path / checkpoint.FILE, first)
    (resumed,) = reader.train(recipe, "digits", 1, *sets, start, checkpoint.load(tmp_path / checkpoint.FILE))
    assert same(resumed, second)
    assert second.history[1]["train_loss"] < second.history[0]["train_loss"]


@pytest.fixture(scope="module")
def start(sets, tmp_path_factory):
    """A file of a network to start from: the recipe best, hardly trained."""
    recipe = dataclasses.replace(RECIPES["best"].override(epochs=1), distort=False)
    (trained,) = train(recipe, "digits", 0, *sets, plain=True)
    path = tmp_path_factory.mktemp("best") / checkpoint.FILE
    checkpoint.save(path, trained)
    return path


def test_the_script_trains_and_resumes(call, start):
    run = call("reader.py", "--dataset", "digits", "--epochs", 1, "--start", start).succeeded()
    file = f"Record/numbers/digits/{checkpoint.FILE}"
    assert "test lines are read" in run.out and file in run.out
    again = call("reader.py", "--dataset", "digits", "--resume").succeeded()
    assert "nothing is left to do" in again.out
    call("reader.py", "--dataset", "digits", "--resume", "--seed", 3).refused("seed 0, not 3")
    call("ClassifyTask_test.py", "--checkpoint", file).refused("reads whole numbers", "experiments.numbers")


def test_mistakes(call, tmp_path):
    call("reader.py", "--dataset", "digits").refused(f"no digit network at Record/best/digits/{checkpoint.FILE}")
    checkpoint.save(tmp_path / "default.safetensors", reference())
    call("reader.py", "--dataset", "digits", "--start", "default.safetensors").refused("default", "--recipe best")
    checkpoint.save(tmp_path / "run" / checkpoint.FILE, reference())
    call("reader.py", "--record-dir", "run", "--dataset", "digits", "--resume").refused("run", "no network for numbers")
