"""How well whole numbers are read: lines of MNIST's test digits, against length, gap, slant and noise.

Trains recipe `numbers` from several seeds, about 25 minutes each on one core; the networks are kept in
Record/study/numbers/SEED. With --reference seed 0 is Record/reference/numbers. All start from a network of the recipe
"best". Besides numbers.png it draws sweep.png, a line as the paper's figure 25 shows it.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from digits.augmentation import warp
from digits.lines import MARGIN, Lines, add_noise, sample_lines
from experiments import results, runner
from experiments.runner import Context, Experiment
from figures import diagrams, plots
from model import LeNet5, normalize
from reading import sweep
from reading.ctc import ctc
from training import checkpoint, loop
from training.recipes import RECIPES, Recipe
from utils import UserError, shown

LINES, FEWER = 10_000, 1_000  # of the targets, and of each change
GAPS = (-4, -3, -2, -1, 0, 1, 2, 4, 8, 16)  # pixels
SLANTS = (-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75)  # pixels to the right for each pixel up
GRAINS = (0, 20, 40, 60, 80, 100)  # grey levels: the standard deviation


def recipe_of(context: Context) -> Recipe:
    return context.shorten(RECIPES["numbers"])


def network_file(context: Context, seed: int) -> Path:
    """The checkpoint of a seed: of a shipped study that of seed 0 is the shipped one."""
    shipped = context.network_file(RECIPES["numbers"])
    if context.reference and seed == 0 and shipped.exists() and not context.tiny:
        return shipped
    return runner.folder(tiny=context.tiny) / "numbers" / str(seed) / checkpoint.FILE


def network(context: Context, seed: int) -> LeNet5:
    """The network of this seed: from its file, else trained, and kept there."""
    file, recipe = network_file(context, seed), recipe_of(context)
    found = checkpoint.load(file) if file.exists() else None
    if found and (found.recipe, found.seed, found.dataset) != (recipe, seed, context.dataset):
        raise UserError(f"{shown(file)} is not of this run; move it away to train anew")
    if not (found and found.finished):
        initial = checkpoint.load_network(context.network_file(RECIPES["best"]))
        for latest in loop.train(recipe, context.load(), seed, found, ctc, initial):
            checkpoint.save(file, latest)
        found = latest
    return checkpoint.network(found)


def measure(context: Context, task: dict) -> dict:
    """All measurements of one seed; errors are shares."""
    model, test_set = network(context, task["seed"]), context.load().test
    count, fewer = (50, 10) if context.tiny else (LINES, FEWER)
    lines = sample_lines(test_set, count, np.random.default_rng(0))
    outcomes = read_all(model, lines)
    paths = [(number, read) for batch in lines for number, read in zip(batch[1], best_paths(model, batch[0]))]
    result = errors(outcomes) | {"accuracy": 1 - errors(outcomes)["lines"], "best_path": errors(paths)}
    result["length"] = {str(k): errors([o for o in outcomes if len(o[0]) == k]) for k in range(1, 7)}
    for what, amounts in {"gap": GAPS, "slant": SLANTS, "noise": GRAINS}.items():
        changed = {str(amount): changed_lines(test_set, fewer, what, amount) for amount in amounts}
        result[what] = {amount: errors(read_all(model, lines)) for amount, lines in changed.items()}
    return result | without_digits(model, fewer)


Outcome = tuple[list[int], list[int]]  # the digits of a line, and those read


def changed_lines(test_set, count: int, what: str, amount: float) -> list[Lines]:
    """Lines of test digits with one of the changes, by this amount."""
    if what == "gap":
        return sample_lines(test_set, count, np.random.default_rng(1), gaps=(amount, amount))
    if what == "slant":
        return sample_lines(test_set, count, np.random.default_rng(2), change=functools.partial(slant, amount))
    lines = sample_lines(test_set, count, np.random.default_rng(3))
    return [(add_grain(batch, amount), numbers) for batch, numbers in lines]


def read_all(model: LeNet5, batches: list[Lines]) -> list[Outcome]:
    """What beam search reads in each line."""
    outcomes = []
    for lines, numbers in batches:
        with torch.inference_mode():
            logits = sweep.sweep(model, normalize(lines))
        outcomes += [(number, list(sweep.beam_search(row)[0][0])) for number, row in zip(numbers, logits)]
    return outcomes


def best_paths(model: LeNet5, lines: Tensor) -> list[list[int]]:
    with torch.inference_mode():
        return sweep.best_path(sweep.sweep(model, normalize(lines)))


def errors(outcomes: list[Outcome]) -> dict[str, float]:
    """The shares of lines and of digits that are wrong: digits by the edit distance."""
    wrong = sum(number != read for number, read in outcomes)
    edits = sum(distance(number, read) for number, read in outcomes if number != read)
    return {
        "lines": wrong / max(len(outcomes), 1),
        "digits": edits / max(sum(len(number) for number, _ in outcomes), 1),
    }


def distance(one: list[int], other: list[int]) -> int:
    """The least number of digits to insert, leave out or replace that makes one the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def slant(amount: float, digits: Tensor) -> Tensor:
    """Digits uint8 (D, 32, 32) sheared: `amount` pixels to the right for each pixel up."""
    return warp(digits, torch.tensor([[1.0, amount, 0], [0, 1, 0]]).expand(len(digits), 2, 3))


