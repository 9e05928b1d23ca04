"""The one figure style, and the figures of the scripts: data in, PNG out.

Each figure is 8.3 inches and 1,660 pixels wide, twice the width at which a README shows it.
An experiment draws its own in the same style:

    @plots.style()
    def figure(path, ...):
        figure = plots.new_figure("What is shown", "how it was measured", height=4)
        axes = figure.subplots()
        ...
        plots.save(figure, path)
"""

import os
from pathlib import Path

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon, Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

# Okabe and Ito's colours, which colour-blind readers tell apart too.
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
INK, GREY, PALE = "#222222", "#6B6B6B", "#E8E8E8"

WIDTH, HEADER, MARGIN = 8.3, 0.75, 0.14  # inches: of a figure, of the title above it, left of the title
DPI = 200

STYLE = {
    "figure.facecolor": "white",
    "savefig.dpi": "figure",
    "savefig.facecolor": "auto",
    "savefig.transparent": False,
    "savefig.bbox": None,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.prop_cycle": cycler(color=[BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY]),
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": PALE,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.7,
    "lines.markersize": 4,
    "legend.frameon": False,
}


def style():
    """The style, as a decorator of functions that draw or as `with plots.style():`."""
    return matplotlib.rc_context(STYLE)


def new_figure(title: str, subtitle: str, height: float) -> Figure:
    """A figure `height` inches high with nothing but its title; subplots added to it keep clear of the title."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(rect=(0.01, 0.01, 0.98, 0.99 - HEADER / height), wspace=0.06)
    figure.text(MARGIN / WIDTH, 1 - 0.32 / height, title, size=12, weight="bold").set_in_layout(False)
    figure.text(MARGIN / WIDTH, 1 - 0.54 / height, subtitle, color=GREY).set_in_layout(False)
    return figure


def canvas(figure: Figure) -> Axes:
    """Bare axes over a whole figure: the unit is a pixel, counted from the upper left corner."""
    width, height = figure.get_size_inches() * DPI
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.set_axis_off()
    figure.set_layout_engine("none")
    return axes


def save(figure: Figure, path: Path):
    """Write a figure as PNG, whole or not at all: after an error (OSError) an older file is as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", metadata={"Software": None})  # same data, same bytes
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


TICKS = (0, 50, 80, 90, 95, 97, 98, 99, 99.5, 100)  # %, of the axis of accuracy


@style()
def training_curve(path: Path, history: list[dict], title: str):
    """Loss and accuracy of both sets against epochs.

    `history` has one dictionary an epoch: epoch, train_loss, train_accuracy, test_loss, test_accuracy, losses in nats
    and accuracies as fractions.
    """
    epochs = [row["epoch"] for row in history]
    figure = new_figure(title, "", height=4)
    loss, accuracy = figure.subplots(1, 2)
    for axes, what, scale, final in (loss, "loss", 1, "{:.4f}"), (accuracy, "accuracy", 100, "{:.2f} %"):
        train, test = ([scale * row[f"{data}_{what}"] for row in history] for data in ("train", "test"))
        axes.plot(epochs, train, "s--", color=BLUE, clip_on=False, label="training set (running mean over the epoch)")
        axes.plot(epochs, test, "o-", color=VERMILLION, clip_on=False, label="test set (after the epoch)")
        end = (epochs[-1], test[-1])
        axes.annotate(final.format(test[-1]), end, (7, 0), textcoords="offset points", va="center", color=VERMILLION)
        axes.set(xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    loss.set(title="Loss (logarithmic axis)", ylabel="mean loss of a digit", yscale="log")
    loss.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator(), major_formatter="{x:g}")
    accuracy.set(title="Accuracy (axis stretched towards 100 %)", ylabel="digits read correctly (%)")
    accuracy.set_yscale("function", functions=(lambda a: -np.log(100.5 - a), lambda y: 100.5 - np.exp(-y)))
    lowest = max(tick for tick in TICKS if tick <= min(train + test))
    accuracy.set_yticks([tick for tick in TICKS if tick >= lowest])
    accuracy.yaxis.set_major_formatter("{x:g}")
    accuracy.set_ylim(lowest, 100)
    place = (0, 1 - 0.5 / figure.get_figheight())
    figure.legend(handles=loss.lines, loc="center left", bbox_to_anchor=place, ncols=2).set_in_layout(False)
    save(figure, path)


