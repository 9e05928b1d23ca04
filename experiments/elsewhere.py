"""Digits that are not MNIST's: how many of USPS's, optdigits' and Semeion's the networks trained on MNIST get right.

The sets are those that are in the data folder: data/README.md says where they are published. Each bitmap is brought
into MNIST's form in two ways. Prepared: as ClassifyTask_predict.py does with an image of one digit. Simply centred: the
longer side of the box around all ink becomes 20 pixels, and the centre of mass the centre. Sets of 28x28 pixels are in
MNIST's form already and stay as they are; MNIST's own test digits stand beside the others.

The committee is the networks of `best` that the experiment `seeds` keeps, one a seed: the mean of their probabilities.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import utils
from ClassifyTask_test import wilson_interval
from digits import foreign
from digits.mnist import Digits
from digits.preprocessing import place, prepare
from experiments import results, seeds
from experiments.runner import Context, Experiment
from figures import plots
from model import LeNet5, pad
from training import checkpoint
from training.recipes import RECIPES
from utils import UserError, shown

MNIST, SMALL = "mnist", "digits"  # MNIST's test digits; in a rehearsal scikit-learn's digits instead of all sets
MEMBERS = 5  # networks of the committee
FAILING = "best"  # the network whose errors are drawn
TITLES = seeds.TITLES | {"fast": "fast", "committee": f"best, {MEMBERS} networks together"}
SET_TITLES = {MNIST: "MNIST's test set", SMALL: "scikit-learn's digits"} | foreign.TITLES


# ---------------------------------------------------------------------------------------------- networks and sets


def networks(context: Context) -> dict[str, list[Path]]:
    """The checkpoints of each network, and those of the committee if all of them are there."""
    recipes = {name: seeds.recipe_of(name) for name in seeds.COMPARED} | {"fast": RECIPES["fast"]}
    found = {name: [context.network_file(recipe)] for name, recipe in recipes.items()}
    found["committee"] = members(context)
    return {name: files for name, files in found.items() if all(file.exists() for file in files)}


def members(context: Context) -> list[Path]:
    return [seeds.network_file(context, "best", seed) for seed in range(MEMBERS)]


def sets(context: Context) -> list[str]:
    if context.tiny:
        return [SMALL]
    return [MNIST, *(name for name in foreign.TITLES if foreign.find(name, context.data_dir))]


def notice(context: Context) -> str:
    """The networks, and what is left out. Raises UserError if no set but MNIST's is there."""
    missing = {
        source.title: f"{shown(context.data_dir / source.file)} is missing; it is published at {source.place}"
        for name, source in foreign.SOURCES.items()
        if not (context.tiny or foreign.find(name, context.data_dir))
    }
    if sets(context) == [MNIST]:
        raise UserError(f"there are no digits but MNIST's: {', '.join(missing.values())}")
    found = networks(context)
    lines = ["networks: " + ", ".join(shown(files[0]) for files in found.values() if len(files) == 1)]
    lines += [f"left out: {title}, {what}" for title, what in missing.items()]
    if "committee" not in found:
        file = next(file for file in members(context) if not file.exists())
        lines.append(f"left out: the committee, {shown(file)} is missing; made by python -m experiments seeds best")
    return "\n".join(lines)


def facts(context: Context) -> dict:
    return {
        "weights": {
            name: [checkpoint.digest(checkpoint.load(file).tested, {}) for file in files]
            for name, files in networks(context).items()
            if name != "committee"  # it is not shipped
        }
    }


def load(context: Context, name: str) -> Digits:
    """Images uint8 (N, H, W), ink 255, and labels int64 (N,). In a rehearsal the first of scikit-learn's, 8x8."""
    if name == MNIST:
        return context.load().test
    if name != SMALL:
        return foreign.load(name, context.data_dir)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.from_numpy(np.uint8(digits.images[:100] * (255 / 16))), torch.from_numpy(digits.target[:100])


# ---------------------------------------------------------------------------------------------- measuring


