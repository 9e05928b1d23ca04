"""Is it luck? Each recipe trained from several seeds: mean and deviation of its test error.

python -m experiments seeds                        the variants that the study compares, ten times each
python -m experiments seeds best default-plain     those named; default-plain is trained by model.py itself

The networks are kept in Record/study/networks, for the experiments that look at them closer.
"""

import statistics
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import utils
from experiments import results, runner
from experiments.runner import Context, Experiment
from figures import plots
from model import LeNet5, pad
from training import checkpoint, loop, steps
from training.recipes import RECIPES, Recipe
from training.state import State
from utils import shown

SEEDS, PLAIN, NOISY, DISTILLED = tuple(range(10)), "default-plain", "1998-noise", "distilled"
FEWER = {PLAIN: 3, NOISY: 5, DISTILLED: 3}  # seeds
INVERTED = 0.1  # of the pixels, with which the network of the paper's figure 13 was trained
COMPARED = {  # by the name that files have: that of figures and tables, recipe, whether the digits are augmented
    "default": ("default", "default", True),
    "default-no-augment": ("default without augmentation", "default", False),
    "best": ("best", "best", True),
    "1998": ("1998", "1998", False),
    "1998-augment": ("1998 with augmentation", "1998", True),
}
BESIDE = {  # trained if they are named
    PLAIN: ("default by model.py itself", "default", True),
    NOISY: ("1998, a tenth of the pixels inverted", "1998", False),
    "fast": ("fast", "fast", True),
    DISTILLED: ("distilled: best, taught by five of its kind", "distilled", True),
}
TITLES = {name: title for name, (title, *_) in (COMPARED | BESIDE).items()}
LOOKS = {name: plots.look(recipe, augment) for name, (_, recipe, augment) in (COMPARED | BESIDE).items()}
LOOKS[NOISY]["color"] = plots.ORANGE


def recipe_of(variant: str) -> Recipe:
    _, recipe, augment = (COMPARED | BESIDE)[variant]
    return RECIPES[recipe].override(augment=augment)


def recipes(context: Context) -> dict[str, dict]:
    return {name: context.shorten(recipe_of(name)).to_json() for name in TITLES}


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    found = [{"variant": name, "seed": seed} for name in context.variants for seed in context.seeds]
    if context.seeds == SEEDS:  # unless others are asked for
        found = [task for task in found if task["seed"] < FEWER.get(task["variant"], len(SEEDS))]
    return found


def measure(context: Context, task: dict) -> dict:
    """Train: accuracies on the test set and the whole training set, the test digits misclassified (their numbers) and
    what the network takes them for, seconds, each epoch's row."""
    trained, data = train(context, task["variant"], task["seed"]), context.load()
    (images, labels), device = data.test, data.test[0].device
    tested, last = (checkpoint.network(trained, last).to(device) for last in (False, True))
    answers = utils.class_logits(tested, pad(images)).argmax(1)
    wrong = answers != labels
    checkpoint.save(network_file(context, task["variant"], task["seed"]), trained)
    return {
        "accuracy": utils.accuracy(tested, images, labels),
        "last_accuracy": utils.accuracy(last, images, labels),
        "seconds": sum(row["seconds"] for row in trained.history),
        "training_accuracy": utils.accuracy(last, *data.train),
        "misclassified": wrong.nonzero().flatten().tolist(),
        "answers": answers[wrong].tolist(),
        "history": trained.history,
    }


def train(context: Context, variant: str, seed: int) -> checkpoint.Checkpoint:
    recipe = context.shorten(recipe_of(variant))
    make_steps = {PLAIN: steps.plain, NOISY: noisy}.get(variant, loop.fastest)
    committee = [network(context, "best", seed + 1 + i) for i in range(recipe.teachers)]  # as loop.teachers trains them
    *_, trained = loop.train(recipe, context.load(), seed, make_steps=make_steps, committee=committee)
    return trained


def noisy(state: State, recipe: Recipe) -> steps.Steps:
    """The fastest steps, on digits of which a tenth of the pixels is inverted, drawn anew for each step."""
    made, clean = loop.fastest(state, recipe), state.images.clone()

    def run(order: Tensor):
        chosen = order.flatten()
        state.images[chosen] = inverted(clean[chosen], INVERTED, state.generator)
        made.run(order)

    return made._replace(run=run)


def inverted(images: Tensor, share: float, generator: np.random.Generator) -> Tensor:
    """Images uint8 (N, H, W) with this share of their pixels, drawn at random, inverted."""
    chosen = torch.from_numpy(generator.random(images.shape, np.float32) < share)
    return torch.where(chosen, 255 - images, images)


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
    optional=tuple(BESIDE),
    seconds=120,
    device=True,
)


# ------------------------------------------------------------------------------------- for those that read its runs


def network_file(context: Context, variant: str, seed: int) -> Path:
    """Where the network of a run is kept: not in the reference, which would grow by 50 MB."""
    return runner.folder(tiny=context.tiny) / "networks" / f"{variant}-{seed}.safetensors"


def network(context: Context, variant: str, seed: int) -> LeNet5:
    """The network of a run; trained now if it is not there, or is that of another recipe."""
    path = network_file(context, variant, seed)
    if not path.exists() or checkpoint.load(path).recipe != context.shorten(recipe_of(variant)):
        checkpoint.save(path, train(context, variant, seed))
    return checkpoint.load_network(path)


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
