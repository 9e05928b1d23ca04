"""How far to augment, chosen by validation on 5,000 of MNIST's training digits; and what augmented digits look like.

python -m experiments augmentation [VARIANT ...]    all recipes, or those named; "figure" draws the digits alone

Of each variant and seed the accuracy on the validation set after training on the other 55,000 digits. The test set
takes no part. Of the recipe "best", strength, elastic distortions and schedule are chosen one after the other, each
with what did best on the validation set before.
"""

import dataclasses
import itertools
from pathlib import Path

import numpy as np

from digits.augmentation import augment
from experiments import results, validation
from experiments.runner import Context, Experiment
from figures import plots
from model import pad
from training.recipes import RECIPES, Recipe, cosine


def strengths(name: str) -> list[Recipe]:
    """What is tried with a recipe, weak to strong; "best" is the default recipe with ReLU in place of squashing."""
    tried = {"default": (0, 0.5, 0.7, 1.0, 1.3), "best": (0, 0.7, 1.0, 1.3)}[name]
    relu = dataclasses.replace(RECIPES["default"], name="best", model_arguments={"activation": "relu"})
    recipe = relu if name == "best" else RECIPES[name]
    return [dataclasses.replace(recipe, augment=strength > 0, strength=strength) for strength in tried]


def elastics(recipe: Recipe) -> list[Recipe]:
    return [dataclasses.replace(recipe, augment=True, elastic=elastic) for elastic in (0.5, 1.0)]


def schedules(recipe: Recipe) -> list[Recipe]:
    """The recipe with cosine learning-rate decay."""
    return [dataclasses.replace(recipe, learning_rates=cosine(epochs, 0.001)) for epochs in (40, 60)]


def describe(recipe: Recipe) -> str:
    rates = recipe.learning_rates
    words = [recipe.name, f"strength {recipe.strength:g}"]
    if recipe.elastic:
        words.append(f"elastic {recipe.elastic:g} px")
    if recipe.name == "best" and len(set(rates)) > 1:
        words.append(f"{len(rates)} epochs, cosine from {rates[0]:g}, batch {recipe.batch_size}")
    return ", ".join(words)


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    recipes = []
    for name in context.variants:
        if name != "figure":
            tried = strengths(name)
            for more in (elastics, schedules) if name == "best" else ():
                tried += more(leader) if (leader := leader_of(tried, context, runs)) else []
            recipes += tried
    return context.tasks({describe(recipe): recipe for recipe in recipes})


def leader_of(recipes: list[Recipe], context: Context, runs: list[dict]) -> Recipe | None:
    """The recipe that did best on the validation set, in the mean; None as long as runs of these are missing."""
    found = results.by_variant(runs)
    done = {(run["variant"], run["seed"]) for run in runs}
    if all((describe(recipe), seed) in done for recipe in recipes for seed in context.seeds):
        return max(recipes, key=lambda recipe: standing(found[describe(recipe)]))
    return None


def standing(row: dict) -> float:
    return 0.0 if row["diverged"] else row["mean"]


def summarize(context: Context, runs: list[dict]) -> dict:
    """The variants, and of each recipe the one that leads."""
    found, leading = results.by_variant(runs), {}
    for name, row in found.items():
        recipe = name.split(",")[0]
        if recipe not in leading or standing(row) > standing(found[leading[recipe]]):
            leading[recipe] = name
    return {"variants": found, "leading": leading}


# Pixels of the figure: of the names' column, from one digit to the next, and of its side, four for each of its 32.
NAMES, CELL, SIDE = 276, 136, 128


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """A digit of each class, and below it what recipes `default` and `best` train on in its place."""
    images, labels = context.validation().train
    digits = pad(images[[int((labels == digit).nonzero()[0]) for digit in range(10)]])
    default, best = RECIPES["default"], RECIPES["best"]
    rows = [("as it is", digits)]
    for number, recipe in enumerate((default, default, default, best, best)):
        augmented = augment(digits, np.random.default_rng([0, number]), recipe.strength, recipe.elastic)
        rows.append((recipe.name, augmented))
    title = {"mnist": "MNIST's digits", "digits": "scikit-learn's small digits"}[context.dataset]
    subtitle = f"default: strength {default.strength:g}; best: {best.strength:g}, and elastic {best.elastic:g} px"
    top = round(plots.HEADER * plots.DPI)
    height = (top + len(rows) * CELL + 4) / plots.DPI
    axes = plots.canvas(plots.new_figure(f"{title}, augmented as in training", subtitle, height))
    for (what, augmented), y in zip(rows, itertools.count(top, CELL)):
        axes.text(28, y + SIDE / 2, what, va="center")
        for column, image in enumerate(augmented.numpy()):
            plots.draw_image(axes, image, (NAMES + CELL * column, y, SIDE, SIDE), "gray_r")
    plots.save(axes.figure, path)


EXPERIMENT = Experiment(
    tables=results.validation_table,
    summarize=summarize,
    tasks=tasks,
    measure=validation.train_and_validate,
    draw=draw,
    seeds=(0, 1, 2),
    variants=("figure", "default", "best"),
    seconds=100,
)
