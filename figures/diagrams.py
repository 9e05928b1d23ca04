"""The network drawn: its architecture, the state of every layer for one image, and its sweep over a line of digits.

In the style of plots.py, on a canvas: lengths are pixels of 1,660 across, counted from the upper left corner.
"""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.patches import Circle, Polygon, Rectangle
from matplotlib.transforms import Bbox
from torch import Tensor

from figures import plots
from figures.plots import BLUE, GREEN, GREY, INK, ORANGE, PALE, PURPLE, VERMILLION
from model import LeNet5, Squash
from reading.sweep import STEP, WINDOW, Reading, best_places

# ---------------------------------------------------------------------------------------------- the architecture

UNIT, AXIS = 6, 384  # the side of a unit, and the height of the line on which the layers are centred
CENTRES = (124, 344, 548, 750, 950, 1152, 1358, 1556)  # of the input and the seven layers
COLOURS = {"c": BLUE, "s": ORANGE, "f": GREEN, "o": PURPLE}  # by the first letter of a layer's name


@plots.style()
def architecture(path: Path, table: dict[str, tuple[tuple[int, ...], int, int]]):
    """The network in the spirit of the paper's figure 2, from the table of its layers that `model.layer_table` returns.

    The table has, of each of the seven layers: the shape of its state, trainable parameters, connections.
    """
    parameters, connections = (sum(row[i] for row in table.values()) for i in (1, 2))
    subtitle = f"{parameters:,} trainable parameters, {connections:,} connections; maps and receptive fields to scale"
    axes = plots.canvas(plots.new_figure("LeNet-5", subtitle, height=3.65))
    place, before = draw_stack(axes, CENTRES[0], 1, 32, GREY), 32
    extent = (place.x0, place.x1, place.y1, place.y0)
    axes.imshow(handwritten_three(), "gray_r", aspect="auto", extent=extent, zorder=1)
    caption(axes, CENTRES[0], "Input", "1 @ 32×32", "", "parameters", "connections")
    for (name, (shape, parameters, connections)), centre in zip(table.items(), CENTRES[1:], strict=True):
        source, size = place, shape[1] if len(shape) == 3 else 1
        if size > 1:
            place = draw_stack(axes, centre, *shape[:2], COLOURS[name[0]])
        else:
            draw = draw_circles if name == "output" else draw_column
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
    plots.save(axes.figure, path)


def handwritten_three() -> np.ndarray:
    """The input of the drawn network: a 3 of (32, 32) pixels, 0 paper, 1 ink."""
    upper, lower = np.linspace(-2.6, 1.75, 60), np.linspace(-1.65, 2.6, 60)
    x = np.append(15.5 + 4.6 * np.cos(upper), 15.2 + 5.6 * np.cos(lower))
    y = np.append(10.6 + 4.7 * np.sin(upper), 20.6 + 5.4 * np.sin(lower))
    rows, columns, _ = np.ogrid[:32, :32, :1]
    return np.clip(2.1 - np.hypot(columns - x, rows - y).min(2), 0, 1)


def draw_stack(axes: Axes, centre: int, maps: int, size: int, colour: str) -> Bbox:
    """Overlapping maps, `size` units a side, the last one in front; returns where the front map is."""
    side, spread = UNIT * size, 30 * (maps - 1) ** 0.5
    for depth in np.linspace(0, 1, maps):
        corner = depth * spread - (side + spread) / 2
        place = Bbox.from_bounds(centre + corner, AXIS + corner, side, side)
        face = 1 - (0.2 + 0.25 * depth) * (1 - np.array(to_rgb(colour)))
        axes.add_patch(Rectangle(place.p0, side, side, facecolor=face, edgecolor=colour, linewidth=0.8))
    return place


