"""The paper's figure 8: the test digits that are misread, by whom, and whether two recipes differ by more than luck.

python -m experiments.errors        Record/study/errors.json and errors.png, from the files of experiments.seeds

Two networks are compared on the same 10,000 digits by McNemar's exact test, seed by seed: of the digits that one of
them reads and the other does not, how likely would so uneven a split be if both were equally good?
"""

import itertools
import math
from pathlib import Path

import numpy as np

import mnist
import plots
import utils
from experiments.study import COMPARED, seeds_of

PATH = utils.RECORD / "study" / "errors.json"
COLOURS = dict(zip(COMPARED, (plots.BLUE, plots.SKY, plots.GREEN, plots.VERMILLION, plots.ORANGE)))
ROWS = 18  # of digits in the picture, at most


def main():
    parser = utils.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    args = parser.parse_args()
    mnist.find_dataset("mnist", args.data_dir)
    images, labels = (tensor.numpy() for tensor in mnist.load_dataset("mnist", args.data_dir, "test"))
    misread = {name: {run["seed"]: set(run["misread"]) for run in seeds_of(name)} for name in COMPARED}
    content = {"command": "python -m experiments.errors", **summarize(misread)}
    utils.save_json(PATH, content)
    draw(PATH.with_suffix(".png"), images, labels, {name: seeds[0] for name, seeds in misread.items()})
    print(*tables(content).values(), sep="\n\n")


def summarize(misread: dict[str, dict[int, set[int]]]) -> dict:
    """misread: of each recipe and seed the numbers of the test digits it gets wrong."""
    recipes = {}
    for name, seeds in misread.items():
        by_all, by_any = set.intersection(*seeds.values()), set.union(*seeds.values())
        recipes[name] = {
            "errors": {str(seed): len(digits) for seed, digits in seeds.items()},
            "by_all_seeds": len(by_all),
            "by_any_seed": len(by_any),
        }
    every = [digits for seeds in misread.values() for digits in seeds.values()]
    pairs = [
        {"one": one, "other": other, "seed": seed, **mcnemar(misread[one][seed], misread[other][seed])}
        for one, other in itertools.combinations(misread, 2)
        for seed in misread[one].keys() & misread[other].keys()
    ]
    return {
        "recipes": recipes,
        "networks": len(every),
        "by_all": sorted(set.intersection(*every)),
        "by_any": len(set.union(*every)),
        "comparisons": pairs,
    }


def mcnemar(one: set[int], other: set[int]) -> dict:
    """McNemar's exact test of two sets of misread digits: those that only one of the networks misreads, and p.

    p is two-sided: the probability of a split at least as uneven, if each digit goes to either side by a fair coin.
    """
    only_one, only_other = len(one - other), len(other - one)
    both = only_one + only_other
    tail = sum(math.comb(both, k) for k in range(min(only_one, only_other) + 1)) / 2**both
    return {"only_one": only_one, "only_other": only_other, "p": min(1.0, 2 * tail)}


def tables(content: dict) -> dict[str, str]:
    """What docs/study.md shows, in Markdown."""
    return {"shared": shared(content), "comparisons": comparisons(content)}


def shared(content: dict) -> str:
    """How many errors the seeds of a recipe share, in Markdown."""
    lines = ["| recipe | errors of each seed | misread by all seeds | by any |", "|---|---|---:|---:|"]
    for name, row in content["recipes"].items():
        errors = ", ".join(str(count) for count in row["errors"].values())
        lines.append(f"| {name} | {errors} | {row['by_all_seeds']} | {row['by_any_seed']} |")
    lines.append(f"| all {content['networks']} networks | | {len(content['by_all'])} | {content['by_any']} |")
    return "\n".join(lines)


def comparisons(content: dict) -> str:
    """Each pair of recipes, in Markdown: the digits that only one of them misreads, and p, seed by seed."""
    found = {}
    for row in content["comparisons"]:
        found.setdefault((row["one"], row["other"]), []).append(row)
    lines = ["| only misread by | or by | digits, seed by seed | p, seed by seed |", "|---|---|---|---|"]
    for (one, other), rows in found.items():
        digits = ", ".join(f"{row['only_one']}:{row['only_other']}" for row in rows)
        p = ", ".join(f"{row['p']:.2g}" for row in rows)
        lines.append(f"| {one} | {other} | {digits} | {p} |")
    return "\n".join(lines)


@plots.style()
def draw(path: Path, images: np.ndarray, labels: np.ndarray, misread: dict[str, set[int]]):
    """Every digit (N, 28, 28) that one of the networks misreads, those first that many do; a dot for each network."""
    count = {digit: sum(digit in digits for digits in misread.values()) for digit in set.union(*misread.values())}
    found = sorted(count, key=lambda digit: (-count[digit], digit))
    shown = found[: ROWS * plots.COLUMNS]
    subtitle = "the true class, and a dot for each network (seed 0) that misreads it"
    if len(found) > len(shown):
        subtitle += f"; the first {len(shown):,}"
    axes, corners = plots.digit_grid(images[shown], f"The {len(found):,} test digits misread", subtitle, line=176)
    for (x, y), digit in zip(corners, shown):
        axes.text(x, y + plots.SIDE + 22, str(labels[digit]), va="center", weight="bold")
        for i, (name, digits) in enumerate(misread.items()):
            if digit in digits:
                axes.plot(x + 30 + 17 * i, y + plots.SIDE + 22, "o", color=COLOURS[name], markersize=4)
    for name in misread:
        axes.plot([], [], "o", color=COLOURS[name], label=f"{name} ({len(misread[name])})")
    axes.figure.legend(loc="upper right", ncols=2, fontsize=7.5, columnspacing=1)
    plots.save(axes.figure, path)


if __name__ == "__main__":
    utils.run_script(main)
