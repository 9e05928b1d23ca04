"""The paper's figure 5, and over it this repository's training by the same method: error against passes.

Reads the runs of `seeds`. Both errors are compared with the paper's point by point, after each of the 20 passes: point
k of the paper's 21 is taken for pass k, and, beside it, for pass k - 1.
"""

import statistics
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from experiments import results, seeds
from experiments.passes import curve
from experiments.runner import Context, Experiment
from figures import plots

VARIANT = "1998"
SUBSETS = {"training": "train", "test": "test"}


def summarize(context: Context, runs: list[dict]) -> dict:
    """Our errors, pass by pass, as fractions; how far their means are from the paper's, in its unit, %."""
    own = seeds.found(context)[VARIANT][1]
    found = curve(own)
    distances = {}
    for name, subset in SUBSETS.items():
        errors, theirs = [100 * error for error in found[subset]["mean"]], results.PAPER["figure 5"][name]
        differences = [error - paper for error, paper in zip(errors, theirs)]
        ranges = zip(found[subset]["least"], found[subset]["most"], theirs)
        beyond = [max(100 * least - paper, paper - 100 * most) for least, most, paper in ranges]
        distances[name] = {
            "differences": differences,
            "most": max(map(abs, differences)),
            "most_from_pass_3": max(map(abs, differences[2:] or differences)),
            "mean": statistics.mean(map(abs, differences)),
            "outside": [distance for distance in beyond if distance > 0],  # of the paper's points: from our range
            "most_shifted": max(abs(error - paper) for error, paper in zip(errors, theirs[1:])),
        }
    return {"variant": VARIANT, **found, "distances": distances}


def tables(content: dict) -> dict[str, str]:
    """Pass by pass, in %: the paper's errors and ours; and how far apart they are."""
    rows = []
    for i in range(len(content["train"]["mean"])):
        row = [i + 1]
        for name, subset in SUBSETS.items():
            ours = content[subset]
            spread = f"{100 * ours['mean'][i]:.2f} ({100 * ours['least'][i]:.2f} to {100 * ours['most'][i]:.2f})"
            row += [f"{results.PAPER['figure 5'][name][i]:.2f}", spread]
        rows.append(row)
    header = ["pass", "paper: training, %", "here", "paper: test, %", "here"]
    ends = [
        [f"{name} error", *(f"{row[key]:.2f}" for key in ("most", "most_from_pass_3", "mean", "most_shifted"))]
        for name, row in content["distances"].items()
    ]
    measures = ["difference from the paper, %", "largest", "largest from the third pass on", "mean"]
    return {
        "passes": results.markdown(header, rows),
        "distances": results.markdown([*measures, "largest, shifted by a pass"], ends),
    }


@plots.style()
def draw(context: Context, content: dict, path: Path):
    count, passes = len(content["seeds"]), range(1, len(content["train"]["mean"]) + 1)
    subtitle = f"lines and bands: mean and range of {count} seeds; dots: the paper's network, read from its figure"
    figure = plots.new_figure("Figure 5 of the paper, then and now", subtitle, height=5)
    axes = figure.subplots()
    look = seeds.LOOKS[content["variant"]]
    for (name, subset), colour in zip(SUBSETS.items(), (plots.GREY, look["color"])):
        errors = {key: [100 * error for error in values] for key, values in content[subset].items()}
        axes.plot(passes, errors["mean"], **{**look, "color": colour}, label=f"{name} error, here")
        axes.fill_between(passes, errors["least"], errors["most"], color=colour, alpha=0.25, linewidth=0)
        theirs = results.PAPER["figure 5"][name][: len(passes)]
        dots = {"color": colour, "markersize": 8, "markeredgecolor": plots.INK}
        axes.plot(passes, theirs, "o", **dots, label=f"{name} error, paper")
    axes.set(xlabel="passes through the training set", ylabel="error (%)", xlim=(0.5, len(passes) + 0.5), ylim=(0, 5.2))
    axes.xaxis.set_major_locator(MaxNLocator(20, integer=True))
    axes.legend(ncols=2)
    plots.save(figure, path)


EXPERIMENT = Experiment(tables=tables, summarize=summarize, draw=draw, notice=seeds.notice, data=False)
