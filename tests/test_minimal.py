"""The page of the lecture takes the steps of the training script."""

import dataclasses

import pytest
import torch

import minimal
import mnist
import utils
from recipes import RECIPES
from training import train


@pytest.mark.parametrize("epochs", [1, 2])
def test_minimal_is_the_plain_training(epochs):
    train_set, test_set = (mnist.load_dataset("digits", None, subset) for subset in ("train", "test"))
    model = minimal.train(*train_set, epochs)
    recipe = dataclasses.replace(RECIPES["adam"].override(epochs, None, None), distort=False)
    *_, trained = train(recipe, "digits", 0, train_set, test_set, plain=True)
    found, expected = (torch.cat([w.flatten() for w in state.values()]) for state in (model.state_dict(), trained.last))
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert minimal.accuracy(model, *test_set) == pytest.approx(utils.accuracy(model, *test_set))
    assert 0.1 < minimal.accuracy(model, *test_set) < 1
