"""The paper's figure 5: error against passes through the training set, of the runs of `seeds`, with their range."""

import statistics
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from experiments import results, seeds
from experiments.runner import Context, Experiment
from figures import plots

PAPER = 0.95  # %, test error, stable after about 10 passes
PAPER_TRAINING = (19, 0.35)  # passes, % error on the training set


def summarize(context: Context, runs: list[dict]) -> dict:
    return {"variants": {name: curve(own) for name, (_, own) in seeds.found(context).items()}}


def curve(runs: list[dict]) -> dict:
    """Errors after each pass, fractions: their mean, least and most over the seeds.

    Of the training set they are running means during the pass, on the digits that the network was shown.
    """
    found = {"seeds": [run["seed"] for run in runs]}
    for subset in ("train", "test"):
        passes = list(zip(*([1 - row[f"{subset}_accuracy"] for row in run["history"]] for run in runs)))
        found[subset] = {
            "mean": [statistics.mean(errors) for errors in passes],
            "least": [min(errors) for errors in passes],
            "most": [max(errors) for errors in passes],
        }
    return found


def tables(content: dict) -> dict[str, str]:
    means = {seeds.TITLES[name]: row["test"]["mean"] for name, row in content["variants"].items()}
    rows = [
        [title, *(f"{100 * mean:.2f}" for mean in (errors[:10][-1], errors[-1]))] for title, errors in means.items()
    ]
    return {"results": results.markdown(["training run", "test error after 10 passes, %", "at the end, %"], rows)}


@plots.style()
def draw(context: Context, content: dict, path: Path):
    subtitle = "lines are means over seeds, bands their range; dotted: what the paper gives for its network"
    figure = plots.new_figure("Error against passes through the training set", subtitle, height=7.6)
    panels = figure.subplots(3, 2).flat
    for axes, (name, row) in zip(panels, content["variants"].items()):
        look = seeds.LOOKS[name]
        for subset, colour in ("train", plots.GREY), ("test", look["color"]):
            errors = {key: [100 * value for value in values] for key, values in row[subset].items()}
            passes = range(1, len(errors["mean"]) + 1)
            axes.plot(passes, errors["mean"], **{**look, "color": colour})
            axes.fill_between(passes, errors["least"], errors["most"], color=colour, alpha=0.25, linewidth=0)
        if name == "1998":
            axes.axhline(PAPER, color=look["color"], linestyle=":", label=f"paper: test set, {PAPER} %")
            paper = "paper: training set, {1} % after {0} passes".format(*PAPER_TRAINING)
            axes.plot(*PAPER_TRAINING, "x", color=plots.GREY, markersize=8, markeredgewidth=2, label=paper)
            axes.legend(fontsize=7.5)
        axes.set(title=f"{seeds.TITLES[name]} ({len(row['seeds'])} seeds)", ylim=(0, 3), xlim=(0.5, len(passes) + 0.5))
        axes.set(xlabel="passes", ylabel="error (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels[len(content["variants"]) :]:
        axes.set_axis_off()
    for colour, label in (
        *((hue, f"test set, {name}") for name, hue in seeds.HUES.items()),
        (plots.GREY, "training set, while it is trained on"),
    ):
        panels[5].plot([], [], color=colour, label=label)
    panels[5].plot([], [], "--", color=plots.INK, label="dashed: without augmentation")
    panels[5].legend(loc="center")
    plots.save(figure, path)


EXPERIMENT = Experiment(tables=tables, summarize=summarize, draw=draw, notice=seeds.notice, data=False)
