"""What happens to a photo of a number, step by step: a figure.

The photo is drawn here: 2019 with a small nought, slanting, on ruled paper in uneven light, with a comma and a dash
behind it. The steps are those of digits/ink.py and digits/pieces.py.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from digits import pieces as steps
from digits.ink import strokes, without_rules
from experiments.runner import Context, Experiment
from figures import plots

RING = [(0.5 + 0.5 * np.cos(a), 0.5 + 0.5 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 40)]
TWO = [(0.05, 0.25), (0.2, 0.05), (0.5, 0), (0.8, 0.1), (0.85, 0.35), (0.6, 0.6), (0, 1), (0.95, 0.97)]
NINE = [*[(0.85 * x, 0.55 * y) for x, y in RING], (0.85, 0.3), (0.8, 1)]
STROKES = (  # left, top, width, height of each, and its points
    (30, 40, 62, 90, TWO),
    (108, 82, 44, 48, RING),
    (152, 40, 20, 90, [(0, 0.3), (0.9, 0), (0.9, 1)]),
    (200, 40, 60, 90, NINE),
    (272, 126, 6, 20, [(0.5, 0), (0, 1)]),
    (290, 92, 40, 6, [(0, 0.5), (1, 0)]),
)
HEIGHT, WIDTH, SLANT = 170, 360, 0.25


def photo() -> np.ndarray:
    """Grey levels uint8 (170, 360)."""
    large = Image.new("L", (4 * WIDTH, 4 * HEIGHT))
    for left, top, width, height, points in STROKES:
        line = [(left + x * width, top + y * height) for x, y in points]
        line = [(4 * (x + SLANT * (HEIGHT / 2 - y)), 4 * y) for x, y in line]
        ImageDraw.Draw(large).line(line, 255, 28, "curve")
    ink = np.asarray(large.reduce(4)) / 255
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rule = 0.8 * ((abs(y - 134 + 0.02 * x) < 1.2) | (abs(y - 30 + 0.02 * x) < 1.2))
    light = 1 - 0.2 * (x > 230 + 0.5 * y) - 0.1 * y / HEIGHT
    noise = np.random.default_rng(0).normal(0, 3, ink.shape)
    return np.uint8(((225 - 170 * np.maximum(ink, rule)) * light + noise).clip(0, 255))


@plots.style()
def draw(context: Context, content: dict, path: Path):
    grey = photo()
    found = strokes(grey.astype(float))
    ink = without_rules(found)
    parts = steps.parts_of(ink)
    (row,) = steps.rows_of(parts)
    kept = row[steps.digits_among(parts, row)]
    ((pieces, _),) = steps.find_lines(grey)
    panels = {
        "1  the photo": grey,
        "2  strokes, without ground and shadow": 255 * (1 - found),
        "3  without rules": 255 * (1 - ink),
        "4  the parts that belong to digits": 255 - 255 * np.isin(parts.labels, kept + 1),
        "5  upright, of one height: it is swept": 255 - steps.evened(pieces),
        "6  as MNIST's: each is classified": 255 - np.hstack(list(steps.placed(pieces))),
    }
    title = "A photo on its way to the networks"
    axes = plots.canvas(plots.new_figure(title, "a number drawn by the experiment", 6.65))
    for i, (title, image) in enumerate(panels.items()):
        left, top = 28 + 816 * (i % 2), 206 + 430 * (i // 2)
        axes.text(left, top - 14, title)
        width = min(788, 372 * image.shape[1] / image.shape[0])
        plots.draw_image(axes, image, (left, top, width, width * image.shape[0] / image.shape[1]))
    plots.save(axes.figure, path)


EXPERIMENT = Experiment(
    tables=lambda content: {},
    summarize=lambda context, runs: {},
    draw=draw,
    data=False,
)
