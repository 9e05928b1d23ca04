"""Two ways to train the sweep: the paper's, on pictures of one digit between two others, and CTC, on whole lines.

python -m experiments section_7

Section VII.B trains on pictures with a digit in the middle and two beside it, -1 to 4 pixels apart, and on pictures
with no digit in the middle, whose class is "none"; a tenth of the pixels is inverted. How many are of the second kind,
what they show besides, and where training starts, it does not say. Here every second one has the gap between two digits
in its middle, and each of the two is left out half of the time, as at the end of a line. Both ways start from the
network of recipe best, take as many steps, on digits augmented alike, and read the same lines.
"""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from digits.augmentation import augment
from digits.lines import compose, sample_lines
from experiments import numbers, results
from experiments.runner import Context, Experiment
from experiments.seeds import INVERTED, inverted
from model import normalize
from reading.ctc import ctc, test_lines
from reading.sweep import NONE, WINDOW
from training import checkpoint, loop
from training.recipes import RECIPES, Recipe, cosine
from training.state import State
from training.steps import Steps, follow, torch_optimizer

EPOCHS, LINES = 12, 2_000
APART = {"gaps of -1 to 8": (-1, 8), "gaps of -1 to 4": (-1, 4)}  # pixels, between the digits that are read


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    recipe = dataclasses.replace(RECIPES["numbers"], learning_rates=cosine(EPOCHS, 0.001), evened=0.0)
    return context.tasks(dict.fromkeys(WAYS, recipe))


def measure(context: Context, task: dict) -> dict:
    """Train in one of the ways: the shares of lines that are read correctly, by beam search and by the best path."""
    data, initial = context.load(), checkpoint.load_network(context.network_file(RECIPES["best"]))
    recipe, make_steps = Recipe.from_json(task["recipe"]), WAYS[task["variant"]]
    *_, trained = loop.train(recipe, data, task["seed"], None, make_steps, initial)
    model, found = checkpoint.network(trained), {}
    for name, gaps in APART.items():
        lines = sample_lines(data.test, 50 if context.tiny else LINES, np.random.default_rng(0), gaps=gaps)
        paths = [pair for batch in lines for pair in zip(batch[1], numbers.best_paths(model, batch[0]))]
        for how, outcomes in ("beam search", numbers.read_all(model, lines)), ("best path", paths):
            found[f"{name}, {how}"] = 1 - numbers.errors(outcomes)["lines"]
    return {"accuracy": found[f"{next(iter(APART))}, beam search"], "read": found, "seconds": seconds(trained)}


def seconds(trained: checkpoint.Checkpoint) -> float:
    return sum(row["seconds"] for row in trained.history)


# ---------------------------------------------------------------------------------------------- as in the paper


def section_7(state: State, recipe: Recipe) -> Steps:
    """The steps on pictures of three digits, or of what is between two, by cross-entropy; the test is that of ctc."""
    optimizer = torch_optimizer(state, recipe)

    def run(order: Tensor):
        for chosen in order:
            images, labels = pictures(state.images[chosen], state.labels[chosen], recipe, state.generator)
            logits = state.model(normalize(images))
            losses = F.cross_entropy(logits, labels, reduction="none")
            state.gradient.zero_()
            losses.mean().backward()
            optimizer.step()
            follow(state)
            correct = (logits.argmax(1) == labels).sum()
            state.totals += torch.stack([losses.detach().sum(), correct, torch.tensor(len(labels))]).to(state.totals)

    def evaluate(test_set, last: bool = False) -> dict[str, float]:
        return test_lines(state.model if last else state.tested, test_set)

    return Steps(run, evaluate, "plain", augments=True)


def pictures(images: Tensor, labels: Tensor, recipe: Recipe, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Digits uint8 (B, 32, 32) between others of the batch -> pictures uint8 (B, 32, 32), and their classes (B,).

    Every second one is moved until the gap is in its middle, and has the class "none". Half of the time what is to the
    left of the gap is left out, and half of the time what is to its right.
    """
    count = len(images)
    digits = augment(images, generator, recipe.strength, recipe.elastic).numpy()
    three = np.stack([np.roll(digits, 1, 0), digits, np.roll(digits, -1, 0)], 1).reshape(-1, WINDOW, WINDOW)
    gaps = generator.integers(-1, 5, len(three))
    lines = compose(three, np.full(count, 3), gaps, margin=WINDOW)
    ink = three.any(1)  # (3 B, 32): the columns with ink
    wide = (WINDOW - ink[:, ::-1].argmax(1) - ink.argmax(1)).reshape(count, 3)
    gaps = gaps.reshape(count, 3)
    start = WINDOW + wide[:, 0] + gaps[:, 1]  # of the digit in the middle
    between = np.arange(count) % 2 == 1
    middle = np.where(between, start - gaps[:, 1] / 2, start + wide[:, 1] / 2)
    first = np.rint(middle - WINDOW / 2 + generator.uniform(-1, 1, count)).astype(int)  # a place is 2 pixels wide
    columns = (first[:, None] + np.arange(WINDOW))[:, None].repeat(WINDOW, 1)
    cut = torch.from_numpy(np.take_along_axis(lines, columns, 2))
    for half in slice(WINDOW // 2), slice(WINDOW // 2, None):
        cut[torch.from_numpy(between & (generator.random(count) < 1 / 2)), :, half] = 0
    classes = torch.where(torch.from_numpy(between), NONE, labels)
    return inverted(cut, INVERTED, generator), classes


WAYS = {"CTC": ctc, "as in the paper": section_7}


# ---------------------------------------------------------------------------------------------- results


def summarize(context: Context, runs: list[dict]) -> dict:
    return {"variants": results.by_variant(runs)}


def tables(content: dict) -> dict[str, str]:
    """Lines read wrongly, in %: the mean of the seeds."""
    grouped = results.group(content["runs"])
    first = next(iter(grouped.values()))[0]["read"]
    rows = []
    for name, own in grouped.items():
        wrong = [100 - 100 * sum(run["read"][what] for run in own) / len(own) for what in first]
        rows.append([name, len(own), *(f"{value:.1f}" for value in wrong)])
    return {"results": results.markdown(["trained", "seeds", *first], rows)}


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    seeds=(0,),
    variants=tuple(WAYS),
    seconds=500,
)