def draw_column(axes: Axes, centre: int, units: int, colour: str) -> Bbox:
    """Units without maps, four a row; returns where they are."""
    place = Bbox.from_bounds(centre - 15, AXIS - units, 30, 2 * units - 2)
    for i in range(units):
        corner = place.x0 + 8 * (i % 4), place.y0 + 8 * (i // 4)
        axes.add_patch(Rectangle(corner, UNIT, UNIT, facecolor=colour))
    return place


def draw_circles(axes: Axes, centre: int, units: int, colour: str) -> Bbox:
    """The output units, each beside its class, the drawn input's filled; returns where they are."""
    for i in range(units):
        y = AXIS + 32 * (i - (units - 1) / 2)
        face, weight = (colour, "bold") if i == 3 else ("white", "normal")
        axes.add_patch(Circle((centre - 12, y), 10, facecolor=face, edgecolor=colour))
        axes.text(centre + 18, y, str(i), size=11, weight=weight, ha="center", va="center_baseline")
    return Bbox.from_bounds(centre - 22, AXIS - 16 * units, 20, 32 * units)


def connect_window(axes: Axes, source: Bbox, target: Bbox, window: int, height: float):
    """A receptive field, `window` units a side, on the map `source`, and its lines to the unit of `target` it feeds.

    Both lie a third of the way from the left of their map, and at the same share `height` (0 to 1) of the way down.
    """
    corners = []
    for box, side, face, order in (source, UNIT * window, "#FFFFFF88", 2), (target, UNIT, "white", 3):
        x, y = box.x0 + (box.width - side) / 3, box.y0 + (box.height - side) * height
        square = Rectangle((x, y), side, side, facecolor=face, edgecolor=INK, linewidth=0.8, zorder=order)
        corners.append(axes.add_patch(square).get_corners())  # from the upper left, by the upper right, around
    field, unit = corners
    for field_end, unit_end in ((field[1], unit[0]), (field[2], unit[3])):
        axes.plot(*zip(field_end, unit_end, strict=True), color=INK, linewidth=0.9, zorder=2)


def connect_all(axes: Axes, source: Bbox, target: Bbox):
    """The full connection of two columns of units."""
    left, right = source.x1 + 6, target.x0 - 6
    corners = [(left, source.y0), (left, source.y1), (right, target.y1), (right, target.y0)]
    axes.add_patch(Polygon(corners, facecolor=PALE))


def caption(axes: Axes, centre: int, name: str, shape: str, kind: str, parameters: str, connections: str):
    """A layer's name and shape above it, the rest below."""
    axes.text(centre, 180, name, weight="bold", ha="center")
    axes.text(centre, 216, shape, color=GREY, ha="center")
    axes.text(centre, 550, kind, size=11, color=GREY, ha="center", va="top")
    axes.text(centre, 662, parameters, ha="center")
    axes.text(centre, 700, connections, color=GREY, ha="center")


# ---------------------------------------------------------------------------------------------- the states

SIGNED = LinearSegmentedColormap.from_list("signed", [BLUE, "#F7F7F7", VERMILLION])
SIDES = {"c1": 6, "s2": 12, "c3": 6, "s4": 12, "c5": 19, "f6": 27}  # of a unit
LEFT, TOP, GAP = 470, 190, 62  # where the layers are drawn, and between them


@plots.style()
def layer_states(path: Path, name: str, grey: np.ndarray, image: np.ndarray, model: LeNet5, states: dict[str, Tensor]):
    """What every layer made of an image: the file's name, grey levels (H, W), and what the network saw, (28, 28).

    `states` is what `model.states` returns for it: tensors (1, C, H, W) or (1, C), by the names of the layers.
    """
    probabilities = states["output"].softmax(1).numpy(force=True)[0]
    digit, runner_up = np.argsort(-probabilities)[:2]
    first, second = (f"{100 * probabilities[i]:.1f} %" for i in (digit, runner_up))
    name = (name if len(name) <= 36 else f"…{name[-35:]}").replace("$", r"\$")
    subtitle = f"by the network for digits alone: probability {first}; runner-up {runner_up}, {second}"
    axes = plots.canvas(plots.new_figure(f"{name}: read as {digit}", subtitle, height=6.6))
    plots.draw_fitted(axes, grey, "the image", 28, TOP)
    plots.draw_fitted(axes, 255 - np.pad(image, 2), "the input, 32×32", 28, TOP + 480)
    draw_legend(axes)
    y = TOP
    for layer, side in SIDES.items():
        maps = states[layer].squeeze().numpy(force=True)  # (C, H, W), or (C,): C5's maps are single units
        form = f"{len(maps)} maps of {maps.shape[1]}×{maps.shape[2]}" if maps.ndim == 3 else f"{len(maps)} units"
        parameters = sum(parameter.numel() for parameter in getattr(model, layer).parameters())
        limit = max(Squash.A, np.abs(maps).max())  # the paper's ±A; those of other activations may lie beyond
        axes.text(LEFT, y - 14, layer.upper(), weight="bold")
        axes.text(LEFT + 62, y - 14, f"{form}, {parameters:,} parameters; colours to ±{limit:.1f}", color=GREY)
        y = draw_maps(axes, maps, y, side, limit) + GAP
    axes.text(LEFT, y - 14, "Output", weight="bold")
    axes.text(LEFT + 140, y - 14, "probability of each class (%), and its logit", color=GREY)
    draw_classes(axes, states["output"].numpy(force=True)[0], probabilities, y + 34)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a file's name may hold what the font does not
        plots.save(axes.figure, path)


def draw_legend(axes: Axes):
    """What the colours of the units mean: a layer's limit stands above it."""
    x, y, width, height = 1400, 84, 200, 22
    axes.imshow(np.linspace(0, 1, 256)[None], SIGNED, aspect="auto", extent=(x, x + width, y + height, y))
    axes.text(x - 20, y + height, "state of a unit", color=GREY, ha="right")
    for place, text in (x, "−"), (x + width / 2, "0"), (x + width, "+"):
        axes.text(place, y - 8, text, color=GREY, ha="center")


def draw_maps(axes: Axes, maps: np.ndarray, y: int, side: int, limit: float) -> int:
    """A layer's maps (C, H, W) in a row, or its units (C,) in two rows; returns where they end."""
    maps = maps if maps.ndim == 3 else maps.reshape(1, 2, -1)
    height, width = (side * units for units in maps.shape[1:])
    for i, one in enumerate(maps):
        plots.draw_image(axes, one, (LEFT + i * (width + 14), y, width, height), SIGNED, (-limit, limit))
    return y + height


def draw_classes(axes: Axes, logits: np.ndarray, probabilities: np.ndarray, y: int, height: int = 56):
    """The ten classes: a bar of each one's probability, the digit, and its logit; the likeliest in ink."""
    for digit, (logit, probability) in enumerate(zip(logits, probabilities, strict=True)):
        x, best = LEFT + 116 * digit, digit == logits.argmax()
        colour, weight = (INK, "bold") if best else (GREY, "normal")
        axes.add_patch(Rectangle((x, y), 90, height, facecolor=PALE))
        axes.add_patch(Rectangle((x, y + height), 90, -height * probability, facecolor=colour))
        axes.text(x + 45, y - 8, f"{100 * probability:.1f}", color=colour, weight=weight, ha="center")
        axes.text(x + 45, y + height + 40, str(digit), size=15, weight=weight, ha="center")
        axes.text(x + 45, y + height + 78, f"{logit:.1f}".replace("-", "−"), color=GREY, ha="center")


# ---------------------------------------------------------------------------------------------- the sweep


@plots.style()
def sweep(path: Path, name: str, grey: np.ndarray | None, line: np.ndarray, reading: Reading):
    """How a number was read, as in the paper's figure 25: the image (H, W), if any; the line (32, W') that was swept;
    the probability of each class at every place, and the best path."""
    unit = min(1522 / line.shape[1], 20)  # the side of a pixel of the line
    left = max(28, 110 - unit * (WINDOW - STEP) / 2)  # of the line, so that the classes' names have room
    factor = 0 if grey is None else min(300 / grey.shape[0], 1604 / grey.shape[1])
    above = 200 if grey is None else 256 + factor * grey.shape[0]
    below = above + 32 * unit + 112
    name = (name if len(name) <= 36 else f"…{name[-35:]}").replace("$", r"\$")
    subtitle = f"probability {100 * reading.probability:.1f} %; runner-up {reading.runner_up or 'none'}"
    height = (below + 11 * ROW + 30) / plots.DPI
    axes = plots.canvas(plots.new_figure(f"{name}: read as {reading.number or 'nothing'}", subtitle, height))
    if grey is not None:
        axes.text(28, 186, "the image", color=GREY)
        plots.draw_image(axes, grey, (28, 200, factor * grey.shape[1], factor * grey.shape[0]))
    axes.text(28, above - 14, "the line that is swept, 32 pixels high", color=GREY)
    plots.draw_image(axes, 255 - line, (left, above, unit * line.shape[1], 32 * unit))
    text = "the probability of each class at every place, and the best path through them"
    axes.text(28, below - 64, text, color=GREY)
    draw_places(axes, reading.logits, left + unit * (WINDOW - STEP) / 2, below, unit * STEP)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a file's name may hold what the font does not
        plots.save(axes.figure, path)


ROW = 34  # pixels: the height of a class


def draw_places(axes: Axes, logits: Tensor, x: float, y: float, step: float):
    """The probability of each class (rows) at each place (columns), and above them what the best path reads there."""
    probabilities = logits.softmax(1).T.numpy(force=True)  # (11, T)
    classes, places = probabilities.shape
    plots.draw_image(axes, probabilities, (x, y, step * places, ROW * classes), "gray_r", (0, 1))
    for i in range(classes):
        text = str(i) if i < 10 else "none"
        axes.text(x - 10, y + ROW * (i + 0.5), text, color=GREY, ha="right", va="center_baseline")
    for place, digit in best_places(logits):
        axes.text(x + step * (place + 0.5), y - 12, str(digit), weight="bold", size=16, ha="center")