@style()
def confusion_matrix(path: Path, matrix: np.ndarray, title: str):
    """Counts (10, 10) of digits: a row for each true class, a column for each predicted one.

    The diagonal is grey, and the errors alone are coloured, on their own scale. In the margin: errors and recall (%).
    """
    right = np.eye(10, dtype=bool)
    errors = np.where(right, 0, matrix)
    digits, most = matrix.sum(1), max(errors.max(), 1)
    subtitle = f"number of test digits; {errors.sum():,} of {digits.sum():,} were misread, coloured by their number"
    figure = new_figure(title, subtitle, height=7.3)
    axes = figure.subplots()
    shades = LinearSegmentedColormap.from_list("errors", ["#FBE6D8", VERMILLION, "#7A3600"])
    cells = np.where(errors[..., None] > 0, shades(errors / most)[..., :3], 1.0)
    cells[right] = to_rgb(PALE)
    axes.imshow(cells)
    for (row, column), count in np.ndenumerate(matrix):
        dark = errors[row, column] > most / 2
        axes.text(column, row, f"{count:,}" if count or row == column else "·", color="white" if dark else INK)
    for i in range(10):
        axes.text(10.1, i, f"{errors[i].sum():,}", color=VERMILLION)
        axes.text(11.25, i, f"{100 * matrix[i, i] / digits[i]:.2f}" if digits[i] else "–")
        axes.text(i, 10.1, f"{errors[:, i].sum():,}", color=VERMILLION)
    axes.text(4.5, -1.25, "predicted class")
    axes.text(-1.1, 4.5, "true class", rotation=90)
    axes.text(10.1, 10.1, f"{errors.sum():,}", color=VERMILLION, weight="bold")
    for text in axes.texts:
        text.set(ha="center", va="center")
    axes.set(xlim=(-0.5, 11.9), ylim=(10.5, -0.5))
    axes.set_xticks([*range(10), 10.1, 11.25], [*range(10), "errors", "recall (%)"])
    axes.set_yticks([*range(10), 10.1], [*range(10), "errors"])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    for lines in (axes.hlines, axes.vlines):
        lines(np.arange(0.5, 9), -0.5, 9.5, color="white", linewidth=2)
    save(figure, path)


# Digits a row, and pixels: from one digit to the next, and of its side, four for each of its 28.
COLUMNS, CELL, SIDE = 12, 136, 112


