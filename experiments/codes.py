"""The codes of the RBF units, drawn: the paper's figure 3 in this project's hand."""

from pathlib import Path

from experiments import results
from experiments.runner import Context, Experiment
from figures import plots
from model import digit_codes


def summarize(context: Context, runs: list[dict]) -> dict:
    """How many pixels of two codes differ: a row for each digit."""
    codes = digit_codes()
    return {"distances": (codes.unsqueeze(1) != codes).sum(2).tolist()}


def tables(content: dict) -> dict[str, str]:
    rows = [[digit, *row] for digit, row in enumerate(content["distances"])]
    return {"distances": results.markdown(["pixels that differ", *range(10)], rows)}


@plots.style()
def draw(context: Context, content: dict, path: Path):
    least = min(pixels for row in content["distances"] for pixels in row if pixels)
    subtitle = f"7×12 pixels, ink +1 and background −1; any two differ in at least {least} of the 84"
    figure = plots.new_figure("The target codes of the ten output units", subtitle, height=2.3)
    for digit, (axes, code) in enumerate(zip(figure.subplots(1, 10), digit_codes().view(10, 12, 7))):
        axes.imshow(-code, cmap="gray", vmin=-1, vmax=1)
        axes.set(title=digit, xticks=[], yticks=[])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(True)
    plots.save(figure, path)


EXPERIMENT = Experiment(tables=tables, summarize=summarize, draw=draw, data=False)
