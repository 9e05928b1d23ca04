"""Augmentation as the paper did it: 60,000 digits and 540,000 distorted ones, made once; and as this repository does.

The ranges are those of the 100 distorted digits in the paper's figure 7. The network sees as many digits as without
augmentation, 20 times 60,000, so each of the 600,000 about twice: each digit in ten versions, in turn, from a random
one on. `--recipe 1998 --augment` draws every digit anew in each pass, in ranges of its own; those runs are read from
`seeds`.
"""

import functools
import math
import statistics
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from digits import augmentation
from experiments import results, seeds
from experiments.runner import Context, Experiment
from figures import plots
from training import loop
from training.recipes import RECIPES, Recipe
from training.state import State
from training.steps import Steps

VERSIONS = 10  # of each digit, the first as it is
# Figure 7: scaling 1 ± 0.3, squeezing 1 ± 0.1, shearing ± 0.15, translation ± 2 to 2.4 pixels.
SCALING, SQUEEZING, SHEARING, TRANSLATION = 0.3, 0.1, 0.15, 2.2
NAME, PAPER = "1998, 540,000 distorted once", 0.8
COMPARED = {"1998": "1998", "1998-augment": "1998, distorted anew in each pass"}


def distorted(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Each digit distorted at random in the ranges of figure 7: uint8 (N, 32, 32) -> uint8 (N, 32, 32)."""
    u = torch.from_numpy(2 * generator.random((len(images), augmentation.NUMBERS), np.float32) - 1)
    amounts = torch.stack(  # in the units of affine_maps
        [
            u[:, 0] * TRANSLATION / augmentation.TRANSLATION,
            u[:, 1] * TRANSLATION / augmentation.TRANSLATION,
            torch.log1p(SCALING * u[:, 2]) / math.log(augmentation.SCALING),
            torch.log1p(SQUEEZING * u[:, 3]) / math.log(augmentation.SQUEEZING),
            u[:, 4] * SHEARING / augmentation.SHEARING,
        ],
        1,
    )
    return augmentation.warp(images, augmentation.affine_maps(amounts))


class Versions:
    """The ten versions of each digit: images uint8 (N, 32, 32), the first of them as they are."""

    def __init__(self, images: Tensor, seed: int):
        draws = [loop.generator(seed, version, loop.AUGMENTATION) for version in range(VERSIONS)]
        self.images = torch.stack([images, *(distorted(images, generator) for generator in draws[1:])])
        self.first = torch.from_numpy(draws[0].integers(0, VERSIONS, len(images)))

    def of(self, number: int) -> Tensor:
        """The digits of a pass, 1 and on: of each digit the next of its versions."""
        return self.images[(self.first + number) % VERSIONS, torch.arange(len(self.first))]


def take_versions(seed: int, state: State, recipe: Recipe) -> Steps:
    """The fastest steps; after each pass the images of the next take their place."""
    made, versions = loop.fastest(state, recipe), Versions(state.images.clone(), seed)
    seen = 0

    def run(order: Tensor):
        nonlocal seen
        made.run(order)
        seen += order.numel()
        if seen % len(state.labels) == 0:
            state.images.copy_(versions.of(1 + seen // len(state.labels)))

    state.images.copy_(versions.of(1))
    return made._replace(run=run)


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    return [{"variant": NAME, "seed": seed} for seed in context.seeds]


def measure(context: Context, task: dict) -> dict:
    """Train: the accuracy on the test set after each pass, and seconds."""
    recipe = context.shorten(RECIPES["1998"])
    make_steps = functools.partial(take_versions, task["seed"])
    *_, trained = loop.train(recipe, context.load(), task["seed"], make_steps=make_steps)
    rows = trained.history
    curve = [row["test_accuracy"] for row in rows]
    return {"accuracy": curve[-1], "curve": curve, "seconds": sum(row["seconds"] for row in rows)}


def summarize(context: Context, runs: list[dict]) -> dict:
    """Mean and deviation of the accuracies, with those of the runs of `seeds` beside."""
    found = seeds.found(context)
    beside = {COMPARED[name]: own for name, (_, own) in found.items() if name in COMPARED}
    beside = {
        name: [{"variant": name, "seed": run["seed"], "accuracy": run["accuracy"]} for run in own]
        for name, own in beside.items()
    }
    every = [run for own in beside.values() for run in own] + runs
    curves = [run["curve"] for run in runs]
    return {"variants": results.by_variant(every), "curve": [statistics.mean(row) for row in zip(*curves)]}


def tables(content: dict) -> dict[str, str]:
    paper = {"1998": 0.95, NAME: PAPER}
    rows = [
        [name, f"{paper[name]:.2f}" if name in paper else "", row["seeds"], results.error(row)]
        for name, row in content["variants"].items()
    ]
    return {"results": results.markdown(["training run", "paper: test error, %", "seeds", "here, %"], rows)}


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """A few training digits, each in its ten versions."""
    images, _ = context.load().train
    shown = torch.nn.functional.pad(images[:6], (2, 2, 2, 2))
    versions = Versions(shown, 0).images.transpose(0, 1).numpy()  # (6, 10, 32, 32)
    subtitle = "on the left as it is; in the ranges of the paper's figure 7"
    top, cell, side = round(plots.HEADER * plots.DPI), 161, 155
    height = (top + len(versions) * cell + 6) / plots.DPI
    axes = plots.canvas(plots.new_figure("Training digits, each distorted nine times", subtitle, height))
    for row, column in np.ndindex(versions.shape[:2]):
        plots.draw_image(axes, versions[row, column], (28 + cell * column, top + cell * row, side, side), "gray_r")
    plots.save(axes.figure, path)


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    draw=draw,
    facts=lambda context: {"recipe": context.shorten(RECIPES["1998"]).to_json()},
    notice=seeds.notice,
    seeds=(0, 1, 2, 3, 4),
    seconds=120,
)
