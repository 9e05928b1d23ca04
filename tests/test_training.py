"""The loop and its state: what an epoch changes, what it reports, and that it is the same whenever it is run."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from conftest import same

import mnist
import training
import utils
from model import pad, scale
from recipes import RECIPES
from training import State, train

ADAM = dataclasses.replace(RECIPES["adam"], learning_rates=(0.0005,) * 3, distort=False)
OF_1998 = dataclasses.replace(RECIPES["1998"], learning_rates=(0.0005, 0.0005, 0.0002))
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
    assert [saved.epoch for saved in whole] == [1, 2, 3]
    assert all(same(one, other) for one, other in zip(whole[1:], resumed, strict=True))
    assert same(first, whole[0])  # later epochs change no checkpoint


@RECIPE
def test_same_seed_same_bits_and_another_seed_others(recipe):
    found = [run(recipe.override(1), seed)[0] for seed in (1, 0, 2**32 - 1, 1)]
    assert same(found[0], found[3])
    assert len({tuple(flat(saved.last).tolist()) for saved in found}) == 3


def test_each_epoch_sees_every_digit_once_in_an_order_of_its_own():
    state, orders = State(ADAM, 0, digits()[0]), []
    for epoch in 1, 2:
        chunks = training.shuffled(state, training.random(0, epoch, training.SHUFFLE))
        orders.append(torch.cat([chunk.flatten() for chunk in chunks]).tolist())
        assert sorted(orders[-1]) == list(range(70))
    assert orders[0] != orders[1]


@RECIPE
def test_each_epoch_has_its_learning_rate(recipe):
    first, second = run(dataclasses.replace(recipe, learning_rates=(0.0005, 1e-12)))
    begun = flat(dict(State(recipe, 1, digits()[0]).model.named_parameters())).detach()
    assert (flat(first.last) - begun).norm() > 1e-2
    assert (flat(second.last) - flat(first.last)).norm() < 1e-6
    if recipe is OF_1998:
        assert second.history[1]["step_range"][1] <= 1e-12 / 0.02 < first.history[0]["step_range"][0]


@RECIPE
@PLAIN
def test_a_row_tells_the_losses_and_accuracies(recipe, plain):
    """With steps of almost nothing they are those of the initial network."""
    (row,) = run(dataclasses.replace(recipe, learning_rates=(1e-12,)), plain=plain)[0].history
    model = State(recipe, 1, digits()[0]).model
    for subset, (images, labels) in zip(("train", "test"), digits()):
        losses = recipe.losses(model(scale(pad(images))), labels)
        assert row[f"{subset}_loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
        assert row[f"{subset}_accuracy"] == pytest.approx(utils.accuracy(model, images, labels), abs=1e-9)
    assert row["epoch"] == 1 and 0 < row["seconds"] < 100
    assert row["path"] == ("plain" if plain else "compiled")


def test_progress_is_told_digit_by_digit(monkeypatch):
    monkeypatch.setattr(training, "CHUNK", 2)
    told = []
    *_, last = run(ADAM, progress=lambda epoch, digits, totals: told.append((epoch, digits, *totals.tolist())))
    assert [call[:2] for call in told] == [(epoch, count) for epoch in (1, 2, 3) for count in (64, 70)]
    row, (*_, loss, right) = last.history[-1], told[-1]
    assert (row["train_loss"], row["train_accuracy"]) == (loss / 70, right / 70)


def test_fewer_digits_than_a_batch_are_one_batch():
    (last,) = train(ADAM.override(1, 500), "digits", 0, *digits())
    (as_one,) = train(ADAM.override(1, 70), "digits", 0, *digits())
    assert torch.equal(flat(last.last), flat(as_one.last))
