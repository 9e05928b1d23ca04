"""Numbers: the sweep is the network at every place, CTC defines what is read, and a recipe trains it by the loop."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from conftest import same

from digits.lines import sample_lines
from digits.mnist import Data, load_dataset
from model import LeNet5, normalize
from reading import ctc
from reading import sweep as reading
from reading.sweep import NONE
from training import checkpoint, loop
from training.recipes import RECIPES
from training.state import State

NUMBERS = RECIPES["numbers"].override(epochs=2)
TRAIN, TEST = ([t[:640] for t in load_dataset("digits", None, part)] for part in ("train", "test"))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return LeNet5(**RECIPES["numbers"].model_arguments)


@pytest.mark.parametrize("width", [34, 35, 36, 61])
def test_each_place_has_the_logits_of_its_window(network, width, monkeypatch):
    """Also by CUDA's way to compute C5."""
    lines = torch.rand(3, 1, 32, width, generator=torch.Generator().manual_seed(width))
    logits = reading.sweep(network, lines)
    assert logits.shape == (3, (width - 32) // 2 + 1, 11)
    for place in range(logits.shape[1]):
        torch.testing.assert_close(logits[:, place], network(lines[..., 2 * place : 2 * place + 32]))
    monkeypatch.setattr(reading, "every_second_column", reading.even_and_odd_columns)
    torch.testing.assert_close(reading.sweep(network, lines), logits)
    for shape in (31, width), (32, 31):
        with pytest.raises(ValueError, match="{}x{}".format(*shape)):
            reading.sweep(network, torch.zeros(1, 1, *shape))


def likelihoods(logits):
    """Every number's probability, by adding up all paths: the definition of CTC."""
    p = logits.softmax(1).tolist()
    found = {}
    for path in itertools.product(range(11), repeat=len(p)):
        number = tuple(digit for digit, _ in itertools.groupby(path) if digit != NONE)
        found[number] = found.get(number, 0) + math.prod(row[digit] for row, digit in zip(p, path))
    return found


def test_the_best_path_and_the_likeliest_numbers():
    """In `two_ways` they differ: three paths read 7, and the likeliest path reads nothing."""
    logits = torch.randn(4, 11, generator=torch.Generator().manual_seed(1)) * 2
    expected = sorted(likelihoods(logits).items(), key=lambda item: -item[1])
    found = reading.beam_search(logits, width=4000)
    for (number, log_p), (right, probability) in zip(found[:5], expected):
        assert number == right and math.exp(log_p) == pytest.approx(probability, rel=1e-4)
    two_ways = torch.full((2, 11), -50.0)
    two_ways[:, NONE], two_ways[:, 7] = math.log(0.6), math.log(0.4)
    assert reading.best_path(two_ways[None]) == [[]] and reading.beam_search(two_ways)[0][0] == (7,)
    logits = torch.eye(11)[torch.tensor([[NONE, 1, 1, NONE, 1, 0, 0], [NONE] * 7])]
    assert reading.best_path(logits) == [[1, 1, 0], []]
    assert reading.best_places(logits[0]) == [(1.5, 1), (4, 1), (5.5, 0)]


def test_the_loss_and_the_probability_of_digits():
    logits = torch.randn(4, 11, generator=torch.Generator().manual_seed(2))
    p = likelihoods(logits)
    loss = reading.ctc_losses(logits[None], torch.tensor([3, 3]), torch.tensor([2]))
    assert loss.item() == pytest.approx(-math.log(p[3, 3]), rel=1e-4)
    first, second = reading.digit_probabilities(logits, (3, 8))
    assert first == pytest.approx(p[3, 8] / sum(p[digit, 8] for digit in range(10)), rel=1e-4)
    assert second == pytest.approx(p[3, 8] / sum(p[3, digit] for digit in range(10)), rel=1e-4)
    logits = torch.randn(2, 3, 11, requires_grad=True)  # the second line is too narrow for its digits
    losses = reading.ctc_losses(logits, torch.tensor([5, 1, 2, 3, 4]), torch.tensor([1, 4]))
    losses.sum().backward()
    assert losses[0] > 0 and losses[1] == 0
    assert logits.grad[0].any() and logits.grad.isfinite().all() and not logits.grad[1].any()


def test_a_reading_has_the_number_its_probability_and_the_runner_up(network):
    network.output.weight.data *= 30  # it is as sure as a trained one
    line = np.random.default_rng(0).integers(0, 256, (32, 38), np.uint8)
    found = reading.read(network, line)
    logits = reading.sweep(network, normalize(torch.from_numpy(line)[None]))[0].detach()
    (best, probability), (second, _) = sorted(likelihoods(logits).items(), key=lambda item: -item[1])[:2]
    assert found.number == "".join(map(str, best)) and found.runner_up == "".join(map(str, second))
    assert found.probability == pytest.approx(probability, rel=1e-4) and len(found.digits) == len(best)
    torch.testing.assert_close(found.logits, logits)


@pytest.fixture(scope="module")
def initial():
    torch.manual_seed(0)
    return LeNet5(activation="relu")


@pytest.fixture
def state(initial, monkeypatch):
    """A state with a digit network's weights and a large learning rate; few lines are enough for a test."""
    monkeypatch.setattr(ctc, "TEST_LINES", 60)
    state = State(dataclasses.replace(NUMBERS, learning_rates=(0.01,)), 0, TRAIN, initial)
    state.generator = np.random.default_rng(5)
    return state


def test_the_common_loop_trains_it_and_resumed_is_uninterrupted_bit_for_bit(initial, state, tmp_path, monkeypatch):
    def train(seed, found=None):
        return loop.train(NUMBERS, Data("digits", TRAIN, TEST), seed, found, ctc.ctc, initial)

    monkeypatch.setattr(loop, "AugmentedImages", lambda *_: pytest.fail("images that no step reads"))
    first, second = train(1)
    checkpoint.save(tmp_path / checkpoint.FILE, first)
    assert same(*train(1, checkpoint.load(tmp_path / checkpoint.FILE)), second) and same(next(train(1)), first)
    assert second.history[1]["train_loss"] < second.history[0]["train_loss"] and second.history[1]["path"] == "plain"
    assert not torch.equal(next(train(2)).last["c1.weight"], first.last["c1.weight"])


def test_it_starts_from_the_digit_network_steps_on_new_lines_and_the_average_follows(initial, state):
    images, made, weights = torch.randn(3, 1, 32, 32), ctc.ctc(state, NUMBERS), []
    logits = state.model(images)
    torch.testing.assert_close(logits[:, :10], initial(images))
    assert not logits[:, 10].any()  # the new class
    for row in torch.arange(3 * 128).view(3, 128):
        before = state.weights.clone()
        made.run(row[None])
        assert (state.weights - before).abs().max() > 1e-3
        weights.append(state.weights.clone())
    torch.testing.assert_close(state.ema, torch.stack(weights).mean(0))  # in the first epoch
    assert made.augments and state.step_count.eq(3).all()
    loss, correct, count = state.totals.tolist()
    assert loss > 0 and 0 <= correct <= count and 3 * 17 <= count <= 3 * 136


def test_lines_are_made_of_the_digits_chosen_and_a_sixteenth_are_empty(state):
    lengths, chosen = set(), torch.arange(200, 328)
    for _ in range(60):
        lines, digits, counts = ctc.draw_lines(state, NUMBERS, chosen)
        length, full = counts[0], 128 // counts[0]
        assert counts.tolist() == [length] * full + [0] * -(-full // 16)
        assert lines.shape[:2] == (len(counts), 32) and torch.equal(digits, TRAIN[1][200 : 200 + full * length])
        lengths.add(int(length))
    assert lengths == set(range(1, 9))
    assert ctc.draw_lines(state, NUMBERS, chosen[:1])[2].tolist() == [1, 0]


def test_lines_are_evened_if_the_recipe_says_so(state):
    """Then most are 20 pixels high; the others' digits vary in size and place."""
    shares = []
    for evened in 0.0, 1.0:
        recipe, heights = dataclasses.replace(NUMBERS, evened=evened), []
        for _ in range(20):
            lines, _, counts = ctc.draw_lines(state, recipe, torch.arange(128))
            heights += lines[counts > 0].gt(96).any(2).sum(1).tolist()
        shares.append(np.mean(np.abs(np.array(heights) - 20) <= 1))
    assert shares[0] < 0.5 < shares[1], shares


def test_the_test_reads_lines_of_test_digits_with_the_averaged_weights(state):
    state.weights.zero_()  # these are not tested
    losses, correct = [], []
    for lines, numbers in sample_lines(TEST, 60, np.random.default_rng(ctc.TEST_SEED)):
        for logits, number in zip(reading.sweep(state.tested, normalize(lines)), numbers):
            losses.append(reading.ctc_losses(logits[None], torch.tensor(number), torch.tensor([len(number)])).item())
            correct.append(reading.best_path(logits[None]) == [number])
    row = ctc.ctc(state, NUMBERS).evaluate(TEST)
    assert row == pytest.approx({"test_loss": np.mean(losses), "test_accuracy": np.mean(correct)}, rel=1e-5)
