"""From a photo to its ink: shadows, printed grounds and ruled lines become 0. digits/pieces.py goes on from there."""

import numpy as np
from scipy import ndimage

from digits.preprocessing import FAINT, lighting

FULL = 0.375  # of full ink: what has more is taken for ink
SLOPES = np.arange(-6, 7) * 0.015  # of rules: rows down for each column to the right


def strokes(grey: np.ndarray) -> np.ndarray:
    """What is thin and darker than its ground, or lighter (H, W): about 1 in a stroke of full ink, 0 on the ground.

    Closing the image, a maximum and then a minimum over a square, fills the strokes: that is the ground, with its
    shadows and edges. What is printed on it is fainter than the ink; the level that most of it stays below becomes 0.
    Raises ValueError if nothing stands out.
    """
    contrast = grey - lighting(grey)
    dark = grey if (contrast**3).sum() < 0 else -grey
    side = max(10, int(0.3 * len(grey)))
    contrast = ndimage.grey_closing(dark, (side, side), mode="nearest") - dark
    fifth, half = np.percentile(contrast, (20, 50))  # all ground, or half ink where a digit fills the image
    strong = np.where(contrast > min(8 * fifth, 3 * half), contrast, 0)
    full = (strong**3).sum() / max((strong**2).sum(), 1)  # strong pixels count most
    if full < 12:
        raise ValueError(FAINT)
    ground = contrast[~ndimage.binary_dilation(contrast > full / 2, iterations=2)]
    printed = np.percentile(ground, 85) if ground.size else 0
    low = min(max(printed, full / 4), 0.6 * full)
    return ((contrast - low) / (full - low)).clip(0, 1.2)


def without_rules(ink: np.ndarray) -> np.ndarray:
    """The ink (H, W) without ruled lines and edges of boxes: long and thin runs, level or a little sloping.

    A stroke that crosses one stays whole. In an image of one digit, about square, only what runs from edge to edge is
    taken for a rule: the bar of a 7 is long, too.
    """
    height, width = ink.shape
    length = max(8, width // 3, int(0.9 * height)) if width > 1.5 * height else width
    columns = np.arange(width) - width // 2
    found = []
    for slope in SLOPES if width > 1.5 * height else [0]:
        moves = np.rint(slope * columns).astype(int)  # rows that each column is moved up
        mask = moved(ink > FULL, moves)
        thick = ndimage.maximum_filter1d(mask, 3, 0)  # a rule may step by a pixel
        runs = opened(thick, length) & mask
        found.append((runs.sum(), -abs(slope), moves, mask, runs))
    *_, moves, mask, runs = max(found, key=lambda one: one[:2])
    if not runs.any():
        return ink
    thickness = np.median(runs.sum(0)[runs.any(0)])
    if thickness > height / 8:
        return ink
    crossing = ndimage.binary_opening(mask, np.ones((int(thickness + 2), 1)))
    rules = ndimage.binary_dilation(runs, np.ones((3, 1))) & ~crossing
    return np.where(moved(rules, -moves), 0, ink)


def opened(mask: np.ndarray, length: int) -> np.ndarray:
    """What lies in level runs of at least this length: a minimum and then a maximum along the rows, (H, W)."""
    shortened = ndimage.minimum_filter1d(mask, length, 1, mode="constant")
    return ndimage.maximum_filter1d(shortened, length, 1, mode="constant", origin=length % 2 - 1)


def moved(mask: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """A mask (H, W) with each column moved up by so many rows (W,), False where nothing was."""
    rows = np.arange(len(mask))[:, None] + moves
    return np.take_along_axis(mask, rows.clip(0, len(mask) - 1), 0) & (rows >= 0) & (rows < len(mask))
