"""Is it luck? Each recipe trained from several seeds: mean and deviation of its test error.

python -m experiments seeds                        the five variants that the study compares, five seeds each
python -m experiments seeds best default-plain     those named; default-plain is trained by model.py itself
"""

import statistics
from pathlib import Path

import utils
from experiments import results, runner
from experiments.runner import Context, Experiment
from figures import plots
from model import pad
from training import checkpoint, loop, steps
from training.recipes import RECIPES, Recipe
from utils import shown

SEEDS, PLAIN = (0, 1, 2, 3, 4), "default-plain"
COMPARED = {  # by the name that files have: that of figures and tables, recipe, whether the digits are augmented
    "default": ("default", "default", True),
    "default-no-augment": ("default without augmentation", "default", False),
    "best": ("best", "best", True),
    "1998": ("1998", "1998", False),
    "1998-augment": ("1998 with augmentation", "1998", True),
}
TITLES = {name: title for name, (title, *_) in COMPARED.items()} | {PLAIN: "default by model.py itself"}
HUES = {"default": plots.BLUE, "best": plots.GREEN, "1998": plots.VERMILLION}
# A hue for each method, and dashes for "without augmentation", in every figure.
LOOKS = {
    name: {"color": HUES[recipe], "linestyle": "-" if augment else "--"}
    for name, (_, recipe, augment) in COMPARED.items()
}


def recipe_of(variant: str) -> Recipe:
    _, recipe, augment = COMPARED["default" if variant == PLAIN else variant]
    return RECIPES[recipe].override(augment=augment)


def recipes(context: Context) -> dict[str, dict]:
    return {name: context.shorten(recipe_of(name)).to_json() for name in TITLES}


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    found = [{"variant": name, "seed": seed} for name in context.variants for seed in context.seeds]
    if context.seeds == SEEDS:  # three of the slow ones, unless more are asked for
        found = [task for task in found if task["variant"] != PLAIN or task["seed"] < 3]
    return found


def measure(context: Context, task: dict) -> dict:
    """Train: accuracies on the test set and the whole training set, the test digits misclassified (their numbers),
    seconds, each epoch's row."""
    data = context.load()
    recipe = context.shorten(recipe_of(task["variant"]))
    make = steps.plain if task["variant"] == PLAIN else loop.fastest
    *_, trained = loop.train(recipe, data, task["seed"], make_steps=make)
    (images, labels), device = data.test, data.test[0].device
    tested, last = (checkpoint.network(trained, last).to(device) for last in (False, True))
    wrong = utils.class_logits(tested, pad(images)).argmax(1) != labels
    return {
        "accuracy": utils.accuracy(tested, images, labels),
        "last_accuracy": utils.accuracy(last, images, labels),
        "seconds": sum(row["seconds"] for row in trained.history),
        "training_accuracy": utils.accuracy(last, *data.train),
        "misclassified": wrong.nonzero().flatten().tolist(),
        "history": trained.history,
    }


def summarize(context: Context, runs: list[dict]) -> dict:
    found, grouped = results.by_variant(runs), results.group(runs)
    seconds = {name: {"seconds": statistics.mean(run["seconds"] for run in own)} for name, own in grouped.items()}
    return {"variants": {name: found[name] | seconds[name] for name in TITLES if name in found}}


def tables(content: dict) -> dict[str, str]:
    """Errors on the test set in %, mean ± deviation."""
    rows = [
        [TITLES[name], row["seeds"], results.error(row), results.error(row, "last_"), f"{row['seconds']:.0f}"]
        for name, row in content["variants"].items()
    ]
    return {"results": results.markdown(["training run", "seeds", "test error, %", "last weights, %", "seconds"], rows)}


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    facts=lambda context: {"recipes": recipes(context)},
    seeds=SEEDS,
    variants=tuple(TITLES),
    optional=(PLAIN,),
    seconds=120,
    device=True,
)


# ------------------------------------------------------------------------------------- for those that read its runs


def found(context: Context) -> dict[str, tuple[Path, list[dict]]]:
    """Of each of COMPARED the file with its runs, the user's own before the reference's, and the runs, by seed.

    A rehearsal reads a rehearsal's runs. Raises UserError if there are none.
    """
    own = context.folder / "seeds.json"
    files = [own] if own.exists() or context.tiny else []
    files += [] if context.tiny or context.reference else [runner.folder(reference=True) / "seeds.json"]
    grouped = {file: results.group(runner.read(file)["runs"]) for file in files or [own]}
    return {
        name: next((file, runs[name]) for file, runs in grouped.items() if name in runs)
        for name in COMPARED
        if any(name in runs for runs in grouped.values())
    }


def notice(context: Context) -> str:
    """Which runs are read."""
    files = {}
    for name, (file, _) in found(context).items():
        files.setdefault(file, []).append(TITLES[name])
    return "\n".join(f"runs of {', '.join(names)}: those in {shown(file)}" for file, names in files.items())
