"""Images that tests draw: ink on paper, as a pen would leave it."""

import numpy as np
from PIL import Image, ImageDraw

from digits.preprocessing import prepare


def stroke(height, width, points, thickness):
    """A line through points (x, y) as ink from 0 to 1: (height, width)."""
    large = Image.new("L", (4 * width, 4 * height))
    ImageDraw.Draw(large).line([(4 * x, 4 * y) for x, y in points], 255, round(4 * thickness), "curve")
    return np.asarray(large.reduce(4)) / 255


def seven(height=240, width=200):
    points = [(0.3, 0.2), (0.75, 0.22), (0.45, 0.8)]  # a little off the centre
    return stroke(height, width, [(x * width, y * height) for x, y in points], width / 11)


def shaded(slope, noise, size=(600, 500)):
    """The seven on paper that is darker at one corner, and noisy."""
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    image = (200 - 120 * seven(*size)) * (1 + slope * x - slope * y / 2)
    return (image + np.random.default_rng(0).normal(0, noise, size)).clip(0, 255).astype(np.uint8)


INK = seven()
PAPER = np.uint8(np.rint(235 - 200 * INK))  # dark on light
SEEN = prepare(PAPER)
