"""The paper's figure 13 and its section on invariance and noise: accuracy on test digits that are changed on purpose.

A network of each variant classifies all test digits, rotated, scaled, moved, with thinner or thicker strokes, and with
noise. The paper states limits for its network, trained on distorted digits: scale up to about a factor of 2, shifts of
about half the height of a character, rotations up to about 30 degrees. It gives no accuracies.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import utils
from digits.augmentation import warp
from experiments import results, seeds
from experiments.runner import Context, Experiment
from figures import plots
from model import pad
from training import checkpoint
from utils import shown

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


def add_noise(images: Tensor, share: float) -> Tensor:
    """This share of the pixels, drawn at random, black or white."""
    random = np.random.default_rng(0)
    chosen = torch.from_numpy(random.random(images.shape, np.float32) < share)
    noise = torch.from_numpy(255 * random.integers(0, 2, images.shape, np.uint8))
    return torch.where(chosen, noise, images)


# By name: what changes the images, the amounts, their unit, and the paper's limits.
CHANGES: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, ...], str, tuple[float, ...]]] = {
    "rotation": (rotate, tuple(range(-60, 61, 10)), "degrees clockwise", (-30, 30)),
    "scale": (enlarge, (0.4, 0.5, 0.6, 0.7, 0.85, 1, 1.2, 1.4, 1.6, 1.8, 2), "factor", (0.5, 2)),
    "translation": (move, tuple(range(0, 15, 2)), "pixels to the right", (HEIGHT / 2,)),
    "stroke width": (thicken, (-1.5, -1, -0.75, -0.5, -0.25, 0, 0.5, 1, 1.5, 2, 2.5), "pixels added on each side", ()),
    "noise": (add_noise, (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4), "share of the pixels replaced", ()),
}


def files(context: Context) -> dict[str, Path]:
    found = {name: context.network_file(seeds.recipe_of(name)) for name in seeds.COMPARED}
    return {name: file for name, file in found.items() if file.exists() or not context.tiny}


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    return [
        {"variant": name, "change": change, "amount": amount}
        for change, (_, amounts, *_) in CHANGES.items()
        for amount in amounts
        for name in files(context)
    ]


def facts(context: Context) -> dict:
    return {"weights": {name: checkpoint.digest(checkpoint.load(f).tested, {}) for name, f in files(context).items()}}


def measure(context: Context, task: dict) -> dict:
    """The accuracy of a network on the changed test digits."""
    model = checkpoint.load_network(files(context)[task["variant"]])
    images, labels = context.load().test
    changed = CHANGES[task["change"]][0](pad(images), task["amount"])
    return {"accuracy": int((utils.class_logits(model, changed).argmax(1) == labels).sum()) / len(labels)}


def tables(content: dict) -> dict[str, str]:
    """Accuracies in % at the limits that the paper states, and at the ends of our ranges where it states none."""
    accuracy = {(run["variant"], run["change"], run["amount"]): run["accuracy"] for run in content["runs"]}
    names = list(results.group(content["runs"]))
    chosen = {"not changed": ("scale", 1)}
    for change, (_, amounts, unit, limits) in CHANGES.items():
        for amount in limits or (min(amounts), max(amounts)):
            if amount or limits:
                chosen[f"{change}, {unit}: {amount:g}"] = (change, amount)
    rows = [[title, *(f"{100 * accuracy[(name, *what)]:.1f}" for name in names)] for title, what in chosen.items()]
    return {"accuracy": results.markdown(["test digits", *(seeds.TITLES[name] for name in names)], rows)}


@plots.style()
def draw(context: Context, content: dict, path: Path):
    subtitle = "a network of each variant, seed 0; dotted lines: the limits that the paper states"
    figure = plots.new_figure("Test digits changed on purpose", subtitle, height=7.6)
    panels = figure.subplots(3, 2).flat
    for axes, (change, (_, _, unit, limits)) in zip(panels, CHANGES.items()):
        for name, runs in results.group(content["runs"]).items():
            own = sorted((run["amount"], 100 * run["accuracy"]) for run in runs if run["change"] == change)
            axes.plot(*zip(*own), label=seeds.TITLES[name], **seeds.LOOKS[name])
        for limit in limits:
            axes.axvline(limit, color=plots.GREY, linestyle=":", linewidth=1)
        axes.set(title=change, xlabel=unit, ylabel="accuracy (%)", ylim=(0, 101))
    panels[len(CHANGES)].set_axis_off()
    panels[len(CHANGES)].legend(*panels[0].get_legend_handles_labels(), loc="center")
    plots.save(figure, path)


EXPERIMENT = Experiment(
    tables=tables,
    summarize=lambda context, runs: {},
    tasks=tasks,
    measure=measure,
    draw=draw,
    facts=facts,
    notice=lambda context: "networks: " + ", ".join(shown(file) for file in files(context).values()),
    seconds=1,
)
