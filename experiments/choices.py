"""What the paper and the recipe leave open, chosen on 5,000 digits held out from MNIST's training set.

python -m experiments.choices [VARIANT ...]     all variants, or those named; goes on where it stopped

Writes Record/study/choices.json and choices.png: of each variant and seed, the held-out accuracy after training on the
other 55,000 digits, null where that diverged. The test set takes no part.
"""

from pathlib import Path

import ClassifyTask_train
import plots
import utils

PATH = utils.RECORD / "study" / "choices.json"
HELD_OUT = 5000
EPOCHS = {"8 epochs": 8, "20 epochs": 20}
SIMPLIFIED = {"subsampling": "average", "connection": "full", "activation": "tanh"}
BY_8 = {"batch_size": 8}  # patterns a step: the 20 passes of the 1998 recipe in a quarter of the time


def start(bound: str, coefficient: float) -> dict:
    return {"start": {"bound": bound, "coefficient": coefficient}}


# name: recipe, seeds, and how it departs from the recipe
VARIANTS = {
    **{
        f"adam, {epochs}, start {bound}, coefficient {coefficient}": (
            "adam",
            (0, 1, 2),
            {"epochs": EPOCHS[epochs], **start(bound, coefficient)},
        )
        for epochs, bound, coefficients in (
            ("20 epochs", "2.4/F", (0.25, 1.0)),
            ("20 epochs", "1/sqrt(F)", (0.25, 1.0)),
            ("8 epochs", "2.4/F", (0.25,)),
            ("8 epochs", "1/sqrt(F)", (0.5, 1.0, 2.0)),
            ("8 epochs", "sqrt(3/F)", (0.25, 0.5, 1.0)),
        )
        for coefficient in coefficients
    },
    "adam, 20 epochs, 61,706 parameters": ("adam", (0, 1, 2), {"network": SIMPLIFIED}),
    **{
        f"1998, start {bound}, coefficient {coefficient}, factor {factor}": (
            "1998",
            (0, 1, 2),
            {**BY_8, "factor": factor, **start(bound, coefficient)},
        )
        for bound, coefficient, factors in (
            ("2.4/F", 0.25, (1.0, 0.1, 0.05, 0.025)),
            ("2.4/F", 1.0, (1.0, 0.025)),
            ("1/sqrt(F)", 0.25, (1.0, 0.1, 0.05)),
            ("1/sqrt(F)", 0.7, (1.0, 0.2, 0.05)),
            ("1/sqrt(F)", 1.0, (1.0, 0.2, 0.05, 0.025)),
        )
        for factor in factors
    },
    **{
        f"1998, {name}": ("1998", (0, 1, 2), {**BY_8, "factor": 0.05, **start("1/sqrt(F)", 1.0), **changes})
        for name, changes in {
            "j 0.1": {"j": 0.1},
            "j 10": {"j": 10.0},
            "eq. 8": {"j": -1e4},  # a rubbish class that always wins leaves y_D alone
        }.items()
    },
    "1998, one pattern a step": ("1998", (0, 1, 2), {}),
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
            run = {"variant": name, "seed": seed, "recipe": recipe}
            if any(run.items() <= other.items() for other in read()):
                continue
            run.update(measure(run, dataset, rest, held_out))
            others = [other for other in read() if (other["variant"], other["seed"]) != (name, seed)]
            utils.save_json(PATH, {"command": "python -m experiments.choices", "runs": [*others, run]})
    draw(PATH.with_suffix(".png"), read())


def measure(run: dict, dataset: str, rest, held_out) -> dict:
    """Train on the rest; held-out accuracies of the weights reported and of the last ones, None if training diverges,
    and with the 1998 recipe the smallest and largest step of the first pass."""
    settings = {"recipe": run["recipe"], "dataset": dataset, "seed": run["seed"]}
    try:
        for checkpoint in ClassifyTask_train.train(settings, rest, held_out):
            last = checkpoint["history"][-1]
            print(
                f"{run['variant']}, seed {run['seed']}: epoch {last['epoch']}, held-out {last['test_accuracy']:.2%}, "
                f"training {last['train_accuracy']:.2%}",
                flush=True,
            )
    except utils.UserError as error:
        print(f"{run['variant']}, seed {run['seed']}: {error}")
        return {"accuracy": None, "last_accuracy": None}
    history = checkpoint["history"]
    result = {"accuracy": history[-1]["test_accuracy"], "last_accuracy": utils.accuracy(checkpoint, "last", held_out)}
    return {**result, **({"step_range": history[0]["step_range"]} if "step_range" in history[0] else {})}


@plots.style()
def draw(path: Path, runs: list[dict]):
    """Held-out errors of each variant, a dot a seed."""
    variants = [name for name in VARIANTS if any(run["variant"] == name for run in runs)][::-1]
    subtitle = f"error on {HELD_OUT:,} held-out digits; a dot a seed, a bar their mean; recipe 1998: the last weights"
    figure = plots.new_figure("What the recipes leave open", subtitle, height=1.2 + 0.28 * len(variants))
    axes = figure.subplots()
    series = (
        ("last_accuracy", plots.SKY, -0.15, "weights of the last step"),
        ("accuracy", plots.VERMILLION, 0.15, "weights reported"),
    )
    for row, name in enumerate(variants):
        all_runs = [run for run in runs if run["variant"] == name]
        finished = [run for run in all_runs if run["accuracy"] is not None]
        if len(finished) < len(all_runs):
            text = f"{len(all_runs) - len(finished)} of {len(all_runs)} seeds diverged"
            place = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
            axes.text(0.99, row, text, color=plots.GREY, backgroundcolor="white", **place)
        for key, colour, shift, label in series if finished else ():
            errors = [100 - 100 * run[key] for run in finished]
            if name.startswith("1998"):  # one and the same weights
                if key == "last_accuracy":
                    continue
                shift = 0
            axes.plot(
                errors, [row + shift] * len(errors), "o", color=colour, label=label if name == variants[-1] else None
            )
            axes.plot(sum(errors) / len(errors), row + shift, "|", color=colour, markersize=11, markeredgewidth=2)
    axes.set(xlabel="held-out error (%)", yticks=range(len(variants)), yticklabels=variants)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    plots.save(figure, path)


def read() -> list[dict]:
    return utils.read_study(PATH)["runs"]


if __name__ == "__main__":
    utils.run_script(main)