def add_grain(lines: Tensor, grain: float) -> Tensor:
    noise = np.random.default_rng(0).standard_normal(lines.shape, np.float32)
    return (lines + grain * torch.from_numpy(noise)).round().clamp(0, 255).to(torch.uint8)


def without_digits(model: LeNet5, count: int) -> dict[str, float]:
    """The share of empty lines, and of lines with nothing but noise, in which no digit is read."""
    generator = np.random.default_rng(4)
    empty = [np.zeros((1, 32, width), np.uint8) for width in generator.integers(34, 200, count)]
    noise = [add_noise(line, generator) for line in empty]
    shares = {}
    for name, lines in ("empty", empty), ("nothing_but_noise", noise):
        read = [sweep.read(model, line[0]).number for line in lines]
        shares[name] = read.count("") / len(read)
    return shares


MEANS: dict[str, Callable[[dict], float]] = {
    "lines": lambda run: run["lines"],
    "digits": lambda run: run["digits"],
    "best_path_lines": lambda run: run["best_path"]["lines"],
    "single": lambda run: run["length"]["1"]["lines"],
    "empty": lambda run: run["empty"],
    "nothing_but_noise": lambda run: run["nothing_but_noise"],
}


def summarize(context: Context, runs: list[dict]) -> dict:
    """Mean and deviation of the errors over the seeds."""
    found = {name: mean_and_deviation([value(run) for run in runs]) for name, value in MEANS.items() if runs}
    return {what: {name: pair[i] for name, pair in found.items()} for i, what in enumerate(("mean", "deviation"))}


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    found = results.mean_and_deviation([{"accuracy": value} for value in values])
    return found["mean"], found["deviation"]


def tables(content: dict) -> dict[str, str]:
    """Errors in %."""
    runs = content["runs"]

    def cell(value: Callable[[dict], float], digits: int = 2) -> str:
        mean, deviation = mean_and_deviation([100 * value(run) for run in runs])
        return f"{mean:.{digits}f} ± {deviation:.{digits}f}"

    rows = [
        ["lines of 1 to 6 digits, wrong", cell(MEANS["lines"]), "at most 2.0"],
        ["their digits, wrong", cell(MEANS["digits"]), "at most 0.6"],
        ["single digits, right", cell(lambda run: 1 - MEANS["single"](run)), "at least 99.0"],
        ["empty lines without a digit read", cell(MEANS["empty"]), "at least 99"],
        ["lines of noise without a digit read", cell(MEANS["nothing_but_noise"]), "at least 99"],
        ["lines wrong, best path in place of beam search", cell(MEANS["best_path_lines"]), ""],
    ]
    result = {"results": results.markdown(["measured", "%", "aim"], rows)}
    titles = {"length": "digits in the line", "gap": "gap, pixels", "slant": "slant", "noise": "grain, grey levels"}
    for what, title in titles.items():
        keys = list(runs[0][what])
        cells = [cell(lambda run, what=what, key=key: run[what][key]["lines"], 1) for key in keys]
        result[what] = results.markdown([title, *keys], [["lines wrong, %", *cells]])
    return result


LABELS = {
    "length": "digits in the line",
    "gap": "gap (pixels; below 0: overlap)",
    "slant": "slant (pixels right per pixel up)",
    "noise": "noise (grey levels, deviation)",
}
KINDS = {"lines": {"color": plots.INK, "marker": "o"}, "digits": {"color": plots.GREY, "marker": "s"}}


@plots.style()
def draw(context: Context, content: dict, path: Path):
    runs = content["runs"]
    subtitle = f"mean and deviation of {len(runs)} seeds; a digit read where none is counts as wrong, too"
    figure = plots.new_figure("Errors of reading whole numbers", subtitle, height=6.4)
    grid = figure.subplots(2, 2, sharey=True)
    for axes, (what, label) in zip(grid.flat, LABELS.items()):
        x = [float(key) for key in runs[0][what]]
        for kind, look in KINDS.items():
            values = [mean_and_deviation([100 * run[what][key][kind] for run in runs]) for key in runs[0][what]]
            axes.errorbar(x, *zip(*values), capsize=3, label=f"{kind} wrong", **look)
        axes.set(xlabel=label, yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
        axes.set_yticks([0.5, 1, 2, 5, 10, 20, 50, 100, 200], ["0.5", "1", "2", "5", "10", "20", "50", "100", "200"])
        axes.minorticks_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("error (%, log. axis)")
    grid[0, 1].legend()
    plots.save(figure, path)
    draw_sweep(context, path.with_name("sweep.png"))


def draw_sweep(context: Context, path: Path):
    """The first of the test lines with five digits, as the network of seed 0 reads it, if that is at hand."""
    if not (file := network_file(context, 0)).exists():
        return
    lines = sample_lines(context.load().test, 100, np.random.default_rng(0))
    line = next(line for batch, numbers in lines for line, number in zip(batch.numpy(), numbers) if len(number) == 5)
    line = line[:, : np.flatnonzero(line.any(0))[-1] + 1 + MARGIN]  # without what the widest of its batch needs
    diagrams.sweep(path, "A line of test digits", None, line, sweep.read(checkpoint.load_network(file), line))


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=lambda context, runs: [{"seed": seed} for seed in context.seeds],
    measure=measure,
    draw=draw,
    facts=lambda context: {"recipe": recipe_of(context).to_json()},
    notice=lambda context: f"starting from the weights of {shown(context.network_file(RECIPES['best']))}",
    seeds=(0, 1, 2),
    seconds=1500,
)
