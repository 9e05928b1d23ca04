"""The paper's figure 8: the test digits misclassified in the runs of `seeds`, and whether recipes differ beyond luck.

Two networks are compared on the same 10,000 digits by McNemar's exact test, seed by seed: of the digits that one of
them gets right and the other does not, how likely would so uneven a split be if both were equally good?
"""

import itertools
import math
from pathlib import Path

from experiments import results, seeds
from experiments.runner import Context, Experiment
from figures import plots

ROWS = 8  # of digits in the figure, at most


def misclassified(context: Context) -> dict[str, dict[int, set[int]]]:
    """Of each variant and seed the numbers of the test digits it gets wrong."""
    found = seeds.found(context)
    return {name: {run["seed"]: set(run["misclassified"]) for run in runs} for name, (_, runs) in found.items()}


def summarize(context: Context, runs: list[dict]) -> dict:
    wrong, variants = misclassified(context), {}
    for name, own in wrong.items():
        variants[name] = {
            "errors": {str(seed): len(digits) for seed, digits in own.items()},
            "by_all_seeds": len(set.intersection(*own.values())),
            "by_any_seed": len(set.union(*own.values())),
        }
    every = [digits for own in wrong.values() for digits in own.values()]
    pairs = [
        {"one": one, "other": other, "seed": seed, **mcnemar(wrong[one][seed], wrong[other][seed])}
        for one, other in itertools.combinations(wrong, 2)
        for seed in wrong[one]
        if seed in wrong[other]
    ]
    shared = {"by_all": sorted(set.intersection(*every)), "by_any": len(set.union(*every))}
    return {"variants": variants, "networks": len(every), **shared, "comparisons": pairs}


def mcnemar(one: set[int], other: set[int]) -> dict:
    """McNemar's exact test of two sets of misclassified digits: those that only one of the networks gets wrong, and p.

    p is two-sided: the probability of a split at least as uneven, if each digit goes to either side by a fair coin.
    """
    only_one, only_other = len(one - other), len(other - one)
    both = only_one + only_other
    tail = sum(math.comb(both, k) for k in range(min(only_one, only_other) + 1)) / 2**both
    return {"only_one": only_one, "only_other": only_other, "p": min(1.0, 2 * tail)}


def tables(content: dict) -> dict[str, str]:
    """How many errors the seeds of a variant share; and each pair of variants, seed by seed."""
    shared = [
        [seeds.TITLES[name], ", ".join(map(str, row["errors"].values())), row["by_all_seeds"], row["by_any_seed"]]
        for name, row in content["variants"].items()
    ]
    shared.append([f"all {content['networks']} networks", "", len(content["by_all"]), content["by_any"]])
    pairs = {}
    for row in content["comparisons"]:
        pairs.setdefault((seeds.TITLES[row["one"]], seeds.TITLES[row["other"]]), []).append(row)
    compared = [
        [
            *pair,
            ", ".join(f"{row['only_one']}:{row['only_other']}" for row in rows),
            ", ".join(f"{row['p']:.2g}" for row in rows),
        ]
        for pair, rows in pairs.items()
    ]
    return {
        "shared": results.markdown(
            ["training run", "errors of each seed", "misclassified by all seeds", "by any"], shared
        ),
        "comparisons": results.markdown(
            ["only misclassified by", "or by", "digits, seed by seed", "p, seed by seed"], compared, labels=2
        ),
    }


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """The digits that the networks get wrong, those first that many do; a dot for each network."""
    images, labels = (tensor.numpy() for tensor in context.load().test)
    wrong = {name: own[min(own)] for name, own in misclassified(context).items()}
    count = {digit: sum(digit in digits for digits in wrong.values()) for digit in set.union(*wrong.values())}
    found = sorted(count, key=lambda digit: (-count[digit], digit))
    shown = found[: ROWS * plots.COLUMNS]
    subtitle = "the label, and a dot for each network of seed 0 that misclassifies the digit"
    title = f"The {len(found):,} test digits misclassified"
    if len(found) > len(shown):
        title += f": the first {len(shown):,}, by the number of networks"
    axes, corners = plots.digit_grid(images[shown], title, subtitle, line=170, header=1.38)
    dots = {name: {**look, "linestyle": "", "marker": "o"} for name, look in seeds.LOOKS.items()}
    for (x, y), digit in zip(corners, shown):
        axes.text(x, y + plots.SIDE + 26, str(labels[digit]), va="center", weight="bold")
        for i, (name, digits) in enumerate(wrong.items()):
            if digit in digits:
                axes.plot(x + 36 + 19 * i, y + plots.SIDE + 25, **dots[name])
    for name, digits in wrong.items():
        axes.plot([], [], label=f"{seeds.TITLES[name]} ({len(digits)})", **dots[name])
    place = (plots.MARGIN / plots.WIDTH, 1 - 0.71 / axes.figure.get_figheight())
    legend = {"loc": "upper left", "ncols": 3, "borderaxespad": 0, "handletextpad": 0, "columnspacing": 1}
    axes.figure.legend(bbox_to_anchor=place, **legend)
    plots.save(axes.figure, path)


EXPERIMENT = Experiment(tables=tables, summarize=summarize, draw=draw, notice=seeds.notice)
