"""What the paper and the recipe leave open, chosen on 5,000 digits held out from MNIST's training set.

python -m experiments.choices [VARIANT ...]     all variants, or those named; goes on where it stopped

Writes Record/study/choices.json and choices.png, and prints a table: of each variant and seed, the held-out accuracy
after training on the other 55,000 digits, null where that diverged. The test set takes no part.
"""

import dataclasses
import functools
from pathlib import Path

import checkpoint
import mnist
import plots
import utils
from experiments.study import Study, arguments, by_variant, table
from recipes import RECIPES, Recipe
from training import train

PATH = utils.RECORD / "study" / "choices.json"
SEEDS = (0, 1, 2)
HELD_OUT = 5000
SIMPLIFIED = {"subsampling": "average", "connection": "full", "activation": "tanh"}
ADAM, BY_1998 = RECIPES["adam"], RECIPES["1998"]
BY_8 = dataclasses.replace(BY_1998, batch_size=8)  # patterns a step: the 20 passes in a quarter of the time


def start(bound: str, coefficient: float) -> dict:
    return {"bound": bound, "coefficient": coefficient}


def variants() -> dict[str, Recipe]:
    """Everything that is tried, by name."""
    change = dataclasses.replace
    found = {}
    for epochs, bound, coefficients in (
        (20, "2.4/F", (0.25, 1.0)),
        (20, "1/sqrt(F)", (0.25, 1.0)),
        (8, "2.4/F", (0.25,)),
        (8, "1/sqrt(F)", (0.5, 1.0, 2.0)),
        (8, "sqrt(3/F)", (0.25, 0.5, 1.0)),
    ):
        for c in coefficients:
            recipe = change(ADAM, learning_rates=ADAM.learning_rates[:epochs], start=start(bound, c))
            found[f"adam, {epochs} epochs, start {bound}, coefficient {c}"] = recipe
    found["adam, 20 epochs, 61,706 parameters"] = change(ADAM, network=SIMPLIFIED)
    for bound, c, factors in (
        ("2.4/F", 0.25, (1.0, 0.1, 0.05, 0.025)),
        ("2.4/F", 1.0, (1.0, 0.025)),
        ("1/sqrt(F)", 0.25, (1.0, 0.1, 0.05)),
        ("1/sqrt(F)", 0.7, (1.0, 0.2, 0.05)),
        ("1/sqrt(F)", 1.0, (1.0, 0.2, 0.05, 0.025)),
    ):
        for factor in factors:
            recipe = change(BY_8, factor=factor, start=start(bound, c))
            found[f"1998, start {bound}, coefficient {c}, factor {factor}"] = recipe
    found["1998, j 0.1"] = change(BY_8, j=0.1)
    found["1998, j 10"] = change(BY_8, j=10.0)
    found["1998, eq. 8"] = change(BY_8, loss="eq. 8", j=None)
    found["1998, one pattern a step"] = BY_1998
    return found


VARIANTS = variants()


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", choices=[[], *VARIANTS], metavar="VARIANT")
    args = parser.parse_args()
    mnist.find_dataset("mnist", args.data_dir)
    study = Study(PATH, "python -m experiments.choices", summarize)
    tasks = [
        {"variant": name, "seed": seed, "recipe": VARIANTS[name].to_json()}
        for name in args.variants or VARIANTS
        for seed in SEEDS
    ]
    study.finish(tasks, functools.partial(measure, args.data_dir), args.jobs)
    draw(PATH.with_suffix(".png"), study.runs)
    print(table(study.content()["variants"]))


def measure(data_dir: Path, task: dict) -> dict:
    """Train on the rest; held-out accuracies of the weights reported and of the last ones, None if training diverges,
    and with the 1998 recipe the smallest and largest step of the first pass."""
    images, labels = mnist.load_dataset("mnist", data_dir, "train")
    rest, held_out = [(images[part], labels[part]) for part in (slice(-HELD_OUT), slice(-HELD_OUT, None))]
    try:
        *_, trained = train(Recipe.from_json(task["recipe"]), "mnist", task["seed"], rest, held_out)
    except utils.UserError:
        return {"accuracy": None, "last_accuracy": None}
    result = {
        "accuracy": trained.history[-1]["test_accuracy"],
        "last_accuracy": utils.accuracy(checkpoint.network(trained, "last"), *held_out),
    }
    return result | {key: row for key, row in trained.history[0].items() if key == "step_range"}


def summarize(runs: list[dict]) -> dict:
    """The variants that were tried, in the order of VARIANTS."""
    found = by_variant(runs)
    return {"variants": {name: found[name] for name in VARIANTS if name in found}}


@plots.style()
def draw(path: Path, runs: list[dict]):
    """Held-out errors of each variant, a dot a seed."""
    names = [name for name in VARIANTS if any(run["variant"] == name for run in runs)][::-1]
    subtitle = f"error on {HELD_OUT:,} held-out digits; a dot a seed, a bar their mean; recipe 1998: the last weights"
    figure = plots.new_figure("What the recipes leave open", subtitle, height=1.2 + 0.28 * len(names))
    axes = figure.subplots()
    for row, name in enumerate(names):
        all_runs = [run for run in runs if run["variant"] == name]
        finished = [run for run in all_runs if run["accuracy"] is not None]
        if len(finished) < len(all_runs):
            text = f"{len(all_runs) - len(finished)} of {len(all_runs)} seeds diverged"
            place = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
            axes.text(0.99, row, text, color=plots.GREY, backgroundcolor="white", **place)
        if finished and name.startswith("1998"):  # its last weights are those reported
            dots(axes, finished, "accuracy", row, plots.VERMILLION, None)
        elif finished:
            first = name == names[-1]
            dots(axes, finished, "last_accuracy", row - 0.15, plots.SKY, "weights of the last step" if first else None)
            dots(axes, finished, "accuracy", row + 0.15, plots.VERMILLION, "weights reported" if first else None)
    axes.set(xlabel="held-out error (%)", yticks=range(len(names)), yticklabels=names)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    plots.save(figure, path)


def dots(axes, runs: list[dict], key: str, row: float, colour: str, label: str | None):
    """The errors of some runs in one row, and a bar at their mean."""
    errors = [100 - 100 * run[key] for run in runs]
    axes.plot(errors, [row] * len(errors), "o", color=colour, label=label)
    axes.plot(sum(errors) / len(errors), row, "|", color=colour, markersize=11, markeredgewidth=2)


if __name__ == "__main__":
    utils.run_script(main)
