"""The loop and its state: what an epoch changes, what it reports, and that it is the same whenever it is run."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from conftest import same

import mnist
import training
import utils
from checkpoint import network
from model import LeNet5, pad, scale
from recipes import RECIPES
from training import State, train

ADAM = dataclasses.replace(RECIPES["adam"], learning_rates=(0.0005,) * 3, distort=False)
OF_1998 = dataclasses.replace(RECIPES["1998"], learning_rates=(0.0005, 0.0005, 0.0002))
SIMPLIFIED = {"subsampling": "average", "connection": "full", "activation": "relu"}
RECIPE = pytest.mark.parametrize("recipe", [ADAM, OF_1998], ids=["adam", "1998"])
PLAIN = pytest.mark.parametrize("plain", [False, True], ids=["fastest", "plain"])


def digits(count=70):
    """Few digits for training, the last batch of 32 an odd one, and for testing."""
    return [tuple(t[:count] for t in mnist.load_dataset("digits", None, subset)) for subset in ("train", "test")]


def run(recipe, seed=1, checkpoint=None, plain=False, **options):
    return list(train(recipe, "digits", seed, *digits(), checkpoint, plain, **options))


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


@RECIPE
@PLAIN
def test_resumed_is_uninterrupted_bit_for_bit(recipe, plain):
    whole = run(recipe, plain=plain)
    first = copy.deepcopy(whole[0])
    np.random.seed(5)
    torch.manual_seed(5)
    resumed = run(recipe, checkpoint=first, plain=plain)
    assert [c.epoch for c in whole] == [1, 2, 3]
    assert all(same(one, other) for one, other in zip(whole[1:], resumed, strict=True))
    assert same(first, whole[0])  # later epochs change no checkpoint
    assert not run(recipe, checkpoint=whole[-1], plain=plain)


@RECIPE
@PLAIN
def test_same_seed_same_bits_and_another_seed_others(recipe, plain):
    found = [run(recipe.override(1, None, None), seed, plain=plain)[0] for seed in (1, 0, 2**32 - 1, 1)]
    assert same(found[0], found[3])
    assert len({tuple(flat(checkpoint.last).tolist()) for checkpoint in found}) == 3


def test_random_numbers_are_drawn_for_each_seed_epoch_and_purpose():
    purposes = training.SHUFFLE, training.DISTORTION, training.CURVATURE
    keys = list(itertools.product((0, 1, 2**32 - 1), (0, 1, 2), purposes))
    assert len({training.random(*key).integers(2**62) for key in keys}) == len(keys)
    assert training.random(1, 2, 0).random() == training.random(1, 2, 0).random()


@RECIPE
def test_each_epoch_sees_every_digit_once_in_an_order_of_its_own(recipe):
    state, orders = State(recipe, 0, digits()[0]), []
    for epoch in 1, 2:
        chunks = list(training.shuffled(state, training.random(0, epoch, training.SHUFFLE)))
        orders.append(torch.cat([chunk.flatten() for chunk in chunks]).tolist())
        assert sorted(orders[-1]) == list(range(70))
    assert orders[0] != orders[1]


@RECIPE
def test_everything_is_a_view_of_one_vector(recipe):
    state = State(recipe, 0, digits()[0])
    assert isinstance(state.reported, LeNet5) and (state.reported is state.model) == (not recipe.average)
    vectors = [state.weights, state.gradient, *state.vectors.values()]
    views = [list(state.model.parameters()), [p.grad for p in state.model.parameters()]]
    views += [[state.optimizer.state[p][kind] for p in state.model.parameters()] for kind in state.vectors]
    if recipe.average:
        vectors.append(state.average)
        views.append(list(state.reported.parameters()))
        assert torch.equal(state.average, state.weights)
    assert len({vector.data_ptr() for vector in vectors}) == len(vectors)
    for vector, parts in zip(vectors, views, strict=True):
        with torch.no_grad():
            vector.copy_(torch.arange(vector.numel()))
        assert torch.equal(torch.cat([part.detach().flatten() for part in parts]), vector)


@RECIPE
@PLAIN
def test_nothing_is_replaced_while_training(recipe, plain, monkeypatch):
    states = []

    class Watched(State):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            states.append((self, addresses(self)))

    def addresses(state):
        entries = [entry for p in state.model.parameters() for entry in (p, p.grad, *state.optimizer.state[p].values())]
        vectors = [state.weights, state.gradient, *state.vectors.values(), state.totals, state.learning_rate]
        tensors = [*entries, *vectors, *state.reported.parameters(), state.images, state.labels, state.steps]
        return [tensor.data_ptr() for tensor in tensors] + [id(state.optimizer.param_groups[0]["lr"])]

    monkeypatch.setattr(training, "State", Watched)
    checkpoint = run(recipe, plain=plain)[1]
    run(recipe, checkpoint=checkpoint, plain=plain)
    assert len(states) == 2
    for state, before in states:
        assert addresses(state) == before


@RECIPE
@PLAIN
def test_each_epoch_has_its_learning_rate(recipe, plain):
    first, second = run(dataclasses.replace(recipe, learning_rates=(0.0005, 1e-12)), plain=plain)
    begun = flat(dict(State(recipe, 1, digits()[0]).model.named_parameters())).detach()
    moved, then = (flat(first.last) - begun).norm(), (flat(second.last) - flat(first.last)).norm()
    assert moved > 1e-2 and then < 1e-6
    if recipe is OF_1998:
        assert second.history[1]["step_range"][1] <= 1e-12 / 0.02 < first.history[0]["step_range"][0]


@pytest.mark.parametrize("recipe", [ADAM, dataclasses.replace(OF_1998, batch_size=32)], ids=["adam", "1998"])
@PLAIN
def test_a_row_tells_the_losses_and_accuracies(recipe, plain):
    """With steps of almost nothing they are those of the initial network."""
    (row,) = run(dataclasses.replace(recipe, learning_rates=(1e-12,)), plain=plain)[0].history
    model = State(recipe, 1, digits()[0]).model
    for subset, (images, labels) in zip(("train", "test"), digits()):
        losses = recipe.losses(model(scale(pad(images))), labels)
        assert row[f"{subset}_loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
        assert row[f"{subset}_accuracy"] == pytest.approx(utils.accuracy(model, images, labels), abs=1e-9)
    expected = {"epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds", "path"}
    assert row.keys() - {"step_range"} == expected and row["epoch"] == 1 and 0 < row["seconds"] < 100
    assert row["path"] == "plain" or not plain


@PLAIN
def test_the_test_is_of_the_reported_weights(plain):
    last = run(dataclasses.replace(ADAM, learning_rates=(0.003,) * 3), plain=plain)[-1]
    images, labels = digits()[1]
    for weights in "reported", "last":
        scores = utils.class_scores(network(last, weights), pad(images))
        as_told = last.history[-1]["test_loss"] == pytest.approx(ADAM.losses(scores, labels).mean().item(), rel=1e-4)
        assert as_told == (weights == "reported")


@RECIPE
def test_progress_is_told_digit_by_digit(recipe, monkeypatch):
    monkeypatch.setattr(training, "CHUNK", 2)
    told = []
    *_, last = run(recipe, progress=lambda epoch, digits, totals: told.append((epoch, digits, *totals.tolist())))
    counts = [64, 70] if recipe is ADAM else range(2, 71, 2)
    assert [call[:2] for call in told] == [(epoch, count) for epoch in (1, 2, 3) for count in counts]
    row, (*_, loss, right) = last.history[-1], told[-1]
    assert (row["train_loss"], row["train_accuracy"]) == (loss / 70, right / 70)


@PLAIN
@pytest.mark.parametrize("lr", [1e3, 9e8])
@RECIPE
def test_a_diverging_training_ends_in_one_line_and_keeps_what_was(recipe, lr, plain):
    recipe = dataclasses.replace(recipe, learning_rates=(0.0005, lr))
    first = run(recipe.override(1, None, None), plain=plain)[0]
    epochs = train(recipe, "digits", 1, *digits(), plain=plain)
    assert same(next(epochs), dataclasses.replace(first, recipe=recipe))
    with pytest.raises(utils.UserError, match="diverged in epoch 2: .*take a smaller --lr"):
        next(epochs)


@RECIPE
@PLAIN
def test_a_first_step_to_weights_that_no_file_may_hold_is_a_divergence(recipe, plain):
    with pytest.raises(utils.UserError, match="diverged in epoch 1"):
        run(dataclasses.replace(recipe, learning_rates=(9e8,), batch_size=70), plain=plain)


def test_the_network_of_most_repositories_learns():
    *_, last = run(dataclasses.replace(ADAM, learning_rates=(0.003,) * 12, network=SIMPLIFIED))
    assert last.history[-1]["train_accuracy"] > 0.7 > last.history[0]["train_accuracy"]


def test_a_start_is_drawn_from_the_seed():
    start = {"bound": "2.4/F", "coefficient": 0.25}
    torch.manual_seed(7)
    expected = LeNet5()
    expected.reset_parameters(**start)
    state = State(dataclasses.replace(ADAM, start=start), 7, digits()[0])
    assert torch.equal(state.weights, flat(dict(expected.named_parameters())))


def test_fewer_digits_than_a_batch_are_one_batch():
    (last,) = train(ADAM.override(1, 500, None), "digits", 0, *digits())
    (as_one,) = train(ADAM.override(1, 70, None), "digits", 0, *digits())
    assert torch.equal(flat(last.last), flat(as_one.last))
