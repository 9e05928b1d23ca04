"""Committees: the mean probability of several networks of the same recipe, which differ by their seeds alone.

The networks are those of `seeds`. An error of k members is the mean over all committees of k that the networks give.
Boosted LeNet-4, the paper's way to make three networks differ, stands beside: its runs are those of `section_3`.
"""

import itertools
import statistics
from pathlib import Path

from torch import Tensor

import utils
from ClassifyTask_test import wilson_interval
from experiments import comparison, results, seeds
from experiments.runner import Context, Experiment
from figures import plots
from model import pad

TITLES = {name: seeds.TITLES[name] for name in (*seeds.COMPARED, "fast")}
BOOSTED = "boosted-lenet-4"


def measure(context: Context, task: dict) -> dict:
    """The errors of the members, and the mean error of the committees of 1, 2, ... members."""
    images, labels = context.load().test
    networks = [seeds.network(context, task["variant"], seed) for seed in task["members"]]
    probabilities = [utils.class_logits(network, pad(images)).softmax(1) for network in networks]
    curve = errors(probabilities, labels)
    parameters = sum(p.numel() for network in networks for p in network.parameters())
    members = [1 - utils.accuracy(network, images, labels) for network in networks]
    return {"digits": len(labels), "errors": members, "curve": curve, "parameters": parameters}


def errors(probabilities: list[Tensor], labels: Tensor) -> list[float]:
    """Given each member's probabilities (N, 10): the mean error of all committees of 1, 2, ... of them."""
    return [
        statistics.mean(
            (sum(chosen).argmax(1) != labels).double().mean().item()
            for chosen in itertools.combinations(probabilities, size)
        )
        for size in range(1, len(probabilities) + 1)
    ]


def summarize(context: Context, runs: list[dict]) -> dict:
    """Of each variant what its run has, and the interval of the whole committee; and boosted LeNet-4's runs."""
    found = {
        run["variant"]: run | {"interval": wilson_interval(run["curve"][-1] * run["digits"], run["digits"])}
        for run in runs
    }
    _, boosted = comparison.known(context).get(BOOSTED, (None, []))
    return {
        "variants": {name: found[name] for name in TITLES if name in found},
        "boosted": [{"error": 1 - run["accuracy"], "parameters": run["parameters"]} for run in boosted],
    }


def tables(content: dict) -> dict[str, str]:
    """Errors in %: of a member, mean ± deviation, and of all together."""
    rows = []
    for name, row in content["variants"].items():
        low, high = (f"{100 * bound:.2f}" for bound in row["interval"])
        together = [f"{100 * row['curve'][i]:.2f}" for i in (2, -1) if i < len(row["curve"])]
        cells = [*alone(row["errors"]), *together, f"{low} to {high}"]
        rows.append([TITLES[name], *cells, f"{row['parameters']:,}"])
    if boosted := content["boosted"]:
        _, three = alone([run["error"] for run in boosted])
        rows.append([comparison.ALL[BOOSTED][0], 3, "", three, "", "", f"{boosted[0]['parameters']:,}"])
    header = ["recipe", "networks", "one: test error, %", "three", "all", "95 % interval", "parameters"]
    return {"results": results.markdown(header, rows)}


def alone(errors: list[float]) -> list:
    """How many, and mean ± deviation in %."""
    row = results.mean_and_deviation([{"accuracy": 1 - error} for error in errors])
    return [len(errors), results.error(row)]


@plots.style()
def draw(context: Context, content: dict, path: Path):
    subtitle = "by the mean of their probabilities; boosted LeNet-4 adds the outputs of three"
    figure = plots.new_figure("Committees of LeNet-5", subtitle, 5.4)
    axes = figure.subplots()
    for name, row in content["variants"].items():
        sizes = range(1, len(row["curve"]) + 1)
        axes.plot(sizes, [100 * error for error in row["curve"]], label=TITLES[name], marker="o", **seeds.LOOKS[name])
    if content["boosted"]:
        mean = 100 * statistics.mean(run["error"] for run in content["boosted"])
        axes.plot(3, mean, "D", color=plots.SKY, markersize=8, label="boosted LeNet-4")
        axes.plot(3, comparison.ALL[BOOSTED][1], "^", color=plots.INK, markersize=8, label="the paper's")
    axes.set(xlabel="networks", ylabel="test error (%)", ylim=(0, None), xticks=range(1, len(seeds.SEEDS) + 1))
    figure.legend(loc="outside lower center", ncols=3)
    plots.save(figure, path)


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=lambda context, runs: [{"variant": name, "members": list(context.seeds)} for name in TITLES],
    measure=measure,
    draw=draw,
    facts=lambda context: {"recipes": {name: seeds.recipes(context)[name] for name in TITLES}},
    seeds=seeds.SEEDS,
    seconds=20,
)
