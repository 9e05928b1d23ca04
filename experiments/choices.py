"""What the paper and the recipe leave open, chosen by validation on 5,000 of MNIST's training digits.

python -m experiments choices [VARIANT ...]     all variants, or those named

Of each variant and seed, the accuracy on the validation set after training on the other 55,000 digits, null where that
diverged. The test set takes no part.
"""

import dataclasses
from pathlib import Path

from experiments import results, runner
from experiments.runner import Context, Experiment
from figures import plots
from training.recipes import RECIPES, Recipe

STARTS = (("2.4/F", 0.25), ("2.4/F", 1.0), ("1/sqrt(F)", 0.25), ("1/sqrt(F)", 1.0))  # bound, coefficient


def variants() -> dict[str, Recipe]:
    """Everything that is tried, by name."""
    default, by_1998 = map(runner.without_augmentation, ("default", "1998"))
    found = {}
    for recipe in default, by_1998:
        for bound, coefficient in STARTS:
            name = f"{recipe.name}, initialization {bound}, coefficient {coefficient}"
            found[name] = dataclasses.replace(recipe, initialization={"bound": bound, "coefficient": coefficient})
    for factor in (1.0, 0.2):
        found[f"1998, factor {factor}"] = dataclasses.replace(by_1998, factor=factor)
    found["1998, initialization 2.4/F, coefficient 0.25, factor 1.0"] = dataclasses.replace(
        by_1998, factor=1.0, initialization={"bound": "2.4/F", "coefficient": 0.25}
    )
    found["1998, eq. 8"] = dataclasses.replace(by_1998, loss="eq. 8", j=None)
    return found | fast_variants()


def fast_variants() -> dict[str, Recipe]:
    """Everything that was tried for two or three epochs: batch size, peak of the learning rate, and one thing else."""
    peaks = {32: (0.002, 0.003, 0.004), 64: (0.004, 0.006, 0.008), 96: (0.006, 0.009)}
    found = {f"fast, batch {batch}, peak {peak}": fast(batch, peak) for batch, own in peaks.items() for peak in own}
    for what, change in {
        "strength 0.3": {"strength": 0.3},
        "strength 0.7": {"strength": 0.7},
        "warmup 0.1": {"warmup": 0.1},
        "warmup 0.4": {"warmup": 0.4},
        "elastic 0.5 px": {"elastic": 0.5},
        "3 epochs without augmentation": {"augment": False, "learning_rates": (0.006,) * 3},
    }.items():
        found[f"fast, batch 64, peak 0.006, {what}"] = dataclasses.replace(fast(64, 0.006), **change)
    one_rate_an_epoch = {"warmup": 0.0, "learning_rates": (0.003, 0.0005)}
    found["fast, batch 32, rates 0.003 and 0.0005"] = dataclasses.replace(RECIPES["fast"], **one_rate_an_epoch)
    return found


def fast(batch_size: int, peak: float) -> Recipe:
    return dataclasses.replace(RECIPES["fast"], batch_size=batch_size, learning_rates=(peak,) * 2)


VARIANTS = variants()


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    return context.tasks({name: VARIANTS[name] for name in context.variants})


def summarize(context: Context, runs: list[dict]) -> dict:
    """The variants that were tried, in the order of VARIANTS."""
    found = results.by_variant(runs)
    return {"variants": {name: found[name] for name in VARIANTS if name in found}}


def tables(content: dict) -> dict[str, str]:
    """Validation errors; those of the recipe fast have a table of their own."""
    parts = {"results": {}, "fast": {}}
    for name, row in content["variants"].items():
        parts["fast" if name.startswith("fast") else "results"][name] = row
    return {key: results.validation_table({"variants": rows})["results"] for key, rows in parts.items() if rows}


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """Validation errors of each variant, a dot a seed."""
    grouped = results.group(content["runs"])
    names = [name for name in VARIANTS if name in grouped][::-1]
    subtitle = "error on the validation set; a dot a seed, a bar their mean; recipes 1998 and fast: the last weights"
    figure = plots.new_figure("What the recipes leave open", subtitle, height=1.2 + 0.28 * len(names))
    axes = figure.subplots()
    for row, name in enumerate(names):
        finished = [run for run in grouped[name] if run["accuracy"] is not None]
        if len(finished) < len(grouped[name]):
            text = f"{len(grouped[name]) - len(finished)} of {len(grouped[name])} seeds diverged"
            place = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
            axes.text(0.99, row, text, color=plots.GREY, backgroundcolor="white", **place)
        if finished and not finished[0]["recipe"]["ema"]:  # its last weights are those that are tested
            dots(axes, finished, "accuracy", row, plots.VERMILLION if name.startswith("1998") else plots.PURPLE, None)
        elif finished:
            first = name == names[-1]
            dots(axes, finished, "last_accuracy", row - 0.15, plots.SKY, "last weights" if first else None)
            dots(axes, finished, "accuracy", row + 0.15, plots.BLUE, "their moving average (EMA)" if first else None)
    axes.set(xlabel="validation error (%)", yticks=range(len(names)), yticklabels=names)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    plots.save(figure, path)


def dots(axes, runs: list[dict], key: str, row: float, colour: str, label: str | None):
    """The errors of some runs in one row, and a bar at their mean."""
    errors = [100 - 100 * run[key] for run in runs]
    axes.plot(errors, [row] * len(errors), "o", color=colour, label=label)
    axes.plot(sum(errors) / len(errors), row, "|", color=colour, markersize=11, markeredgewidth=2)


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=runner.train_and_validate,
    draw=draw,
    seeds=(0, 1, 2),
    variants=tuple(VARIANTS),
    seconds=80,
)
