"""How far to distort, chosen on 5,000 digits held out from MNIST's training set; and what distorted digits look like.

python -m experiments.distortions [PART ...]    all parts, or those named: figure, adam, 1998, best; goes on where it
                                                stopped
python -m experiments.distortions --tiny        a rehearsal on the small digits, an epoch a run, into Record/tiny

Writes Record/study/distortions.png, a few digits and their distortions, and Record/study/distortions.json: of each
variant and seed the held-out accuracy after training on the other 55,000 digits. Prints a table. The test set takes
no part. Of the recipe "best", strength, elastic distortions and schedule are chosen one after the other, each with what
read the held-out digits best before.
"""

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np

import mnist
import plots
import utils
from distortions import SCALING, SHEARING, SQUEEZING, TRANSLATION, distort
from experiments.study import Study, arguments, by_variant, table, train_on_the_rest
from model import pad
from recipes import RECIPES, Recipe, cosine

SEEDS = (0, 1, 2)
PARTS = ("figure", "adam", "1998", "best")


def strengthened(recipe: Recipe, strength: float) -> Recipe:
    return dataclasses.replace(recipe, distort=strength > 0, strength=strength)


def strengths(part: str) -> list[Recipe]:
    """What is tried with a recipe, weak to strong; "best" is the default recipe with ReLU in place of squashing."""
    if part == "best":
        relu = dataclasses.replace(RECIPES["adam"], name="best", network={"activation": "relu"})
        return [strengthened(relu, strength) for strength in (0, 0.7, 1.0, 1.3)]
    tried = {"adam": (0, 0.5, 0.7, 1.0, 1.3), "1998": (0, 0.35, 0.5, 0.7)}
    return [strengthened(RECIPES[part], strength) for strength in tried[part]]


def elastics(recipe: Recipe) -> list[Recipe]:
    return [dataclasses.replace(recipe, distort=True, elastic=elastic) for elastic in (0.5, 1.0)]


def schedules(recipe: Recipe) -> list[Recipe]:
    """The recipe with the learning rate along half a cosine down to nearly 0."""
    return [dataclasses.replace(recipe, learning_rates=cosine(epochs, 0.001)) for epochs in (40, 60)]


def shortened(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, learning_rates=recipe.learning_rates[:1])


def describe(recipe: Recipe) -> str:
    rates = recipe.learning_rates
    words = [recipe.name, f"strength {recipe.strength:g}"]
    if recipe.elastic:
        words.append(f"elastic {recipe.elastic:g} px")
    if recipe.name == "best" and len(set(rates)) > 1:
        words.append(f"{len(rates)} epochs, cosine from {rates[0]:g}, batch {recipe.batch_size}")
    return ", ".join(words)


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--tiny", action="store_true", help="a rehearsal on the small digits, into Record/tiny")
    args = parser.parse_args()
    parts = args.parts or PARTS
    dataset = mnist.find_dataset("digits" if args.tiny else "mnist", args.data_dir)
    path = utils.RECORD / ("tiny" if args.tiny else "study") / "distortions.json"
    if "figure" in parts:
        draw(path.with_suffix(".png"), dataset, args.data_dir)
    study = Study(path, "python -m experiments.distortions" + " --tiny" * args.tiny, summarize, dataset=dataset)

    def run(recipes: list[Recipe]):
        made = shortened if args.tiny else lambda recipe: recipe
        tasks = [
            {"variant": describe(recipe), "seed": seed, "recipe": made(recipe).to_json()}
            for recipe in recipes
            for seed in (SEEDS[:1] if args.tiny else SEEDS)
        ]
        study.finish(tasks, functools.partial(train_on_the_rest, dataset, args.data_dir), args.jobs)

    for part in [part for part in parts if part != "figure"]:
        run(strengths(part))
        if part == "best":
            run(elastics(leader(study.runs, part)))
            run(schedules(leader(study.runs, part)))
    if study.runs:
        print(table(study.content()["variants"]))


def leader(runs: list[dict], part: str) -> Recipe:
    """The recipe of this name whose runs read most of the held-out digits, in the mean; not one that diverged."""
    found = summarize(runs)["variants"]
    name = max((name for name in found if name.split(",")[0] == part), key=lambda name: standing(found[name]))
    return Recipe.from_json(next(run["recipe"] for run in runs if run["variant"] == name))


def standing(row: dict) -> float:
    return 0.0 if row["diverged"] else row["mean"]


def summarize(runs: list[dict]) -> dict:
    """The variants, and of each recipe the one that leads."""
    found, leading = by_variant(runs), {}
    for name, row in found.items():
        part = name.split(",")[0]
        if part not in leading or standing(row) > standing(found[leading[part]]):
            leading[part] = name
    return {"variants": found, "leading": leading}


# Pixels of the figure: of the names' column, from one picture to the next, and of its side, four for each of its 32.
NAMES, CELL, SIDE = 260, 138, 128
ELASTIC = 1.0  # pixels, in the last row, besides


@plots.style()
def draw(path: Path, dataset: str, data_dir: Path):
    """A digit of each class, and below it what random distortions make of it."""
    images, labels = mnist.load_dataset(dataset, data_dir, "train")
    first = [int((labels == digit).nonzero()[0]) for digit in range(10)]
    digits = pad(images[first])
    draws = [np.random.default_rng([0, row]) for row in range(6)]
    rows = [
        ("as they are", digits),
        ("distorted", distort(digits, draws[1])),
        *(("", distort(digits, draw)) for draw in draws[2:5]),
        ("elastically, too", distort(digits, draws[5], elastic=ELASTIC)),
    ]
    title = {"mnist": "MNIST's digits", "digits": "scikit-learn's small digits"}[dataset] + ", distorted at random"
    subtitle = (
        f"moved by up to {TRANSLATION:g} px, scaled {100 * SCALING - 100:.0f} %, "
        f"squeezed {100 * SQUEEZING - 100:.0f} %, sheared {SHEARING:g} px a px; last row: elastically, too"
    )
    top = round(plots.HEADER * plots.DPI)
    height = (top + len(rows) * CELL) / plots.DPI
    axes = plots.canvas(plots.new_figure(title, subtitle, height))
    for (what, pictures), y in zip(rows, itertools.count(top, CELL)):
        axes.text(28, y + SIDE / 2, what, va="center")
        for column, picture in enumerate(pictures.numpy()):
            plots.draw_image(axes, picture, (NAMES + CELL * column, y, SIDE, SIDE), "gray_r")
    path.parent.mkdir(parents=True, exist_ok=True)
    plots.save(axes.figure, path)


if __name__ == "__main__":
    utils.run_script(main)
