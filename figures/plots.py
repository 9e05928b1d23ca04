"""The one figure style, and the figures of training and test: data in, PNG out. The network is drawn in diagrams.py.

Each figure is 8.3 inches and 1,660 pixels wide, twice the width at which a README shows it; no text is smaller than
11 points, so that small letters are 8 pixels high there. A colour, a dash and a mark mean the same in every figure of
results (the drawings of diagrams.py have layers' colours):

- a hue is a recipe's, and a dashed line or a hollow mark is a training run without augmentation: `look`
- ink is the paper's, or what has no recipe; a dotted line is a value that others are held against, the paper's mostly
- red is a misclassified digit
- grey is the training set, and what stands beside the subject

An experiment draws its own in the same style:

    @plots.style()
    def figure(path, ...):
        figure = plots.new_figure("What is shown", "how it was measured", height=4)
        axes = figure.subplots()
        ...
        plots.save(figure, path)
"""

from pathlib import Path

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from utils import whole_files

# Okabe and Ito's colours, which colour-blind readers tell apart too.
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
INK, GREY, LIGHT, PALE = "#222222", "#6B6B6B", "#CCCCCC", "#E8E8E8"
RED = "#A50F15"  # darker than VERMILLION
HUES = {"default": BLUE, "best": GREEN, "1998": VERMILLION, "fast": PURPLE}  # of the recipes

WIDTH, HEADER, MARGIN = 8.3, 0.8, 0.14  # inches: of a figure, of the title above it, left of the title
DPI = 200

STYLE = {
    "figure.facecolor": "white",
    "savefig.dpi": "figure",
    "savefig.facecolor": "auto",
    "savefig.transparent": False,
    "savefig.bbox": None,
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.prop_cycle": cycler(color=[BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY]),
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": PALE,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.linewidth": 1,
    "lines.linewidth": 2.5,
    "lines.markersize": 6,
    "legend.frameon": False,
}


def style():
    """The style, as a decorator of functions that draw or as `with plots.style():`. None of the user's own is in it."""
    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    return matplotlib.rc_context({**defaults, **STYLE})


def look(recipe: str, augment: bool) -> dict[str, str]:
    """What a recipe's line looks like in every figure."""
    colour = HUES.get(recipe, INK)
    return {"color": colour, "linestyle": "-" if augment else "--", "markerfacecolor": colour if augment else "white"}


