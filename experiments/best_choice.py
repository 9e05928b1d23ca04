"""Could recipe best be better? Longer training, other augmentation, a longer average: chosen by validation.

python -m experiments best_choice [SETTING ...]     all settings, or those named

Each setting is trained three times, each time without another 10,000 of MNIST's 60,000 training digits, which then
validate it: 30,000 digits in all. The test set takes no part.
"""

import dataclasses
import functools
import math
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from digits import augmentation, mnist
from digits.augmentation import augment
from digits.mnist import Data
from experiments import results, validation
from experiments.runner import Context, Experiment
from training import loop
from training.compiled import compiled
from training.recipes import RECIPES, Recipe, cosine
from training.state import State
from training.steps import Steps

PARTS = 6  # of the training digits, one of which validates


def setting(epochs: int, **changes) -> Recipe:
    return dataclasses.replace(RECIPES["best"], **{"learning_rates": cosine(epochs, 0.001), **changes})


SETTINGS = {  # everything that is tried, in this order
    "100 epochs": setting(100),
    "100 epochs, strength 1": setting(100, strength=1.0),
    "100 epochs, rotation 15": setting(100),
    "100 epochs, rotation 15, elastic 0.8": setting(100, elastic=0.8),
    "100 epochs, width 0.4": setting(100),
    "100 epochs, EMA of 20": setting(100, learning_rates=(0.001,) * 100),
    "200 epochs": setting(200),
}
BESIDES = {"rotation": 15, "width": 0.4, "EMA of": 20}  # degrees; a share; epochs: where a setting's name tells it


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    found = context.tasks({name: SETTINGS[name] for name in context.variants})
    return [
        {**task, "also": {what: most for what, most in BESIDES.items() if what in task["variant"]}} for task in found
    ]


def measure(context: Context, task: dict) -> dict:
    also = dict(task["also"])
    averaging = functools.partial(averaged, also.pop("EMA of", 1))
    augmenting = functools.partial(augment_more, **also)
    with patch.object(augmentation, "augment", augmenting), patch.object(loop, "compiled", averaging):
        return validation.train_and_validate(context, task, without_part(context, task["seed"] % PARTS))


def without_part(context: Context, part: int) -> Data:
    """The training digits alone: those trained on, and as the test set a sixth of them, its number in 0 to 5."""
    images, labels = mnist.load_dataset(context.dataset, context.data_dir, "train")
    held = torch.arange(len(labels)) * PARTS // len(labels) == part
    return Data(context.dataset, *((images[chosen], labels[chosen]) for chosen in (~held, held)))


def averaged(epochs: int, state: State, recipe: Recipe) -> Steps:
    """The compiled steps, with an EMA whose time constant is so many epochs."""
    state.steps_per_epoch *= epochs
    return compiled(state, recipe)


def augment_more(
    images: Tensor,
    generator: np.random.Generator,
    strength: float,
    elastic: float,
    rotation: float = 0.0,
    width: float = 0.0,
) -> Tensor:
    """augment(), and each digit turned by at most `rotation` degrees, either way, its strokes thicker or thinner.

    The width of the strokes: each pixel goes up to this share of the way to the greatest, or least, of its neighbours.
    """
    if not (rotation or width):
        return augment(images, generator, strength, elastic)
    numbers = torch.from_numpy(2 * generator.random((len(images), 2), np.float32) - 1)
    if width:
        images = thickened(images, width * numbers[:, 1])
    angles = math.radians(rotation) * numbers[:, 0]
    turn = torch.stack([angles.cos(), angles.sin(), -angles.sin(), angles.cos()], 1).view(-1, 2, 2)
    straight = augmentation.affine_maps
    with patch.object(augmentation, "affine_maps", lambda amounts: turn @ straight(amounts)):  # the turn comes first
        return augment(images, generator, strength, elastic)


def thickened(images: Tensor, shares: Tensor) -> Tensor:
    """Strokes thicker, or thinner where a share is negative: uint8 (N, 32, 32), shares (N,) -> uint8 (N, 32, 32)."""
    grey = images.float().unsqueeze(1)
    most, least = F.max_pool2d(grey, 3, 1, 1), -F.max_pool2d(-grey, 3, 1, 1)
    shares = shares.view(-1, 1, 1, 1)
    changed = torch.where(shares > 0, grey + shares * (most - grey), grey + shares * (grey - least))
    return changed.squeeze(1).round_().to(torch.uint8)


def summarize(context: Context, runs: list[dict]) -> dict:
    found = results.by_variant(runs)
    return {"variants": {name: found[name] for name in SETTINGS if name in found}}


EXPERIMENT = Experiment(
    tables=results.validation_table,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    seeds=(0, 1, 2),
    variants=tuple(SETTINGS),
    seconds=200,
)
