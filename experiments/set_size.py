"""The paper's figure 6: test error against the size of the training set.

python -m experiments.set_size            Record/study/set_size.json and set_size.png; goes on where it stopped
python -m experiments.set_size --tiny     a rehearsal on the small digits, an epoch a run, into Record/tiny

Trains the default and the 1998 recipe, with and without distortions, on digits drawn at random from the training set:
20 passes through them, 5 seeds. Runs with all 60,000 digits are those of experiments.seeds.
"""

import functools
from pathlib import Path

import numpy as np
import torch

import mnist
import plots
import utils
from experiments.study import COMPARED, Study, arguments, compared, mean_and_deviation, seeds_of
from training import train

SEEDS = (0, 1, 2, 3, 4)
SIZES = (1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 60_000)
ALL = 60_000
NAMES = tuple(name for name in COMPARED if compared(name).name in ("adam", "1998"))
PAPER, PAPER_DISTORTED = 0.95, 0.8  # % with all digits: the two points of figure 6 that the paper's text gives


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a rehearsal on the small digits, into Record/tiny")
    args = parser.parse_args()
    dataset = mnist.find_dataset("digits" if args.tiny else "mnist", args.data_dir)
    path = utils.RECORD / ("tiny" if args.tiny else "study") / "set_size.json"
    sizes, seeds = ((100, 200), SEEDS[:1]) if args.tiny else (SIZES, SEEDS)
    study = Study(path, "python -m experiments.set_size" + " --tiny" * args.tiny, summarize, dataset=dataset)
    tasks = [
        {"recipe": name, "size": size, "seed": seed, "epochs": 1 if args.tiny else 20}
        for seed in seeds
        for size in sizes
        for name in NAMES
    ]
    for task in tasks:
        if task["size"] == ALL:
            run = next((run for run in seeds_of(task["recipe"]) if run["seed"] == task["seed"]), None)
            copy = run and {**task, **{key: run[key] for key in ("accuracy", "seconds")}}
            if copy and not study.find(copy):  # new, or trained anew since it was copied
                study.runs = [other for other in study.runs if not task.items() <= other.items()]
                study.add(copy)
    study.finish(tasks, functools.partial(measure, dataset, args.data_dir), args.jobs)
    draw(path.with_suffix(".png"), study.content()["errors"], dataset)
    print(*tables(study.content()).values())


def measure(dataset: str, data_dir: Path, task: dict) -> dict:
    """Train on the task's digits: accuracy on the test set, and seconds."""
    (images, labels), test_set = (mnist.load_dataset(dataset, data_dir, subset) for subset in ("train", "test"))
    chosen = torch.from_numpy(
        np.random.default_rng([task["seed"], task["size"]]).permutation(len(labels))[: task["size"]]
    )
    recipe = compared(task["recipe"]).override(epochs=task["epochs"])
    *_, trained = train(recipe, dataset, task["seed"], (images[chosen], labels[chosen]), test_set)
    seconds = sum(row["seconds"] for row in trained.history)
    return {"accuracy": trained.history[-1]["test_accuracy"], "seconds": seconds}


def summarize(runs: list[dict]) -> dict:
    """Of each recipe and size the seeds, mean and deviation of the accuracy."""
    found = {}
    for name in NAMES:
        for size in sorted({run["size"] for run in runs if run["recipe"] == name}):
            own = [run for run in runs if (run["recipe"], run["size"]) == (name, size)]
            found.setdefault(name, {})[str(size)] = {"seeds": len(own), **mean_and_deviation(own)}
    return {"errors": found}


def tables(content: dict) -> dict[str, str]:
    """What docs/study.md shows, in Markdown: errors in %, mean ± deviation, a row for each size."""
    errors = content["errors"]
    lines = [f"| digits | {' | '.join(errors)} | seeds |", "|---:" * (len(errors) + 2) + "|"]
    for size in dict.fromkeys(size for sizes in errors.values() for size in sizes):
        rows = [sizes.get(size) for sizes in errors.values()]
        cells = [f"{100 - 100 * row['mean']:.2f} ± {100 * row['deviation']:.2f}" if row else "" for row in rows]
        seeds = min(row["seeds"] for row in rows if row)
        lines.append(f"| {int(size):,} | {' | '.join(cells)} | {seeds} |")
    return {"errors": "\n".join(lines)}


@plots.style()
def draw(path: Path, errors: dict, dataset: str):
    counts = sorted({row["seeds"] for sizes in errors.values() for row in sizes.values()})
    seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    subtitle = f"mean and deviation of {seeds} seeds; 20 passes through the digits chosen, whatever their number"
    figure = plots.new_figure("Test error against the size of the training set", subtitle, height=4.6)
    axes = figure.subplots()
    styles = zip((plots.BLUE, plots.BLUE, plots.VERMILLION, plots.VERMILLION), ("-", "--", "--", "-"))
    for (name, sizes), (colour, line) in zip(errors.items(), styles):
        means = [100 - 100 * row["mean"] for row in sizes.values()]
        deviations = [100 * row["deviation"] for row in sizes.values()]
        axes.errorbar(
            [int(s) for s in sizes], means, deviations, fmt=line, marker="o", color=colour, capsize=2, label=name
        )
    if dataset == "mnist":
        axes.plot(ALL, PAPER, "k^", markersize=6, label="paper, digits as they are")
        axes.plot(ALL, PAPER_DISTORTED, "kv", markersize=6, label="paper, and 540,000 distorted ones")
    axes.set(xlabel="training digits (logarithmic axis)", ylabel="test error (%, logarithmic axis)")
    axes.set(xscale="log", yscale="log")
    sizes = [int(size) for size in dict.fromkeys(size for sizes in errors.values() for size in sizes)]
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    axes.minorticks_off()
    axes.legend()
    plots.save(figure, path)


if __name__ == "__main__":
    utils.run_script(main)
