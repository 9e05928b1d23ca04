"""The paper's figure 5: error against passes through the training set, for all recipes, with bands over their seeds.

python -m experiments.passes        Record/study/passes.json and passes.png, from the files of experiments.seeds
"""

import statistics
from pathlib import Path

from matplotlib.ticker import MaxNLocator

import plots
import utils
from experiments.study import COMPARED, compared, seeds_of

PATH = utils.RECORD / "study" / "passes.json"
SETS = ("train", "test")
COLOURS = {"train": plots.BLUE, "test": plots.VERMILLION}
PAPER = 0.95  # %, test error, stable after about 10 passes
PAPER_TRAINING = (19, 0.35)  # passes, % error on the training set


def main():
    utils.Parser(description=__doc__.splitlines()[0]).parse_args()
    curves = {name: curve(seeds_of(name)) for name in COMPARED}
    utils.save_json(PATH, {"command": "python -m experiments.passes", "recipes": curves})
    draw(PATH.with_suffix(".png"), curves)
    for name, row in curves.items():
        after_10, end = (100 * row["test"]["mean"][i] for i in (9, -1))
        print(f"{name}: {after_10:.2f} % after 10 passes, {end:.2f} % at the end")


def curve(runs: list[dict]) -> dict:
    """Errors after each pass, fractions: their mean, least and most over the seeds.

    Of the training set they are running means during the pass, on the digits that the network was shown.
    """
    found = {"seeds": [run["seed"] for run in runs]}
    for subset in SETS:
        passes = list(zip(*([1 - row[f"{subset}_accuracy"] for row in run["history"]] for run in runs)))
        found[subset] = {
            "mean": [statistics.mean(errors) for errors in passes],
            "least": [min(errors) for errors in passes],
            "most": [max(errors) for errors in passes],
        }
    return found


@plots.style()
def draw(path: Path, curves: dict):
    subtitle = "lines are means over seeds, bands their range; dotted: what the paper gives for its network"
    figure = plots.new_figure("Error against passes through the training set", subtitle, height=7.6)
    panels = figure.subplots(3, 2).flat
    for axes, (name, row) in zip(panels, curves.items()):
        for subset in SETS:
            errors = {key: [100 * value for value in values] for key, values in row[subset].items()}
            passes = range(1, len(errors["mean"]) + 1)
            axes.plot(passes, errors["mean"], color=COLOURS[subset])
            axes.fill_between(passes, errors["least"], errors["most"], color=COLOURS[subset], alpha=0.25, linewidth=0)
        if compared(name).name == "1998" and not compared(name).distort:
            axes.axhline(PAPER, color=COLOURS["test"], linestyle=":")
            axes.plot(*PAPER_TRAINING, "x", color=COLOURS["train"], markersize=8, markeredgewidth=2)
        axes.set(title=f"{name} ({len(row['seeds'])} seeds)", ylim=(0, 3), xlim=(0.5, len(passes) + 0.5))
        axes.set(xlabel="passes", ylabel="error (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend = panels[len(curves)]
    legend.set_axis_off()
    for subset, label in ("test", "test set"), ("train", "training set, while it is trained on"):
        legend.plot([], [], color=COLOURS[subset], label=label)
    legend.plot([], [], ":", color=COLOURS["test"], label="paper: test set, 0.95 %")
    legend.plot([], [], "x", color=COLOURS["train"], label="paper: training set, 0.35 % after 19 passes")
    legend.legend(loc="center")
    plots.save(figure, path)


if __name__ == "__main__":
    utils.run_script(main)
