"""The paper's figure 8: the 82 test digits that its network misclassified, and what the networks here make of them.

Reads the runs of `seeds`. Is the paper's network like one more seed of ours? Then it shares as many errors with each of
them as they share with each other.
"""

import collections
import itertools
import statistics
from pathlib import Path

from experiments import results, seeds
from experiments.runner import Context, Experiment
from figures import plots

PAPER = {index: (label, answer) for index, label, answer in results.PAPER["figure 8"]["errors"]}
VARIANT = "1998"


def mistakes(context: Context) -> dict[str, list[dict[int, int]]]:
    """Of each variant and seed what its network takes the test digits for that it misclassifies."""
    return {
        name: [dict(zip(run["misclassified"], run["answers"])) for run in runs]
        for name, (_, runs) in seeds.found(context).items()
    }


def summarize(context: Context, runs: list[dict]) -> dict:
    found = mistakes(context)
    variants = {name: compare(networks) for name, networks in found.items()}
    every = [network for networks in found.values() for network in networks]
    digits = {
        str(index): {
            "label": label,
            "answer": answer,
            "here": collections.Counter(network[index] for network in found[VARIANT] if index in network),
            "misclassified_by": sum(index in network for network in every),
        }
        for index, (label, answer) in PAPER.items()
    }
    return {"variants": variants, "networks": len(every), "digits": digits}


def compare(networks: list[dict[int, int]]) -> dict:
    """What networks share with the paper's, and with each other: means over networks and over pairs of them."""
    with_paper = [overlap(set(network), set(PAPER)) for network in networks]
    same = [sum(network.get(index) == answer for index, (_, answer) in PAPER.items()) for network in networks]
    pairs = [overlap(set(one), set(other)) for one, other in itertools.combinations(networks, 2)]
    return {
        "seeds": len(networks),
        "errors": statistics.mean(map(len, networks)),
        "shared_with_paper": statistics.mean(shared for shared, _ in with_paper),
        "same_answer": statistics.mean(same),
        "paper_jaccard": [share for _, share in with_paper],
        "shared_with_each_other": statistics.mean(shared for shared, _ in pairs) if pairs else None,
        "own_jaccard": [share for _, share in pairs],
    }


def overlap(one: set[int], other: set[int]) -> tuple[int, float]:
    """How many digits two networks both misclassify, and their share of those that either does (Jaccard index)."""
    return len(one & other), len(one & other) / max(len(one | other), 1)


def tables(content: dict) -> dict[str, str]:
    rows = []
    for name, row in content["variants"].items():
        shares = [spread(row[key]) for key in ("paper_jaccard", "own_jaccard")]
        own = "" if row["shared_with_each_other"] is None else f"{row['shared_with_each_other']:.1f}"
        counts = [f"{row[key]:.1f}" for key in ("errors", "shared_with_paper", "same_answer")]
        rows.append([seeds.TITLES[name], row["seeds"], *counts, own, *shares])
    header = ["training run", "seeds", "errors", "of the paper's 82", "with its answer", "shared by two seeds"]
    header += ["shared with the paper, of all errors of both, %", "shared by two seeds, of all errors of both, %"]
    by = collections.Counter(digit["misclassified_by"] for digit in content["digits"].values())
    every, count = content["networks"], len(content["digits"])
    bounds = [(every, every), (every / 2, every - 1), (1, every / 2 - 0.5), (0, 0)]
    titles = [f"all {every} networks", "half of them or more, not all", "at least one, fewer than half", "none"]
    hard = [
        [title, sum(n for networks, n in by.items() if low <= networks <= high)]
        for title, (low, high) in zip(titles, bounds)
    ]
    return {
        "shared": results.markdown(header, rows),
        "digits": results.markdown(
            [f"of the paper's {count} misclassified digits, misclassified here by", "digits"], hard
        ),
    }


def spread(shares: list[float]) -> str:
    """Mean ± deviation in %, of shares."""
    if len(shares) < 2:
        return "".join(f"{100 * share:.0f}" for share in shares)
    return f"{100 * statistics.mean(shares):.0f} ± {100 * statistics.stdev(shares):.0f}"


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """The digits; below each its label and what the paper's network took it for, and what most of ours take it for."""
    images = context.load().test[0].numpy()
    order = sorted(PAPER, key=lambda index: (-content["digits"][str(index)]["misclassified_by"], index))
    order = [index for index in order if index < len(images)]  # the small digits are fewer
    count = content["variants"][VARIANT]["seeds"]
    subtitle = f"label → the paper's answer; below: the commonest wrong answer of {count} networks, how often"
    axes, corners = plots.digit_grid(images[order], "The 82 test digits of the paper's figure 8", subtitle, line=200)
    for (x, y), index in zip(corners, order):
        digit, below = content["digits"][str(index)], {"ha": "center", "va": "center"}
        text = f"{digit['label']} → {digit['answer']}"
        axes.text(x + plots.SIDE / 2, y + plots.SIDE + 22, text, weight="bold", **below)
        answers = collections.Counter(digit["here"]).most_common(1)
        text = "".join(f"{answer}: {networks}" for answer, networks in answers) or "right"
        colour = seeds.LOOKS[VARIANT]["color"] if answers else plots.GREY
        axes.text(x + plots.SIDE / 2, y + plots.SIDE + 55, text, color=colour, **below)
    plots.save(axes.figure, path)


EXPERIMENT = Experiment(tables=tables, summarize=summarize, draw=draw, notice=seeds.notice)
