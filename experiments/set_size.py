"""The paper's figure 6: test error against the size of the training set.

Trains the default and the 1998 recipe, with and without augmentation, on digits drawn at random from the training set:
20 passes through them, 5 seeds. With all 60,000 digits these are the runs of `seeds`.
"""

from pathlib import Path

import numpy as np
import torch

from experiments import results, seeds
from experiments.runner import Context, Experiment
from figures import plots
from training import loop

SIZES, ALL = (1_000, 2_000, 4_000, 8_000, 15_000, 30_000), 60_000
NAMES = tuple(name for name in seeds.COMPARED if name != "best")
PAPER = results.PAPER["figure 6"]


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    return [
        {"variant": name, "size": size, "seed": seed}
        for seed in context.seeds
        for size in ((100, 200) if context.tiny else SIZES)
        for name in NAMES
    ]


def facts(context: Context) -> dict:
    found = seeds.recipes(context)
    return {"recipes": {name: found[name] for name in NAMES}}


def measure(context: Context, task: dict) -> dict:
    """Train on the task's digits: accuracy on the test set, and seconds."""
    data, recipe = context.load(), context.shorten(seeds.recipe_of(task["variant"]))
    images, labels = data.train
    chosen = np.random.default_rng([task["seed"], task["size"]]).permutation(len(labels))[: task["size"]]
    chosen = torch.from_numpy(chosen)
    *_, trained = loop.train(recipe, data._replace(train=(images[chosen], labels[chosen])), task["seed"])
    seconds = sum(row["seconds"] for row in trained.history)
    return {"accuracy": trained.history[-1]["test_accuracy"], "seconds": seconds}


def summarize(context: Context, runs: list[dict]) -> dict:
    """Of each variant and size the seeds, mean and deviation of the accuracy."""
    whole = {} if context.tiny else seeds.found(context)
    found = {}
    for name, own in results.group(runs).items():
        sizes = {size: runs for size, runs in sorted(results.group(own, "size").items())}
        if name in whole:
            sizes[ALL] = [{"accuracy": run["accuracy"]} for run in whole[name][1]]
        found[name] = {
            str(size): {"seeds": len(runs), **results.mean_and_deviation(runs)} for size, runs in sizes.items()
        }
    return {"errors": {name: found[name] for name in NAMES if name in found}}


def tables(content: dict) -> dict[str, str]:
    """Errors in %, mean ± deviation, a row for each size; beside them the points of the paper's figure."""
    errors = content["errors"]
    rows = []
    for size in dict.fromkeys(size for sizes in errors.values() for size in sizes):
        found = [sizes.get(size) for sizes in errors.values()]
        seeds_of_all = min(row["seeds"] for row in found if row)
        paper = dict(zip(PAPER["digits"], PAPER["test"])).get(int(size), "")
        rows.append([f"{int(size):,}", *(results.error(row) if row else "" for row in found), seeds_of_all, paper])
    header = ["digits", *(seeds.TITLES[name] for name in errors), "seeds", "paper, without augmentation"]
    return {"errors": results.markdown(header, rows)}


@plots.style()
def draw(context: Context, content: dict, path: Path):
    errors = content["errors"]
    counts = sorted({row["seeds"] for sizes in errors.values() for row in sizes.values()})
    count = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    subtitle = f"mean and deviation of {count} seeds; 20 passes through the digits, however many"
    figure = plots.new_figure("Test error against the size of the training set", subtitle, height=5.2)
    axes = figure.subplots()
    for name, sizes in errors.items():
        means = [100 - 100 * row["mean"] for row in sizes.values()]
        deviations = [100 * row["deviation"] for row in sizes.values()]
        look = {**seeds.LOOKS[name], "marker": "o", "capsize": 3, "label": seeds.TITLES[name]}
        axes.errorbar([int(size) for size in sizes], means, deviations, **look)
    if context.dataset == "mnist":
        look = {"linestyle": "", "color": plots.INK, "markersize": 9, "zorder": 3}
        hollow = {**look, "marker": "^", "markerfacecolor": "white", "label": "paper, without augmentation"}
        axes.plot(PAPER["digits"], PAPER["test"], **hollow)
        axes.plot(ALL, PAPER["augmented test"], **look, marker="^", label="paper, with distorted digits")
    axes.set(xlabel="training digits (logarithmic axis)", ylabel="test error (%, logarithmic axis)")
    axes.set(xscale="log", yscale="log")
    sizes = [int(size) for size in dict.fromkeys(size for sizes in errors.values() for size in sizes)]
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
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
    facts=facts,
    notice=lambda context: "" if context.tiny else "with all digits: " + seeds.notice(context),
    seeds=seeds.SEEDS[:5],
    seconds=30,
)
