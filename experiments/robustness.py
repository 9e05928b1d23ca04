"""The paper's figure 13 and its section on invariance and noise: accuracy on test digits that are changed on purpose.

Five networks of each training run classify all test digits: rotated, scaled, moved, with thinner or thicker strokes,
with noise. The paper states limits for its network, which was trained with a tenth of the pixels inverted: scale up to
about a factor of 2, shifts of about half the height of a character, rotations up to about 30 degrees. It gives no
accuracies.
"""

import math
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.ticker import MaxNLocator
from torch import Tensor

import utils
from digits.augmentation import warp
from experiments import results, seeds
from experiments.runner import Context, Experiment
from figures import plots
from model import pad

HEIGHT = 20  # pixels: of a digit of MNIST, in its larger direction


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Clockwise, about the centre."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return affine(images, [[cos, sin, 0], [-sin, cos, 0]])


def enlarge(images: Tensor, factor: float) -> Tensor:
    return affine(images, [[1 / factor, 0, 0], [0, 1 / factor, 0]])


def move(images: Tensor, pixels: float) -> Tensor:
    """To the right. What leaves the image is lost."""
    return affine(images, [[1, 0, -pixels], [0, 1, 0]])


def affine(images: Tensor, where_from: list[list[float]]) -> Tensor:
    return warp(images, torch.tensor(where_from).expand(len(images), 2, 3))


def thicken(images: Tensor, pixels: float) -> Tensor:
    """Strokes thicker by 2 `pixels`, or thinner where that is negative: the greatest (least) grey level of the
    neighbours at most a pixel away, again and again; a part of the last time."""
    grey = images.float().unsqueeze(1)
    sign = 1 if pixels > 0 else -1
    left = abs(pixels)
    while left > 0:
        neighbours = torch.stack([F.max_pool2d(sign * grey, size, 1, padding) for size, padding in CROSS]).amax(0)
        grey = grey + min(left, 1) * (sign * neighbours - grey)
        left -= 1
    return grey.squeeze(1).round().to(torch.uint8)


CROSS = (((1, 3), (0, 1)), ((3, 1), (1, 0)))  # the neighbours left and right, and those above and below


def invert(images: Tensor, share: float) -> Tensor:
    """This share of the pixels, drawn at random, inverted."""
    return seeds.inverted(images, share, np.random.default_rng(0))


# By name: what changes the images, the amounts, their unit, and the paper's limits, or its share of noise.
CHANGES: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, ...], str, tuple[float, ...]]] = {
    "rotation": (rotate, tuple(range(-60, 61, 10)), "degrees clockwise", (-30, 30)),
    "scale": (enlarge, (0.4, 0.5, 0.6, 0.7, 0.85, 1, 1.2, 1.4, 1.6, 1.8, 2), "factor", (0.5, 2)),
    "translation": (move, tuple(range(0, 15, 2)), "pixels to the right", (HEIGHT / 2,)),
    "stroke width": (thicken, (-1.5, -1, -0.75, -0.5, -0.25, 0, 0.5, 1, 1.5, 2, 2.5), "pixels added on each side", ()),
    "noise": (invert, (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4), "share of the pixels inverted", (seeds.INVERTED,)),
}
VARIANTS = (*seeds.COMPARED, seeds.NOISY)


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    return [{"variant": name, "seed": seed} for seed in context.seeds for name in VARIANTS]


def measure(context: Context, task: dict) -> dict:
    """The accuracy of a network on the test digits, changed by each amount of each change."""
    model = seeds.network(context, task["variant"], task["seed"])
    images, labels = context.load().test
    found = {}
    for name, (change, amounts, *_) in CHANGES.items():
        found[name] = {}
        for amount in amounts:
            right = utils.class_logits(model, change(pad(images), amount)).argmax(1) == labels
            found[name][f"{amount:g}"] = int(right.sum()) / len(labels)
    return {"accuracies": found}


def summarize(context: Context, runs: list[dict]) -> dict:
    """Of each variant and change, for each amount: mean, least and most of the accuracies over the seeds."""
    found = {}
    for name, own in results.group(runs).items():
        found[name] = {
            change: {
                f"{amount:g}": spread([run["accuracies"][change][f"{amount:g}"] for run in own]) for amount in amounts
            }
            for change, (_, amounts, *_) in CHANGES.items()
        }
    return {"variants": found}


def spread(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.mean(values), "least": min(values), "most": max(values)}


def tables(content: dict) -> dict[str, str]:
    """Mean accuracies in % at the limits that the paper states, and at the ends of our ranges where it states none."""
    chosen = {"not changed": ("scale", 1)}
    for change, (_, amounts, unit, limits) in CHANGES.items():
        for amount in limits or (min(amounts), max(amounts)):
            if amount or limits:
                chosen[f"{change}, {unit}: {amount:g}"] = (change, amount)
    found = content["variants"]
    rows = [
        [title, *(f"{100 * row[change][f'{amount:g}']['mean']:.1f}" for row in found.values())]
        for title, (change, amount) in chosen.items()
    ]
    return {"accuracy": results.markdown(["test digits", *(seeds.TITLES[name] for name in found)], rows)}


@plots.style()
def draw(context: Context, content: dict, path: Path):
    count = len({run["seed"] for run in content["runs"]})
    subtitle = f"means and ranges of {count} networks; dotted: the paper's limits, and its noise"
    figure = plots.new_figure("Test digits changed on purpose", subtitle, height=9)
    grid = figure.subplots(3, 2, sharey=True)
    panels = grid.flat
    for axes, (change, (_, amounts, unit, limits)) in zip(panels, CHANGES.items()):
        for name, found in content["variants"].items():
            own = {
                key: [100 * found[change][f"{amount:g}"][key] for amount in amounts]
                for key in ("mean", "least", "most")
            }
            axes.plot(amounts, own["mean"], label=seeds.TITLES[name], **seeds.LOOKS[name])
            axes.fill_between(amounts, own["least"], own["most"], color=seeds.LOOKS[name]["color"], alpha=0.15, lw=0)
        for limit in limits:
            axes.axvline(limit, color=plots.INK, linestyle=":", linewidth=2)
        axes.set(title=change, xlabel=unit, ylim=(0, 101))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy (%)")
    panels[len(CHANGES)].set_axis_off()
    panels[len(CHANGES)].legend(*panels[0].get_legend_handles_labels(), loc="center", labelspacing=0.8)
    plots.save(figure, path)


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    draw=draw,
    facts=lambda context: {"recipes": {name: seeds.recipes(context)[name] for name in VARIANTS}},
    seeds=(0, 1, 2, 3, 4),
    seconds=30,
)