def new_figure(title: str, subtitle: str, height: float) -> Figure:
    """A figure `height` inches high with nothing but its title; subplots added to it keep clear of the title."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(rect=(0.01, 0.01, 0.98, 0.99 - HEADER / height), wspace=0.06)
    first = figure.text(MARGIN / WIDTH, 1 - 0.35 / height, title, size=16, weight="bold")
    second = figure.text(MARGIN / WIDTH, 1 - 0.63 / height, subtitle, color=GREY)
    for text in (first, second):
        text.set_in_layout(False)
        room = 0.97 * (WIDTH - MARGIN) * DPI / max(text.get_window_extent().width, 1)
        text.set_size(text.get_size() * min(1, room))  # a long one keeps to the figure
    return figure


def canvas(figure: Figure) -> Axes:
    """Bare axes over a whole figure: the unit is a pixel, counted from the upper left corner."""
    width, height = figure.get_size_inches() * DPI
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.set_axis_off()
    figure.set_layout_engine("none")
    return axes


def draw_image(axes: Axes, image: np.ndarray, place: tuple[float, float, float, float], colours="gray", limit=(0, 255)):
    """An image (H, W) in a thin frame on a canvas; place: its left, top, width and height, in pixels.

    `limit` has the values drawn in the first and in the last of the colours. An image (H, W, 3) has its own colours.
    """
    left, top, width, height = place
    extent = (left, left + width, top + height, top)
    axes.imshow(image, colours, aspect="auto", vmin=limit[0], vmax=limit[1], extent=extent)
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=LIGHT, linewidth=0.5))


def draw_fitted(axes: Axes, image: np.ndarray, title: str, left: float, top: float, size: float = 380):
    """An image (H, W), 0 black to 255 white, or (H, W, 3), fitted into a square, `size` pixels a side, on a canvas."""
    height, width = (size * side / max(image.shape[:2]) for side in image.shape[:2])
    axes.text(left, top - 14, title, color=GREY)
    draw_image(axes, image, (left, top, width, height))


def save(figure: Figure, path: Path):
    """Write a figure as PNG, whole or not at all: after an error (OSError) an older file is as it was."""
    with whole_files(path) as folder:
        figure.savefig(folder / path.name, format="png", metadata={"Software": None})  # same data, same bytes


TICKS = (0, 50, 80, 90, 95, 97, 98, 99, 99.5, 100)  # %, of the axis of accuracy


@style()
def training_curve(
    path: Path, history: list[dict], title: str, line: dict[str, str], unit: str = "digit", done: str = "classified"
):
    """Loss and accuracy of both sets against epochs.

    `history` has one dictionary an epoch: epoch, train_loss, train_accuracy, test_loss, test_accuracy, losses in nats
    and accuracies as fractions; `line` is the recipe's `look`, `unit` what they are counted of, and `done` what is done
    to it.
    """
    epochs = [row["epoch"] for row in history]
    figure = new_figure(title, "", height=4.2)
    loss, accuracy = figure.subplots(1, 2)
    for axes, what, scale, final in (loss, "loss", 1, "{:.4f}"), (accuracy, "accuracy", 100, "{:.2f} %"):
        train, test = ([scale * row[f"{data}_{what}"] for row in history] for data in ("train", "test"))
        shape = {"linestyle": line["linestyle"], "clip_on": False, "marker": "o" if len(epochs) == 1 else None}
        axes.plot(epochs, train, color=GREY, label="training set (running mean over the epoch)", **shape)
        axes.plot(epochs, test, color=line["color"], label="test set (after the epoch)", **shape)
        end, beside = (epochs[-1], test[-1]), {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(final.format(test[-1]), end, color=line["color"], **beside)
        axes.set(xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    loss.set(title="Loss (logarithmic axis)", ylabel=f"mean loss of a {unit} (nats)", yscale="log")
    loss.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator(), major_formatter="{x:g}")
    accuracy.set(title="Accuracy (stretched axis)", ylabel=f"{unit}s {done} correctly (%)")
    accuracy.set_yscale("function", functions=(lambda a: -np.log(100.5 - a), lambda y: 100.5 - np.exp(-y)))
    lowest = max(tick for tick in TICKS if tick <= min(train + test))
    accuracy.set_yticks([tick for tick in TICKS if tick >= lowest])
    accuracy.yaxis.set_major_formatter("{x:g}")
    accuracy.set_ylim(lowest, 100)
    place = (MARGIN / WIDTH, 1 - 0.6 / figure.get_figheight())
    legend = figure.legend(handles=loss.lines, loc="center left", bbox_to_anchor=place, ncols=2, borderpad=0)
    legend.set_in_layout(False)
    save(figure, path)


@style()
def confusion_matrix(path: Path, matrix: np.ndarray, title: str):
    """Counts (10, 10) of digits: a row for each true class, a column for each predicted one.

    The diagonal is grey, and the errors alone are coloured, on their own scale. In the margin: errors and recall (%).
    """
    right = np.eye(10, dtype=bool)
    errors = np.where(right, 0, matrix)
    digits, most = matrix.sum(1), max(errors.max(), 1)
    subtitle = f"number of test digits; {errors.sum():,} of {digits.sum():,} were misclassified: the coloured cells"
    figure = new_figure(title, subtitle, height=7.6)
    axes = figure.subplots()
    shades = LinearSegmentedColormap.from_list("errors", ["#FBE3E4", "#D9636B", RED])
    cells = np.where(errors[..., None] > 0, shades(errors / most)[..., :3], 1.0)
    cells[right] = to_rgb(PALE)
    axes.imshow(cells)
    for (row, column), count in np.ndenumerate(matrix):
        dark = errors[row, column] > most / 2
        text, size = (f"{count:,}", 12) if row == column else (str(count or "·"), 17)
        axes.text(column, row, text, size=size, color="white" if dark else INK)
    for i in range(10):
        axes.text(10.1, i, f"{errors[i].sum():,}", color=RED, size=15)
        axes.text(11.2, i, f"{100 * matrix[i, i] / digits[i]:.2f}" if digits[i] else "–", size=13)
        axes.text(i, 10.1, f"{errors[:, i].sum():,}", color=RED, size=15)
    axes.text(4.5, -1.15, "predicted class", size=14)
    axes.text(-1.05, 4.5, "true class", size=14, rotation=90)
    axes.text(10.1, 10.1, f"{errors.sum():,}", color=RED, size=15, weight="bold")
    for text in axes.texts:
        text.set(ha="center", va="center")
    axes.set(xlim=(-0.5, 11.7), ylim=(10.5, -0.5))
    axes.set_xticks([*range(10), 10.1, 11.2], [*range(10), "errors", "recall\n(%)"])
    axes.set_yticks([*range(10), 10.1], [*range(10), "errors"])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False, labelsize=14)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    for lines in (axes.hlines, axes.vlines):
        lines(np.arange(0.5, 9), -0.5, 9.5, color="white", linewidth=2)
    save(figure, path)


# Digits a row, and pixels: from one digit to the next, and of its side, four for each of its 28.
COLUMNS, CELL, SIDE = 12, 136, 112


def digit_grid(
    images: np.ndarray, title: str, subtitle: str, line: int, header: float = HEADER
) -> tuple[Axes, list[tuple[int, int]]]:
    """Digits (N, 28, 28), uint8, in rows `line` pixels high: the axes, and each digit's left and top in pixels.

    `header` has the inches above them.
    """
    rows = max(1, -(-len(images) // COLUMNS))
    axes = canvas(new_figure(title, subtitle, header + rows * line / DPI + 0.04))
    top = round(header * DPI)
    corners = [(28 + CELL * (i % COLUMNS), top + line * (i // COLUMNS)) for i in range(len(images))]
    for image, (x, y) in zip(images, corners, strict=True):
        draw_image(axes, image, (x, y, SIDE, SIDE), "gray_r")
    return axes, corners


@style()
def predictions(path: Path, images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, title: str):
    """Digits (N, 28, 28), uint8, each with the class (N,) predicted; the misclassified framed, true → predicted."""
    wrong = (labels != predicted).sum()
    subtitle = f"below each the class predicted; {wrong:,} of {len(images):,} misclassified: framed, true → predicted"
    axes, corners = digit_grid(images, title, subtitle, line=166)
    for (x, y), label, guess in zip(corners, labels, predicted, strict=True):
        text = axes.text(x + SIDE / 2, y + SIDE + 26, str(guess), size=13, color=GREY, ha="center", va="center")
        if label != guess:
            text.set(text=f"{label} → {guess}", color=RED, weight="bold")
            axes.add_patch(Rectangle((x, y), SIDE, SIDE, fill=False, edgecolor=RED, linewidth=2.5))
    save(axes.figure, path)


SHOWN = 240  # misclassified digits in one figure, at most


@style()
def misclassified(
    path: Path, images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, title: str
):
    """The misclassified digits, (N, 28, 28), uint8, in their order, as true → predicted: the paper's figure 8.

    Labels and predicted classes are (N,), and so are the probabilities, 0 to 1, of the class predicted.
    Those classified correctly are left out, and so is what comes after the first few hundred.
    """
    wrong = np.flatnonzero(labels != predicted)
    shown = wrong[:SHOWN]
    subtitle = "true → predicted class, and the latter's probability"
    if len(wrong) > len(shown):
        subtitle += f"; the first {len(shown):,} of {len(wrong):,}"
    axes, corners = digit_grid(images[shown], title, subtitle, line=200)
    for (x, y), i in zip(corners, shown, strict=True):
        below = {"ha": "center", "va": "center"}
        axes.text(x + SIDE / 2, y + SIDE + 22, f"{labels[i]} → {predicted[i]}", weight="bold", **below)
        axes.text(x + SIDE / 2, y + SIDE + 55, f"{100 * probabilities[i]:.0f} %", color=GREY, **below)
    if not len(wrong):
        axes.text(28, HEADER * DPI + 60, "Not one digit was misclassified.")
    save(axes.figure, path)
