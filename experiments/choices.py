"""What the paper and the recipe leave open, chosen on 5,000 digits held out from MNIST's training set.

python -m experiments.choices [VARIANT ...]     all variants, or those named; goes on where it stopped

Writes Record/study/choices.json and choices.png: of each variant and seed, the held-out accuracy after training on the
other 55,000 digits. The test set takes no part.
"""

import json
import sys
from pathlib import Path

import ClassifyTask_train
import plots
import utils

PATH = utils.RECORD / "study" / "choices.json"
HELD_OUT = 5000
PASSES = {"epochs": 6}  # of the 20 passes of the 1998 recipe

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
    "1998, factor 0.05": ("1998", (0,), {**PASSES}),
    "1998, factor 0.025": ("1998", (0,), {**PASSES, "factor": 0.025}),
    "1998, factor 0.1": ("1998", (0,), {**PASSES, "factor": 0.1}),
    "1998, start 1/sqrt(F)": ("1998", (0,), {**PASSES, "start": {"bound": "1/sqrt(F)", "coefficient": 0.25}}),
    "1998, coefficient 1": ("1998", (0,), {**PASSES, "start": {"bound": "2.4/F", "coefficient": 1.0}}),
    "1998, j 10": ("1998", (0,), {**PASSES, "j": 10.0}),
    "1998, batch 8": ("1998", (0,), {**PASSES, "batch_size": 8}),
}


def main():
    names = sys.argv[1:] or list(VARIANTS)
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
                print(f"{name}, seed {seed}: epoch {last['epoch']}, held-out {last['test_accuracy']:.2%}", flush=True)
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
