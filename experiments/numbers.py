"""How well reader.py reads whole numbers: lines of MNIST's test digits, against length, gap, slant and noise.

python -m experiments.numbers            Record/study/numbers.json, numbers.png and sweep.png; goes on where it stopped
python -m experiments.numbers --choose   Record/study/numbers-choice.json: the activation, chosen on held-out digits
python -m experiments.numbers --tiny     a rehearsal on the small digits, into Record/tiny

Seed 0 is Record/numbers/LeNet5.safetensors; other seeds are trained first, into Record/study/seeds, 15 to 20 minutes
each on one core. `--choose` takes the first of the seeds. All start from the network of the recipe "best".
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

import checkpoint
import diagrams
import mnist
import plots
import reader
import training
import utils
from distortions import warp
from experiments.study import HELD_OUT, Study, arguments, by_variant
from lines import MARGIN, Lines, add_noise, sample_lines
from model import LeNet5, scale
from recipes import RECIPES, Recipe, record_dir
from utils import UserError

LINES, FEWER = 10_000, 1_000  # of the targets, and of each change
GAPS = (-4, -3, -2, -1, 0, 1, 2, 4, 8, 16)  # pixels
SLANTS = (-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75)  # pixels to the right for each pixel up
GRAINS = (0, 20, 40, 60, 80, 100)  # grey levels: the standard deviation


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=utils.seed, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal on the small digits, into Record/tiny")
    parser.add_argument("--choose", action="store_true", help="compare activations on held-out digits")
    args = parser.parse_args()
    if args.choose:
        return choose(args)
    dataset = mnist.find_dataset("digits" if args.tiny else "mnist", args.data_dir)
    path = utils.RECORD / ("tiny" if args.tiny else "study") / "numbers.json"
    recipe = reader.RECIPE.override(epochs=1 if args.tiny else None)
    count = 50 if args.tiny else LINES
    study = Study(path, "python -m experiments.numbers" + " --tiny" * args.tiny, summarize, recipe=recipe.to_json())
    work = functools.partial(train_and_measure, recipe, dataset, args.data_dir, count, path.parent / "seeds")
    study.finish([{"seed": seed} for seed in args.seeds], work, args.jobs)
    draw(path.with_suffix(".png"), study.content())
    draw_sweep(
        path.with_name("sweep.png"), trained(recipe, dataset, args.data_dir, 0, path.parent / "seeds"), dataset, args
    )
    print("\n\n".join(tables(study.content()).values()))


CHOOSE_EPOCHS = 8


def choose(args):
    """Compare activations on lines of the training digits that are held out, which no network has seen before."""
    recipes = {
        activation: dataclasses.replace(
            reader.RECIPE.override(epochs=CHOOSE_EPOCHS), network={"activation": activation, "classes": 11}
        )
        for activation in ("relu", "squash")
    }
    path = utils.RECORD / "study" / "numbers-choice.json"
    study = Study(path, "python -m experiments.numbers --choose", lambda runs: {"variants": by_variant(runs)})
    tasks = [{"variant": name, "seed": args.seeds[0], "recipe": recipe.to_json()} for name, recipe in recipes.items()]
    study.finish(tasks, functools.partial(train_on_the_rest, args.data_dir), args.jobs)
    for run in study.runs:
        print(f"{run['variant']}: {1 - run['accuracy']:.2%} of the held-out lines wrong")


def train_on_the_rest(data_dir: Path, task: dict) -> dict:
    """First the digits, then lines of them, without the last 5,000 training digits, which make the test lines."""
    images, labels = mnist.load_dataset("mnist", data_dir, "train")
    rest, held_out = [(images[part], labels[part]) for part in (slice(-HELD_OUT), slice(-HELD_OUT, None))]
    network = {"activation": task["recipe"]["network"]["activation"]}
    digits = dataclasses.replace(RECIPES["best"], network=network)
    *_, start = training.train(digits, "mnist", task["seed"], rest, held_out)
    recipe = Recipe.from_json(task["recipe"])
    *_, latest = reader.train(recipe, "mnist", task["seed"], rest, held_out, checkpoint.network(start))
    lines = sample_lines(held_out, 2000, np.random.default_rng(5))
    found = measure(checkpoint.network(latest), lines)
    return {"accuracy": 1 - found["lines"], "digits": found["digits"]}


def trained(recipe, dataset: str, data_dir: Path, seed: int, folder: Path) -> LeNet5:
    """The network of this seed: from its file, else trained, and kept there."""
    committed = record_dir(recipe, dataset) / checkpoint.FILE
    file = committed if seed == 0 and committed.exists() else folder / f"numbers-{seed}" / checkpoint.FILE
    found = checkpoint.load(file) if file.exists() else None
    if found and found.recipe != recipe:
        raise UserError(f"{file} was trained with another recipe than now; move it away to train anew")
    if not (found and found.finished):
        sets = [mnist.load_dataset(dataset, data_dir, subset) for subset in ("train", "test")]
        start = reader.digit_network(record_dir(RECIPES["best"], "mnist") / checkpoint.FILE)
        for latest in reader.train(recipe, dataset, seed, *sets, start, found):
            checkpoint.save(file, latest)
        found = latest
    return checkpoint.network(found)


def train_and_measure(recipe, dataset: str, data_dir: Path, count: int, folder: Path, task: dict) -> dict:
    """All measurements of one seed; errors are shares."""
    model = trained(recipe, dataset, data_dir, task["seed"], folder)
    test_set = mnist.load_dataset(dataset, data_dir, "test")
    fewer = count * FEWER // LINES
    lines = sample_lines(test_set, count, np.random.default_rng(0))
    outcomes = read_all(model, lines)
    paths = [(number, read) for batch in lines for number, read in zip(batch[1], best_paths(model, batch[0]))]
    result = errors(outcomes) | {"accuracy": 1 - errors(outcomes)["lines"], "best_path": errors(paths)}
    result["length"] = {str(k): errors([o for o in outcomes if len(o[0]) == k]) for k in range(1, 7)}
    draw_lines = functools.partial(sample_lines, test_set, max(fewer, 10))
    result["gap"] = {str(g): measure(model, draw_lines(np.random.default_rng(1), gaps=(g, g))) for g in GAPS}
    result["slant"] = {
        str(s): measure(model, draw_lines(np.random.default_rng(2), change=functools.partial(slant, s))) for s in SLANTS
    }
    for grain in GRAINS:
        noisy = [(add_grain(batch, grain), numbers) for batch, numbers in draw_lines(np.random.default_rng(3))]
        result.setdefault("noise", {})[str(grain)] = measure(model, noisy)
    return result | without_digits(model, fewer)


Outcome = tuple[list[int], list[int]]  # the digits of a line, and those read


def read_all(model: LeNet5, batches: list[Lines]) -> list[Outcome]:
    """What beam search reads in each line."""
    outcomes = []
    for lines, numbers in batches:
        with torch.inference_mode():
            scores = reader.sweep(model, scale(lines))
        outcomes += [(number, list(reader.beam_search(row)[0][0])) for number, row in zip(numbers, scores)]
    return outcomes


def best_paths(model: LeNet5, lines: Tensor) -> list[list[int]]:
    with torch.inference_mode():
        return reader.best_path(reader.sweep(model, scale(lines)))


def measure(model: LeNet5, batches: list[Lines]) -> dict[str, float]:
    return errors(read_all(model, batches))


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
    widths = generator.integers(34, 200, max(count, 10))
    empty = [np.zeros((1, 32, width), np.uint8) for width in widths]
    noise = [add_noise(line, generator) for line in empty]
    shares = {}
    for name, lines in ("empty", empty), ("nothing_but_noise", noise):
        read = [reader.read(model, line[0]).number for line in lines]
        shares[name] = read.count("") / len(read)
    return shares


def summarize(runs: list[dict]) -> dict:
    """Mean and deviation of the errors over the seeds."""
    found = {}
    for name, value in {
        "lines": lambda run: run["lines"],
        "digits": lambda run: run["digits"],
        "best_path_lines": lambda run: run["best_path"]["lines"],
        "single": lambda run: run["length"]["1"]["lines"],
        "empty": lambda run: run["empty"],
        "nothing_but_noise": lambda run: run["nothing_but_noise"],
    }.items():
        found[name] = mean_and_deviation([value(run) for run in runs])
    return {"mean": {k: v[0] for k, v in found.items()}, "deviation": {k: v[1] for k, v in found.items()}}


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def tables(content: dict) -> dict[str, str]:
    """What docs/numbers.md shows, in Markdown; in %."""
    runs = content["runs"]

    def cell(value: Callable[[dict], float], digits: int = 2) -> str:
        mean, deviation = mean_and_deviation([100 * value(run) for run in runs])
        return f"{mean:.{digits}f} ± {deviation:.{digits}f}"

    rows = [
        ("lines of 1 to 6 digits, wrong", cell(lambda r: r["lines"]), "at most 2.0"),
        ("their digits, wrong", cell(lambda r: r["digits"]), "at most 0.6"),
        ("single digits, right", cell(lambda r: 1 - r["length"]["1"]["lines"]), "at least 99.0"),
        ("empty lines without a digit read", cell(lambda r: r["empty"]), "at least 99"),
        ("lines of noise without a digit read", cell(lambda r: r["nothing_but_noise"]), "at least 99"),
        ("lines wrong, best path in place of beam search", cell(lambda r: r["best_path"]["lines"]), ""),
    ]
    lines = ["| measured | % | aim |", "|---|---:|---:|", *(f"| {' | '.join(row)} |" for row in rows)]
    result = {"results": "\n".join(lines)}
    titles = {"length": "digits in the line", "gap": "gap, pixels", "slant": "slant", "noise": "grain, grey levels"}
    for what, title in titles.items():
        keys = list(runs[0][what])
        lines = [f"| {title} | {' | '.join(keys)} |", "|---|" + "---:|" * len(keys)]
        cells = [cell(lambda run, what=what, key=key: run[what][key]["lines"], 1) for key in keys]
        result[what] = "\n".join([*lines, f"| lines wrong, % | {' | '.join(cells)} |"])
    return result


@plots.style()
def draw(path: Path, content: dict):
    runs = content["runs"]
    subtitle = f"lines of 1 to 6 test digits with gaps of −1 to 8 pixels; mean and deviation of {len(runs)} seeds"
    figure = plots.new_figure("Errors of reading whole numbers", subtitle, height=5.2)
    panels = figure.subplots(2, 2).flat
    for axes, (what, label) in zip(
        panels,
        {
            "length": "digits in the line",
            "gap": "gap between digits (pixels; below 0 they overlap)",
            "slant": "slant (pixels to the right for each pixel up)",
            "noise": "noise (grey levels, standard deviation)",
        }.items(),
    ):
        x = [float(key) for key in runs[0][what]]
        for kind, colour in ("lines", plots.BLUE), ("digits", plots.ORANGE):
            values = [mean_and_deviation([100 * run[what][key][kind] for run in runs]) for key in runs[0][what]]
            axes.errorbar(x, *zip(*values), color=colour, marker="o", capsize=2, label=f"{kind} wrong")
        axes.set(xlabel=label, ylabel="error (%)", ylim=(0, min(100, axes.get_ylim()[1])))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=what != "slant"))
    panels[0].legend()
    plots.save(figure, path)


def draw_sweep(path: Path, model: LeNet5, dataset: str, args):
    """The first of the test lines with five digits, as the paper's figure 25 shows it."""
    lines = sample_lines(mnist.load_dataset(dataset, args.data_dir, "test"), 100, np.random.default_rng(0))
    line = next(line for batch, numbers in lines for line, number in zip(batch.numpy(), numbers) if len(number) == 5)
    line = line[:, : np.flatnonzero(line.any(0))[-1] + 1 + MARGIN]  # without what the widest of its batch needs
    diagrams.sweep(path, "A line of test digits", None, line, reader.read(model, line))


if __name__ == "__main__":
    utils.run_script(main)