def prepared(bitmap: np.ndarray) -> np.ndarray:
    """A bitmap (H, W), ink 255, as prepare makes it of an image: dark ink on paper, with a margin of half its side.

    Nothing if no digit is found.
    """
    try:
        return prepare(255 - np.pad(bitmap, len(bitmap) // 2))
    except ValueError:
        return np.zeros((28, 28), np.uint8)


def centred(bitmap: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero(bitmap.any(axis)) for axis in (1, 0))
    return place(bitmap / 255, ((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)))


def in_form(images: Tensor) -> dict[str, Tensor]:
    """Images uint8 (N, H, W) in MNIST's form, (N, 28, 28), by the way they were brought there."""
    if images.shape[1:] == (28, 28):
        return {"unchanged": images}
    ways = {"prepared": prepared, "centred": centred}
    return {name: torch.from_numpy(np.stack([way(image) for image in images.numpy()])) for name, way in ways.items()}


def answers(models: list[LeNet5], images: Tensor) -> Tensor:
    """The class (N,) of images uint8 (N, 28, 28) with the highest mean of the networks' probabilities."""
    return torch.stack([utils.class_logits(model, pad(images)).softmax(1) for model in models]).mean(0).argmax(1)


def measure(context: Context, task: dict) -> dict:
    """Of each network and way the accuracy and Wilson's interval; the errors of one network, by the digit's index."""
    images, labels = load(context, task["set"])
    ways = in_form(images)
    found, errors = {}, {}
    for name, files in networks(context).items():
        models = [checkpoint.load_network(file) for file in files]
        given = {way: answers(models, seen) for way, seen in ways.items()}
        right = {way: int((own == labels).sum()) for way, own in given.items()}
        found[name] = {
            way: {"accuracy": own / len(labels), "interval": wilson_interval(own, len(labels))}
            for way, own in right.items()
        }
        if name == FAILING:
            first = given[next(iter(ways))]
            errors = {str(i): int(first[i]) for i in (first != labels).nonzero().flatten().tolist()}
    without_ink = int((next(iter(ways.values())).amax((1, 2)) == 0).sum())
    return {"digits": len(labels), "without_ink": without_ink, "networks": found, "errors": errors}


# ---------------------------------------------------------------------------------------------- results


def tables(content: dict) -> dict[str, str]:
    """Accuracies in %: of digits prepared as images are, with Wilson's 95 % intervals; and of those simply centred."""
    runs = {run["set"]: run for run in sorted(content["runs"], key=lambda run: list(SET_TITLES).index(run["set"]))}
    own = {name: run for name, run in runs.items() if "prepared" in next(iter(run["networks"].values()))}
    first, second = [], []
    for network in next(iter(runs.values()))["networks"]:
        cells = [next(iter(run["networks"][network].values())) for run in runs.values()]
        first.append([TITLES[network], *map(accuracy_cell, cells)])
        plain = [f"{100 * run['networks'][network]['centred']['accuracy']:.1f}" for run in own.values()]
        second.append([TITLES[network], *plain])
    header = ["network", *(f"{SET_TITLES[name]}, {run['digits']:,} digits" for name, run in runs.items())]
    plain_header = ["simply centred", *(SET_TITLES[name] for name in own)]
    return {"results": results.markdown(header, first), "centred": results.markdown(plain_header, second)}


def accuracy_cell(found: dict) -> str:
    low, high = (f"{100 * bound:.1f}" for bound in found["interval"])
    return f"{100 * found['accuracy']:.1f} ({low} to {high})"


ROW = 218  # pixels from one row of the figure to the next


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """A row for each set: errors of one network, evenly spaced, as the network sees the digits."""
    there = [name for name in sets(context) if name != MNIST]
    runs = [run for run in content["runs"] if run["set"] in there]
    title = f"Digits that are not MNIST's: errors of {FAILING}"
    subtitle = f"as the network sees them, true → predicted class; {plots.COLUMNS} errors a set, evenly spaced"
    height = plots.HEADER + len(runs) * ROW / plots.DPI
    axes = plots.canvas(plots.new_figure(title, subtitle, height))
    for row, run in enumerate(sorted(runs, key=lambda run: there.index(run["set"]))):
        images, labels = load(context, run["set"])
        errors = list(run["errors"].items())
        spaced = np.linspace(0, len(errors) - 1, min(plots.COLUMNS, len(errors))).round().astype(int)
        top = round(plots.HEADER * plots.DPI) + row * ROW
        name = SET_TITLES[run["set"]]
        axes.text(28, top + 26, f"{name}: {len(errors):,} of {run['digits']:,} digits misclassified", weight="bold")
        for column, (index, answer) in enumerate(errors[i] for i in spaced):
            x, y, digit = 28 + column * plots.CELL, top + 44, int(index)
            seen = next(iter(in_form(images[digit : digit + 1]).values()))[0].numpy()
            plots.draw_image(axes, seen, (x, y, plots.SIDE, plots.SIDE), "gray_r")
            text = f"{labels[digit]} → {answer}"
            axes.text(x + plots.SIDE / 2, y + plots.SIDE + 24, text, ha="center", va="center")
    plots.save(axes.figure, path)


EXPERIMENT = Experiment(
    tables=tables,
    summarize=lambda context, runs: {},
    tasks=lambda context, runs: [{"set": name} for name in sets(context)],
    measure=measure,
    draw=draw,
    facts=facts,
    notice=notice,
    seconds=30,
)
