"""How fast to 99 %? The recipe `fast` from 30 seeds, and accuracy against seconds of all recipes and the usual script.

All run one after the other on one thread; nothing else should run on the machine meanwhile. A run's seconds are those
of its training: augmentation and steps, without tests. `whole command` is ClassifyTask_train.py --recipe fast from its
start to its end, its loops compiled before. The public record that the mean of 30 seeds is modelled on,
tuomaso/train_mnist_fast, trains a wider network on a GPU: 99.04 % in 0.76 s on a laptop.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from experiments import results
from experiments.benchmark import DEFAULT, cpu, new_model, one_epoch, usual_batches
from experiments.runner import Context, Experiment
from figures import plots
from model import normalize, pad
from training import loop
from training.recipes import RECIPES
from utils import ROOT, class_logits

SEEDS = tuple(range(30))
USUAL, COMMAND = "usual script", "whole command"
CURVES = ("default", "best", "1998")
PAPER = 0.95  # %
LOOKS = {name: plots.look(name, RECIPES[name].augment) for name in ("fast", *CURVES)}
LOOKS[USUAL] = {**plots.look(USUAL, augment=False), "color": plots.GREY}


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    others = [{"variant": name, "seed": 0} for name in (*CURVES, USUAL, *[COMMAND] * (not context.tiny))]
    return [{"variant": "fast", "seed": seed} for seed in context.seeds] + others


def measure(context: Context, task: dict) -> dict:
    """Accuracy on the test set after each epoch, and the seconds of training until then."""
    if task["variant"] == COMMAND:
        return {"seconds": statistics.median(whole_command(context) for _ in range(3))}
    curve = usual_curve(context) if task["variant"] == USUAL else recipe_curve(context, task)
    accuracies, seconds = zip(*curve)
    return {"accuracy": accuracies[-1], "seconds": seconds[-1], "curve": curve}


def recipe_curve(context: Context, task: dict) -> list[list[float]]:
    recipe = context.shorten(RECIPES[task["variant"]])
    *_, trained = loop.train(recipe, context.load(), task["seed"])
    seconds = 0.0
    return [[row["test_accuracy"], seconds := seconds + row["seconds"]] for row in trained.history]


def usual_curve(context: Context) -> list[list[float]]:
    """20 epochs of the script that tutorials teach; in a rehearsal one, on MNIST's form of the small digits."""
    device, data = torch.device("cpu"), context.load()
    images, labels = data.test
    model, curve, seconds = new_model(device), [], 0.0
    optimizer = torch.optim.Adam(model.parameters(), DEFAULT.learning_rates[0])
    if context.tiny:
        parts = zip(normalize(pad(data.train[0])).split(32), data.train[1].split(32))
        batches = list(parts).__iter__
    else:
        batches = usual_batches(device, context.data_dir, 60_000)
    for _ in range(1 if context.tiny else DEFAULT.epochs):
        start = time.perf_counter()
        one_epoch(model, optimizer, batches)
        seconds += time.perf_counter() - start
        correct = int((class_logits(model, pad(images)).argmax(1) == labels).sum())
        curve.append([correct / len(labels), seconds])
    return curve


def whole_command(context: Context) -> float:
    """Seconds of the script as a user starts it."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--recipe", "fast", "--data-dir", context.data_dir, "--record-dir", folder, "--dataset", "mnist")
        start = time.perf_counter()
        subprocess.run([sys.executable, ROOT / "ClassifyTask_train.py", *flags], check=True, capture_output=True)
        return time.perf_counter() - start


def summarize(context: Context, runs: list[dict]) -> dict:
    grouped = results.group(runs)
    found = {}
    if own := grouped.get("fast"):
        seconds = [run["seconds"] for run in own]
        found["fast"] = {"seeds": len(own), **results.mean_and_deviation(own), "seconds": statistics.mean(seconds)}
        found["fast"]["slowest"] = max(seconds)
    return found


def tables(content: dict) -> dict[str, str]:
    grouped, fast = results.group(content["runs"]), content["fast"]
    accuracy = f"{100 * fast['mean']:.2f} ± {100 * fast['deviation']:.2f}"
    rows = [["fast", fast["seeds"], accuracy, f"{fast['seconds']:.1f}"]]
    for name in (*CURVES, USUAL):
        for run in grouped.get(name, []):
            rows.append([name, 1, f"{100 * run['accuracy']:.2f}", f"{run['seconds']:.0f}"])
    for run in grouped.get(COMMAND, []):
        rows.append([f"{COMMAND}, fast", "", "", f"{run['seconds']:.1f}"])
    return {"results": results.markdown(["training", "seeds", "test accuracy, %", "seconds"], rows)}


@plots.style()
def draw(context: Context, content: dict, path: Path):
    subtitle = f"one core, a dot an epoch, hollow without augmentation; fast: {content['fast']['seeds']} seeds"
    figure = plots.new_figure("Test error against seconds of training", subtitle, height=5.2)
    axes = figure.subplots()
    for name, own in results.group(content["runs"]).items():
        for i, run in enumerate(own if "curve" in own[0] else []):
            accuracies, seconds = zip(*run["curve"])
            label = None if i else name
            errors = [100 - 100 * accuracy for accuracy in accuracies]
            axes.plot(seconds, errors, marker="o", label=label, alpha=0.35 if len(own) > 1 else 1, **LOOKS[name])
    axes.axhline(PAPER, color=plots.INK, linestyle=":", label=f"the paper: {PAPER} %")
    axes.set(xlabel="seconds of training (logarithmic axis)", ylabel="test error (%, logarithmic axis)")
    axes.set(xscale="log", yscale="log")
    ticks = (1, 2, 5, 10, 20, 50, 100, 200, 500)
    axes.set_xticks(ticks, map(str, ticks))
    axes.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    axes.minorticks_off()
    axes.legend()
    plots.save(figure, path)


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    draw=draw,
    seeds=SEEDS,
    seconds=4,
    alone=True,
    facts=lambda context: {"machine": cpu()},
)
