"""The paper's figure 5: error against passes through the training set, of the runs of `seeds`, with their range."""

import statistics
from pathlib import Path

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
    """Test and training errors side by side, on the same logarithmic axes."""
    subtitle = "means over the seeds, bands their range; black: what the paper gives"
    figure = plots.new_figure("Error against passes through the training set", subtitle, height=5.6)
    test, train = figure.subplots(1, 2, sharey=True)
    for name, row in content["variants"].items():
        look = seeds.LOOKS[name]
        for axes, subset in (test, "test"), (train, "train"):
            errors = {key: [100 * value for value in values] for key, values in row[subset].items()}
            passes = range(1, len(errors["mean"]) + 1)
            axes.plot(passes, errors["mean"], label=seeds.TITLES[name], **look)
            axes.fill_between(passes, errors["least"], errors["most"], color=look["color"], alpha=0.15, linewidth=0)
    test.axhline(PAPER, color=plots.INK, linestyle=":", label=f"the paper's test error: {PAPER} %")
    train.plot(*PAPER_TRAINING, "^", color=plots.INK, label="the paper's: {1} % in pass {0}".format(*PAPER_TRAINING))
    for axes, title in (test, "Test set"), (train, "Training set, while it is trained on"):
        axes.set(title=title, xlabel="passes (logarithmic axis)", xscale="log", yscale="log")
        axes.set_xticks([1, 2, 5, 10, 20, 60], ["1", "2", "5", "10", "20", "60"])
        axes.set_yticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
        axes.minorticks_off()
    test.set_ylabel("error (%, logarithmic axis)")
    lines, titles = test.get_legend_handles_labels()
    paper = train.lines[-1]
    figure.legend([*lines, paper], [*titles, paper.get_label()], loc="outside lower left", ncols=2)
    plots.save(figure, path)


EXPERIMENT = Experiment(tables=tables, summarize=summarize, draw=draw, notice=seeds.notice, data=False)
