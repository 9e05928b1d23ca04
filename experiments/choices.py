"""What the paper and the recipe leave open, chosen on 5,000 digits held out from MNIST's training set.

python -m experiments.choices [VARIANT ...]     all variants, or those named; goes on where it stopped

Writes Record/study/choices.json and choices.png: of each variant and seed, the held-out accuracy after training on the
other 55,000 digits. The test set takes no part.
"""

import json
from pathlib import Path

import ClassifyTask_train
import plots
import utils

PATH = utils.RECORD / "study" / "choices.json"
HELD_OUT = 5000
PASSES = {"epochs": 6}  # of the 20 passes of the 1998 recipe
BY_8 = {"batch_size": 8}  # patterns a step: all 20 passes in a quarter of the time

STARTS = {bound: {"bound": bound, "coefficient": 0.25} for bound in ("2.4/F", "1/sqrt(F)")}

# name: recipe, seeds, and how it departs from the recipe
VARIANTS = {
    **{
        f"adam, start {bound}, coefficient {coefficient}": (
            "adam",
            (0, 1, 2),
            {"start": {"bound": bound, "coefficient": coefficient}},
        )
        for bound in ("2.4/F", "1/sqrt(F)")
        for coefficient in (0.25, 1.0)
    },
    **{
        f"adam, 8 epochs, start {bound}, coefficient {coefficient}": (
            "adam",
            (0, 1, 2),
            {"epochs": 8, "start": {"bound": bound, "coefficient": coefficient}},
        )
        for bound, coefficients in (("2.4/F", [0.25]), ("1/sqrt(F)", [0.5, 1.0, 2.0]), ("sqrt(3/F)", [0.25, 0.5, 1.0]))
        for coefficient in coefficients
    },
    **{
        f"1998, start {bound}, factor {factor}": ("1998", (0,), {**PASSES, "factor": factor, "start": start})
        for bound, start in STARTS.items()
        for factor in (0.1, 0.05, 0.025, 0.0125)
    },
    **{
        f"1998 by 8, start {bound}, factor {factor}": ("1998", (0, 1, 2), {**BY_8, "factor": factor, "start": start})
        for bound, start in STARTS.items()
        for factor in (1.0, 0.1, 0.05, 0.025, 0.0125)
    },
    **{
        f"1998 by 8, start {bound}, {name}": ("1998", (0, 1, 2), {**BY_8, "start": start, **changes})
        for bound, start in STARTS.items()
        for name, changes in {
            "coefficient 1": {"start": {"bound": bound, "coefficient": 1.0}},
            "j 10": {"j": 10.0},
            "j 100": {"j": 100.0},
            "eq. 8": {"j": -1e4},  # a rubbish class that always wins leaves y_D alone
        }.items()
    },
}


def main():
    parser = utils.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", choices=[[], *VARIANTS], metavar="VARIANT")
    names = parser.parse_args().variants or list(VARIANTS)
    dataset = utils.find_dataset("mnist", Path("data"))
    images, labels = utils.load_dataset(dataset, Path("data"), "train")
    rest, held_out = [(images[part], labels[part]) for part in (slice(-HELD_OUT), slice(-HELD_OUT, None))]
    for name in names:
        recipe, seeds, changes = VARIANTS[name]
        recipe = {"name": recipe, **ClassifyTask_train.RECIPES[recipe], **changes}
        for seed in seeds:
            if any(run["variant"] == name and run["seed"] == seed for run in read()):
                continue
            settings = {"recipe": recipe, "dataset": dataset, "seed": seed}
            for checkpoint in ClassifyTask_train.train(settings, rest, held_out):
                last = checkpoint["history"][-1]
                print(
                    f"{name}, seed {seed}: epoch {last['epoch']}, held-out {last['test_accuracy']:.2%}, "
                    f"training {last['train_accuracy']:.2%}",
                    flush=True,
                )
            run = {"variant": name, "seed": seed, "accuracy": checkpoint["history"][-1]["test_accuracy"]}
            run["last_accuracy"] = utils.accuracy(checkpoint, "last", held_out)
            utils.save_json(PATH, {"command": "python -m experiments.choices", "runs": [*read(), run]})
    draw(PATH.with_suffix(".png"), read())


@plots.style()
def draw(path: Path, runs: list[dict]):
    """Held-out errors of each variant, a dot a seed."""
    variants = [name for name in VARIANTS if any(run["variant"] == name for run in runs)][::-1]
    subtitle = f"error on {HELD_OUT:,} digits held out from the training set; a dot a seed, a bar their mean"
    figure = plots.new_figure("What the recipes leave open", subtitle, height=1.2 + 0.28 * len(variants))
    axes = figure.subplots()
    for row, name in enumerate(variants):
        for key, colour, shift in (("last_accuracy", plots.SKY, -0.15), ("accuracy", plots.VERMILLION, 0.15)):
            errors = [100 - 100 * run[key] for run in runs if run["variant"] == name]
            label = {"accuracy": "weights reported", "last_accuracy": "weights of the last step"}[key]
            axes.plot(errors, [row + shift] * len(errors), "o", color=colour, label=label if row == 0 else None)
            axes.plot(sum(errors) / len(errors), row + shift, "|", color=colour, markersize=11, markeredgewidth=2)
    axes.set(xlabel="held-out error (%)", yticks=range(len(variants)), yticklabels=variants)
    axes.legend(loc="lower right")
    plots.save(figure, path)


def read() -> list[dict]:
    return json.loads(PATH.read_text())["runs"] if PATH.exists() else []


if __name__ == "__main__":
    utils.run_script(main)
