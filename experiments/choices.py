"""What the paper and the recipe leave open, chosen on 5,000 digits held out from MNIST's training set.

python -m experiments.choices [VARIANT ...]     all variants, or those named; goes on where it stopped

Writes Record/study/choices.json and choices.png, and prints a table: of each variant and seed, the held-out accuracy
after training on the other 55,000 digits, null where that diverged. The test set takes no part.
"""

import dataclasses
import functools
from pathlib import Path

import mnist
import plots
import utils
from experiments.study import HELD_OUT, Study, arguments, by_variant, table, train_on_the_rest
from recipes import RECIPES, Recipe

PATH = utils.RECORD / "study" / "choices.json"
SEEDS = (0, 1, 2)
STARTS = (("2.4/F", 0.25), ("2.4/F", 1.0), ("1/sqrt(F)", 0.25), ("1/sqrt(F)", 1.0))  # bound, coefficient


def variants() -> dict[str, Recipe]:
    """Everything that is tried, by name."""
    adam, by_1998 = (
        dataclasses.replace(RECIPES[name], distort=False, strength=1.0) for name in ("adam", "1998")
    )  # the digits as they are
    found = {}
    for recipe in adam, by_1998:
        for bound, coefficient in STARTS:
            name = f"{recipe.name}, start {bound}, coefficient {coefficient}"
            found[name] = dataclasses.replace(recipe, start={"bound": bound, "coefficient": coefficient})
    for factor in (1.0, 0.2):
        found[f"1998, factor {factor}"] = dataclasses.replace(by_1998, factor=factor)
    found["1998, start 2.4/F, coefficient 0.25, factor 1.0"] = dataclasses.replace(
        by_1998, factor=1.0, start={"bound": "2.4/F", "coefficient": 0.25}
    )
    found["1998, eq. 8"] = dataclasses.replace(by_1998, loss="eq. 8", j=None)
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
    study.finish(tasks, functools.partial(train_on_the_rest, "mnist", args.data_dir), args.jobs)
    draw(PATH.with_suffix(".png"), study.runs)
    print(table(study.content()["variants"]))


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
