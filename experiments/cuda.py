"""All that only a GPU can show, in one command: the marked tests, losses beside the CPU's, resuming, speed.

python -m experiments cuda            on a machine with a GPU; about eight minutes; saved after each part

Each part is a run; a part that fails says why in its row and does not stop the others.
"""

import contextlib
import subprocess
import sys
from pathlib import Path

import torch

import utils
from digits import mnist
from digits.mnist import Data
from experiments import benchmark, results
from experiments.runner import Context, Experiment
from reading.ctc import ctc
from training import checkpoint, loop, provenance, steps
from training.recipes import RECIPES
from utils import ROOT, UserError

EPOCHS = 20


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    if not torch.cuda.is_available():
        raise UserError("no GPU that this PyTorch can use; this experiment is for a machine with one")
    return [{"variant": name} for name in PARTS]


def measure(context: Context, task: dict) -> dict:
    device = utils.pick_device("cuda")
    data = mnist.load("mnist", context.data_dir, device)
    try:
        found = PARTS[task["variant"]](context, data)
    except Exception as error:  # the other parts are wanted all the same
        found = {
            "passed": False,
            "error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        }
    return {"passed": True, **found, "versions": provenance.versions(device)}


def marked_tests(context: Context, data: Data) -> dict:
    """pytest -m cuda: its last line."""
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "cuda"], cwd=ROOT, capture_output=True, text=True)
    return {"passed": run.returncode == 0, "says": run.stdout.strip().splitlines()[-1:]}


def train(name: str, data: Data, epochs: int, **options) -> checkpoint.Checkpoint:
    *_, latest = loop.train(RECIPES[name].override(epochs=epochs), data, 0, **options)
    return latest


def on_cpu(data: Data) -> Data:
    return Data(data.name, *(tuple(tensor.cpu() for tensor in part) for part in (data.train, data.test)))


def by_graph(context: Context, data: Data) -> dict:
    return summary(train("default", data, EPOCHS))


def by_plain(context: Context, data: Data) -> dict:
    return summary(train("default", data, EPOCHS, make_steps=steps.plain))


def by_cpu(context: Context, data: Data) -> dict:
    return summary(train("default", on_cpu(data), EPOCHS))


def summary(trained: checkpoint.Checkpoint) -> dict:
    history = trained.history
    return {
        "path": history[0]["path"],
        "accuracy": history[-1]["test_accuracy"],
        "seconds": sum(row["seconds"] for row in history),
        "losses": [row["train_loss"] for row in history],
    }


def one_epoch(name: str):
    def part(context: Context, data: Data) -> dict:
        options = {}
        if RECIPES[name].reads_numbers:
            options = {"make_steps": ctc, "initial": checkpoint.load_network(context.network_file(RECIPES["best"]))}
        return summary(train(name, data, 1, **options))

    return part


def same(one: checkpoint.Checkpoint, other: checkpoint.Checkpoint) -> bool:
    return all(torch.equal(tensor, other.last[name]) for name, tensor in one.last.items())


def resumed(context: Context, data: Data) -> dict:
    """Two epochs at once, and one after the other from a checkpoint: the same bits."""
    recipe = RECIPES["default"].override(epochs=2)
    first, whole = loop.train(recipe, data, 0)
    *_, parts = loop.train(recipe, data, 0, first)
    return {"passed": same(whole, parts)}


def repeated(context: Context, data: Data) -> dict:
    """The same seed twice: the same bits."""
    return {"passed": same(train("default", data, 1), train("default", data, 1))}


def speed(context: Context, data: Data) -> dict:
    """The rows of the benchmark."""
    with contextlib.redirect_stdout(sys.stderr):
        return benchmark.measure(data.train[0].device, on_cpu(data), context.data_dir, rounds=3)


PARTS = {
    "marked tests": marked_tests,
    "default, cuda_graph": by_graph,
    "the same seed twice": repeated,
    "resumed": resumed,
    "benchmark": speed,
    **{f"{name}, one epoch": one_epoch(name) for name in ("best", "1998", "numbers")},
    "default, plain": by_plain,
    "default on the CPU": by_cpu,
}


def summarize(context: Context, runs: list[dict]) -> dict:
    return {"passed": all(run["passed"] for run in runs)}


def tables(content: dict) -> dict[str, str]:
    rows = []
    for run in content["runs"]:
        accuracy, seconds = (f"{scale * run[key]:.{digits}f}" if key in run else "" for key, scale, digits in (
            ("accuracy", 100, 2), ("seconds", 1, 1)
        ))  # fmt: skip
        rows.append([run["variant"], "yes" if run["passed"] else run.get("error", "no"), accuracy, seconds])
    return {"results": results.markdown(["part", "passed", "test accuracy, %", "seconds"], rows)}


def no_figure(context: Context, content: dict, path: Path):
    pass


EXPERIMENT = Experiment(
    tables=tables, summarize=summarize, tasks=tasks, measure=measure, draw=no_figure, seconds=50, alone=True
)