def digit_grid(images: np.ndarray, title: str, subtitle: str, line: int) -> tuple[Axes, list[tuple[int, int]]]:
    """Digits (N, 28, 28), uint8, in rows `line` pixels high: the axes, and each digit's left and top in pixels."""
    rows = max(1, -(-len(images) // COLUMNS))
    axes = canvas(new_figure(title, subtitle, HEADER + rows * line / DPI + 0.04))
    top = round(HEADER * DPI)
    corners = [(28 + CELL * (i % COLUMNS), top + line * (i // COLUMNS)) for i in range(len(images))]
    for image, (x, y) in zip(images, corners, strict=True):
        axes.imshow(image, "gray_r", aspect="auto", vmin=0, vmax=255, extent=(x, x + SIDE, y + SIDE, y))
        axes.add_patch(Rectangle((x, y), SIDE, SIDE, fill=False, edgecolor="#CCCCCC", linewidth=0.5))
    return axes, corners


@style()
def predictions(path: Path, images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, title: str):
    """Digits (N, 28, 28), uint8, each with the class (N,) predicted; the misread ones framed, true → predicted."""
    wrong = (labels != predicted).sum()
    subtitle = (
        f"below each digit the class predicted; {wrong:,} of {len(images):,} misread: framed, as true → predicted"
    )
    axes, corners = digit_grid(images, title, subtitle, line=156)
    for (x, y), label, guess in zip(corners, labels, predicted, strict=True):
        text = axes.text(x + SIDE / 2, y + SIDE + 22, str(guess), color=GREY, ha="center", va="center")
        if label != guess:
            text.set(text=f"{label} → {guess}", color=VERMILLION, weight="bold")
            axes.add_patch(Rectangle((x, y), SIDE, SIDE, fill=False, edgecolor=VERMILLION, linewidth=2))
    save(axes.figure, path)


SHOWN = 240  # misread digits in one figure, at most


@style()
def misclassified(
    path: Path, images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, scores: np.ndarray, title: str
):
    """The misread ones of the digits (N, 28, 28), uint8, in their order, as true → predicted: the paper's figure 8.

    Labels and predicted classes are (N,), and so are the scores: the probability, 0 to 1, of the class predicted.
    Those read correctly are left out, and so is what comes after the first few hundred.
    """
    wrong = np.flatnonzero(labels != predicted)
    shown = wrong[:SHOWN]
    subtitle = "true → predicted class, and the probability that the network gave to the latter"
    if len(wrong) > len(shown):
        subtitle += f"; the first {len(shown):,} of {len(wrong):,}"
    axes, corners = digit_grid(images[shown], title, subtitle, line=190)
    for (x, y), i in zip(corners, shown, strict=True):
        centre = x + SIDE / 2
        axes.text(centre, y + SIDE + 20, f"{labels[i]} → {predicted[i]}", weight="bold", ha="center", va="center")
        axes.text(centre, y + SIDE + 48, f"{100 * scores[i]:.0f} %", color=GREY, size=8, ha="center", va="center")
    if not len(wrong):
        axes.text(28, HEADER * DPI + 60, "Not one digit was misread.", size=12, color=GREEN)
    save(axes.figure, path)


UNIT, AXIS = 6, 378  # pixels: the side of a unit, and the height of the line on which the layers are centred
CENTRES = (124, 396, 640, 850, 1056, 1242, 1404, 1560)  # pixels: the input and the seven layers
COLOURS = {"c": BLUE, "s": ORANGE, "f": GREEN, "o": PURPLE}  # by the first letter of a layer's name


def handwritten_three() -> np.ndarray:
    """The input of the drawn network: a 3 of (32, 32) pixels, 0 paper, 1 ink."""
    upper, lower = np.linspace(-2.6, 1.75, 60), np.linspace(-1.65, 2.6, 60)
    x = np.append(15.5 + 4.6 * np.cos(upper), 15.2 + 5.6 * np.cos(lower))
    y = np.append(10.6 + 4.7 * np.sin(upper), 20.6 + 5.4 * np.sin(lower))
    rows, columns, _ = np.ogrid[:32, :32, :1]
    return np.clip(2.1 - np.hypot(columns - x, rows - y).min(2), 0, 1)


def draw_maps(axes: Axes, centre: int, maps: int, size: int, colour: str) -> Bbox:
    """Overlapping maps, `size` units a side, the last one in front; returns where the front map is."""
    side, spread = UNIT * size, 30 * (maps - 1) ** 0.5
    for depth in np.linspace(0, 1, maps):
        corner = depth * spread - (side + spread) / 2
        place = Bbox.from_bounds(centre + corner, AXIS + corner, side, side)
        face = 1 - (0.2 + 0.25 * depth) * (1 - np.array(to_rgb(colour)))
        axes.add_patch(Rectangle(place.p0, side, side, facecolor=face, edgecolor=colour, linewidth=0.7))
    return place


def draw_units(axes: Axes, centre: int, units: int, colour: str) -> Bbox:
    """Units without maps, four a row; returns where they are."""
    place = Bbox.from_bounds(centre - 15, AXIS - units, 30, 2 * units - 2)
    for i in range(units):
        corner = place.x0 + 8 * (i % 4), place.y0 + 8 * (i // 4)
        axes.add_patch(Rectangle(corner, UNIT, UNIT, facecolor=colour))
    return place


def draw_classes(axes: Axes, centre: int, classes: int, colour: str) -> Bbox:
    """The output units, each beside its class, the input's filled; returns where they are."""
    for i in range(classes):
        y = AXIS + 26 * (i - (classes - 1) / 2)
        face, weight = (colour, "bold") if i == 3 else ("white", "normal")
        axes.add_patch(Circle((centre - 12, y), 10, facecolor=face, edgecolor=colour))
        axes.text(centre + 14, y, str(i), size=8, weight=weight, ha="center", va="center_baseline")
    return Bbox.from_bounds(centre - 22, AXIS - 13 * classes, 20, 26 * classes)


def connect_window(axes: Axes, source: Bbox, target: Bbox, window: int, height: float):
    """A receptive field, `window` units a side, on the map `source`, and its lines to the unit of `target` it feeds.

    Both lie a third of their map from its left and `height` (0 to 1) of it from its top, as the one sees the other.
    """
    corners = []
    for box, side, face, order in (source, UNIT * window, "#FFFFFF88", 2), (target, UNIT, "white", 3):
        x, y = box.x0 + (box.width - side) / 3, box.y0 + (box.height - side) * height
        square = Rectangle((x, y), side, side, facecolor=face, edgecolor=INK, linewidth=0.8, zorder=order)
        corners.append(axes.add_patch(square).get_corners())  # from the upper left around by the upper right
    field, unit = corners
    for field_end, unit_end in ((field[1], unit[0]), (field[2], unit[3])):
        axes.plot(*zip(field_end, unit_end, strict=True), color=INK, linewidth=0.6, zorder=2)


def connect_all(axes: Axes, source: Bbox, target: Bbox):
    """The full connection of two columns of units."""
    left, right = source.x1 + 6, target.x0 - 6
    corners = [(left, source.y0), (left, source.y1), (right, target.y1), (right, target.y0)]
    axes.add_patch(Polygon(corners, facecolor="#F0F0F0"))


def caption(axes: Axes, centre: int, name: str, shape: str, kind: str, parameters: str, connections: str):
    """A layer's name and shape above it, the rest below."""
    axes.text(centre, 188, name, weight="bold", ha="center")
    axes.text(centre, 218, shape, color=GREY, ha="center")
    axes.text(centre, 530, kind, color=GREY, ha="center", va="top")
    axes.text(centre, 636, parameters, ha="center")
    axes.text(centre, 666, connections, color=GREY, ha="center")


@style()
def architecture(path: Path, shapes: dict[str, tuple[tuple[int, ...], int, int]]):
    """The network in the spirit of the paper's figure 2, from the table of its layers that `model.layer_table` returns.

    `shapes` has, of each of the seven layers: output shape, trainable parameters, connections.
    """
    parameters, connections = (sum(row[i] for row in shapes.values()) for i in (1, 2))
    subtitle = f"{parameters:,} trainable parameters, {connections:,} connections; maps and receptive fields to scale"
    axes = canvas(new_figure("LeNet-5", subtitle, height=3.45))
    place, before = draw_maps(axes, CENTRES[0], 1, 32, GREY), 32
    extent = (place.x0, place.x1, place.y1, place.y0)
    axes.imshow(handwritten_three(), "gray_r", aspect="auto", extent=extent, zorder=1)
    caption(axes, CENTRES[0], "Input", "1 @ 32×32", "", "parameters", "connections")
    for (name, (shape, parameters, connections)), centre in zip(shapes.items(), CENTRES[1:], strict=True):
        source, size = place, shape[1] if len(shape) == 3 else 1
        if size > 1:
            place = draw_maps(axes, centre, *shape[:2], COLOURS[name[0]])
        else:
            draw = draw_classes if name == "output" else draw_units
            place = draw(axes, centre, shape[0], COLOURS[name[0]])
        if name[0] == "c":
            window = before - size + 1
            kind = f"{window}×{window}\nconvolution"
            connect_window(axes, source, place, window, height=6 / 29)
        elif name[0] == "s":
            window = before // size
            kind = f"{window}×{window}\nsubsampling"
            connect_window(axes, source, place, window, height=0.8)
        else:
            kind = "full\nconnection" if parameters else "RBF units,\nfixed"
            connect_all(axes, source, place)
        form = f"{shape[0]} @ {size}×{size}" if size > 1 else f"{shape[0]} units"
        caption(axes, centre, name.capitalize(), form, kind, f"{parameters:,}", f"{connections:,}")
        before = size
    save(axes.figure, path)
