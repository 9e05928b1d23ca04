"""How long each step of the ladder from 1998 to today takes: three epochs of each, on one core.

One run after the other, in three rounds, on one thread; nothing else should run on the machine meanwhile. An epoch is
the median over rounds and epochs, augmentation included and tests left out; a whole run is that times its epochs. The
factor of the loss makes no difference to the seconds.
"""

import statistics

from experiments import results
from experiments.benchmark import cpu
from experiments.ladder_recipes import BATCHES, FACTORS, LINEAR, ladder
from experiments.runner import Context, Experiment
from training import loop
from training.recipes import Recipe

EPOCHS = 3


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    """Round after round; the seeds are the rounds."""
    return [{"variant": name, "seed": seed} for seed in context.seeds for name in recipes()]


def recipes() -> dict[str, Recipe]:
    return ladder(dict.fromkeys((LINEAR, BATCHES), min(FACTORS)))


def measure(context: Context, task: dict) -> dict:
    recipe = recipes()[task["variant"]].override(epochs=1 if context.tiny else EPOCHS)
    *_, trained = loop.train(recipe, context.load(), task["seed"])
    epochs = [row["seconds"] for row in trained.history]
    return {"seconds": sum(epochs), "epochs": epochs, "path": trained.history[-1]["path"]}


def summarize(context: Context, runs: list[dict]) -> dict:
    """Of each step the seconds of an epoch, the least, and the most, and those of a whole run."""
    found = {}
    for name, own in results.group(runs).items():
        epochs = [seconds for run in own for seconds in run["epochs"]]
        epoch, recipe = statistics.median(epochs), recipes()[name]
        found[name] = {"epoch": epoch, "range": [min(epochs), max(epochs)], "whole": epoch * recipe.epochs}
    return {"variants": found}


def tables(content: dict) -> dict[str, str]:
    rows = [
        [name, f"{one['epoch']:.2f}", "{:.2f} to {:.2f}".format(*one["range"]), f"{one['whole'] / 60:.1f}"]
        for name, one in content["variants"].items()
    ]
    return {"seconds": results.markdown(["step", "seconds an epoch", "range", "minutes, whole run"], rows)}


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    facts=lambda context: {"machine": cpu()},
    seeds=(0, 1, 2),
    seconds=12,
    alone=True,
)
