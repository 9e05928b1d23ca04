"""A photo of handwritten numbers -> lines of pieces, one for each digit, or for digits that touch.

    lines = find_lines(read_grey("house.jpg"))  # each has pieces (h, w), from left to right, and where they stand
    line = evened(lines[0].pieces)              # uint8 (32, W): all pieces of one height, for the sweep
    written = as_written(*lines[0])             # uint8 (32, W): with their sizes, places and gaps
    digits = placed(lines[0].pieces)            # uint8 (N, 28, 28): each as MNIST would hold it

People do not write as MNIST's lines are made. Their digits differ in size; they write on ruled paper, in boxes, on the
printed ground of cheques; a shadow lies on the photo, a comma or a dash stands in the line. So find_lines goes in
steps, the first two in digits/ink.py:

    strokes        grey levels -> ink: shadows, and what is printed on the ground, become 0
    without_rules  ruled lines and the edges of boxes go
    parts_of       what is connected
    rows_of        the lines, one below the other
    digits_among   specks, points, commas, dashes and frames go
    grouped        parts above each other become one piece: the bar of a 5 and the rest of it
    upright        slanting writing is sheared until it stands

docs/numbers.md says what each step gives. The page in tools/ shares the last two: nothing but ink is drawn on it.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from digits.ink import FULL, strokes, without_rules
from digits.preprocessing import place, resample, shrink

LOOK_AT = 480  # pixels of the longer side at which digits are looked for
TOUCH = np.ones((3, 3))  # pixels that touch at a corner are in one part, too
MOST = 40  # pieces in a line
MARGIN = 18  # pixels before and behind a line: so many that a narrow digit, too, has more than one place
LEANS = -0.15, 0, 0.15  # pixels to the right for each pixel down
SMALL = "shows no digit that can be read; write larger, with a thicker pen, and leave a margin"
LINES = "shows lines that are not clearly apart; cut the image, one line each"

Pieces = list[np.ndarray]  # ink (h, w) each, 0 to about 1


class Line(NamedTuple):
    pieces: Pieces  # from left to right
    middles: np.ndarray  # of each piece where its box has its middle, x and y in pixels: (N, 2)


def find_lines(grey: np.ndarray) -> list[Line]:
    """The lines of digits in an image uint8 (H, W), from top to bottom.

    Raises ValueError if there are none, or if lines are not clearly apart.
    """
    ink, parts = look(grey)
    near = surroundings(parts, grey.shape)
    if near != tuple(map(slice, grey.shape)):  # small in a large image: once more, and closer
        ink, parts = look(grey[near])
    lines = [grouped(parts, row[digits_among(parts, row)]) for row in rows_of(parts)]
    if not any(lines):
        raise ValueError(SMALL)
    if max(map(len, lines)) > MOST:
        raise ValueError(f"shows more than {MOST} pieces in a line, and so no number; name an image of digits alone")
    return [
        Line(upright([ink_of(ink, parts, own) for own in line]), np.array([middle_of(parts, own) for own in line]))
        for line in lines
        if line
    ]


def look(grey: np.ndarray) -> tuple[np.ndarray, "Parts"]:
    """The ink (H', W') of an image uint8 (H, W), reduced to 480 pixels on the longer side, and its parts."""
    ink = without_rules(strokes(shrink(grey.astype(float), LOOK_AT)))
    return ink, parts_of(ink)


def surroundings(parts: "Parts", shape: tuple[int, int]) -> tuple[slice, slice]:
    """The part of an image of a shape (H, W) to look at more closely: around its ink, where this is small, with a
    margin; else all of it.
    """
    large = parts.area >= parts.area.max() / 20
    box = [
        (start[large].min(), stop[large].max())
        for start, stop in ((parts.top, parts.bottom), (parts.left, parts.right))
    ]
    longest = max(stop - start for start, stop in box)
    if longest > LOOK_AT / 2 or max(shape) < 1.5 * LOOK_AT:
        return tuple(map(slice, shape))
    ratio, margin = max(shape) / LOOK_AT, longest / 4
    return tuple(
        slice(max(0, int((start - margin) * ratio)), min(side, int((stop + margin) * ratio) + 1))
        for (start, stop), side in zip(box, shape)
    )


# ---------------------------------------------------------------------------------------------- from ink to parts


class Parts(NamedTuple):
    """What is connected in an image of ink: labels (H, W), 1, 2, ...; and of each part its box and pixels, (N,)."""

    labels: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray
    area: np.ndarray


def parts_of(ink: np.ndarray) -> Parts:
    """The parts of the ink (H, W). Raises ValueError if there are none."""
    labels, count = ndimage.label(ink > FULL, TOUCH)
    if not count:
        raise ValueError(SMALL)
    boxes = np.array([(y.start, y.stop, x.start, x.stop) for y, x in ndimage.find_objects(labels)]).T
    return Parts(labels, *boxes, np.bincount(labels.ravel())[1:])


def rows_of(parts: Parts) -> list[np.ndarray]:
    """The parts of each line, from top to bottom: their indices, (n,) each.

    Lines are told apart by the rows between their tall parts, measured along the slope of the writing. Raises
    ValueError if these are few: more than a break in a stroke, and less than a quarter of a line's height.
    """
    large = np.flatnonzero(parts.area >= parts.area.max() / 20)
    shift = slope_of(parts, large) * (parts.left + parts.right) / 2
    start, stop = parts.top - shift, parts.bottom - shift
    bands = []  # where each line starts and stops
    for i in large[np.argsort(start[large])]:
        if bands and start[i] <= bands[-1][1]:
            bands[-1][1] = max(bands[-1][1], stop[i])
        else:
            bands.append([start[i], stop[i]])
    tallest = max(stop - start for start, stop in bands)
    lines = [bands[0]]
    for band in bands[1:]:
        gap, low = band[0] - lines[-1][1], min(np.diff(band)[0], np.diff(lines[-1])[0])
        if low <= tallest / 3 or gap <= 2 + tallest / 20:
            lines[-1][1] = max(band[1], lines[-1][1])
        elif gap < tallest / 4:
            raise ValueError(LINES)
        else:
            lines.append(band)
    middles = np.mean(lines, 1)
    nearest = np.abs((start + stop)[:, None] / 2 - middles).argmin(1)
    return [np.flatnonzero(nearest == i) for i in range(len(lines))]


def slope_of(parts: Parts, large: np.ndarray) -> float:
    """Pixels down for each pixel to the right, from each of the large parts to its neighbour; 0 for less than three."""
    x, y = ((parts.left + parts.right) / 2)[large], ((parts.top + parts.bottom) / 2)[large]
    level = (parts.top[large] < y[:, None]) & (y[:, None] < parts.bottom[large])  # [i, j]: j stands beside i
    across = np.where(level & (x > x[:, None]), x - x[:, None], np.inf)
    neighbour, distance = across.argmin(1), across.min(1)
    slopes = ((y[neighbour] - y) / distance)[np.isfinite(distance)]
    return float(np.median(slopes)) if len(slopes) > 2 else 0.0


def digits_among(parts: Parts, row: np.ndarray) -> np.ndarray:
    """Which parts of a row (n,) belong to its digits, bool (n,): no specks, points, commas, dashes and frames, and
    nothing that reaches in from the edge of the image.
    """
    top, bottom, left, right, area = (values[row] for values in parts[1:])
    height, width, middle = bottom - top, right - left, (top + bottom) / 2
    framing = np.array([is_frame(parts, i, row) for i in row])
    kept = (area >= 4) & (area >= area[~framing].max() / 40) & ~framing
    if not kept.any():
        return kept
    tall = np.median(np.sort(height[kept & (area >= area[~framing].max() / 20)])[-3:])
    base = np.median(bottom[kept & (height >= 0.5 * tall)])
    low = height < 0.3 * tall
    for i in np.flatnonzero(kept):
        shared = np.minimum(right[i], right) - np.maximum(left[i], left)
        over = ~low & ~framing & (shared > 0.5 * width[i]) & (top - 0.3 * tall < middle[i]) & (middle[i] < bottom)
        point = width[i] < 0.3 * tall and middle[i] > base - 0.2 * tall
        small = 0.15 if width[i] > 0.3 * tall else 0.35  # a comma is narrower than the nought of 2019
        comma = height[i] < 0.5 * tall and middle[i] > base - small * tall and not has_hole(parts, row[i])
        edge = height[i] < 0.6 * tall and (top[i] == 0 or bottom[i] == len(parts.labels))
        beside = right[i] < 0.04 * parts.labels.shape[1] or left[i] > 0.96 * parts.labels.shape[1]
        side = beside and width[i] < 0.2 * height[i]  # of a box
        dash = height[i] < 0.6 * tall and is_dash(parts, row[i])
        kept[i] = over.any() and not point if low[i] else not (comma or dash or edge or side)
    return kept


def is_frame(parts: Parts, i: int, row: np.ndarray) -> bool:
    """Whether a part has another of the row, at least a third as high, in its hole: the box around a digit."""
    top, bottom, left, right = (values[row] for values in parts[1:5])
    inside = (parts.left[i] < left) & (right < parts.right[i]) & (parts.top[i] < top) & (bottom < parts.bottom[i])
    inside = row[inside & (3 * (bottom - top) > parts.bottom[i] - parts.top[i])]
    if not len(inside):
        return False
    labels = parts.labels[parts.top[i] : parts.bottom[i], parts.left[i] : parts.right[i]]
    return np.isin(labels[ndimage.binary_fill_holes(labels == i + 1)], inside + 1).any()


def has_hole(parts: Parts, i: int) -> bool:
    """Whether a part encloses some ground: a small nought, and no comma."""
    own = parts.labels[parts.top[i] : parts.bottom[i], parts.left[i] : parts.right[i]] == i + 1
    filled = ndimage.binary_fill_holes(own)
    return (filled & ~own).sum() > 0.1 * filled.sum()


def is_dash(parts: Parts, i: int) -> bool:
    """Whether a part is a straight stroke nearer to the horizontal than to the vertical: a dash, and not a 1."""
    y, x = np.nonzero(parts.labels[parts.top[i] : parts.bottom[i], parts.left[i] : parts.right[i]] == i + 1)
    (across, along), directions = np.linalg.eigh(np.cov(x, y))
    return across < 0.06 * along and abs(directions[0, 1]) > 0.7


# ---------------------------------------------------------------------------------------------- from parts to pieces


def grouped(parts: Parts, kept: np.ndarray) -> list[list[int]]:
    """The parts kept, indices (n,), in pieces from left to right: those above each other are in one."""
    groups = []  # where each starts and stops, and its parts; the tallest parts come first
    for i in kept[np.argsort(parts.top[kept] - parts.bottom[kept], kind="stable")]:
        left, right = parts.left[i], parts.right[i]
        for group in groups:
            start, stop, own = group
            if min(stop, right) - max(start, left) > 0.5 * min(stop - start, right - left):
                group[:] = min(start, left), max(stop, right), [*own, i]
                break
        else:
            groups.append([left, right, [i]])
    groups.sort()
    if len(groups) == 2:  # alone, close together, and as narrow as one digit: a digit with a broken stroke
        (start, before, one), (after, stop, other) = groups
        height = max(parts.bottom[one + other]) - min(parts.top[one + other])
        if after - before <= 0.2 * height and stop - start <= height:
            return [one + other]
    return [own for *_, own in groups]


def ink_of(ink: np.ndarray, parts: Parts, own: list[int]) -> np.ndarray:
    """The ink (H, W) of some parts, with their soft rims: (h, w)."""
    rows = slice(min(parts.top[own]), max(parts.bottom[own]))
    columns = slice(min(parts.left[own]), max(parts.right[own]))
    labels = parts.labels[rows, columns]
    mask = np.isin(labels, np.add(own, 1))
    return np.where(ndimage.binary_dilation(mask, TOUCH) & (mask | (labels == 0)), ink[rows, columns], 0)


def middle_of(parts: Parts, own: list[int]) -> tuple[float, float]:
    """The middle (x, y) of the box around some parts."""
    top, bottom, left, right = (values[own] for values in parts[1:5])
    return (left.min() + right.max()) / 2, (top.min() + bottom.max()) / 2


def upright(pieces: Pieces) -> Pieces:
    """The pieces sheared by their common slant, if there are three or more; of fewer the digits' own shapes decide."""
    if len(pieces) < 3:
        return pieces
    moments = [slant_moments(piece / len(piece)) for piece in pieces]
    slant = sum(across for across, _ in moments) / sum(down for _, down in moments)
    return [sheared(piece, -slant) for piece in pieces]


def slant_moments(ink: np.ndarray) -> tuple[float, float]:
    """Of ink (h, w), seen from its centre of mass: the sums of x * y and y * y; their ratio is pixels across for one
    down."""
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]] / len(ink)
    x, y = (axis - (ink * axis).sum() / ink.sum() for axis in (x, y))
    return float((ink * x * y).sum()), float((ink * y * y).sum())


def leaning(pieces: Pieces) -> list[Pieces]:
    """The pieces three times: a little to the left, as they are, a little to the right."""
    return [[sheared(piece, lean) for piece in pieces] for lean in LEANS]


def sheared(ink: np.ndarray, slant: float) -> np.ndarray:
    """Ink (h, w) with each row moved to the right, `slant` pixels for each row down: (h, w')."""
    if not slant:
        return ink
    height, width = ink.shape
    moves = slant * (np.arange(height) - (height - 1) / 2)
    pad = int(np.ceil(abs(moves).max()))
    places = np.arange(-pad, width + pad)
    moved = np.stack([np.interp(places - move, np.arange(width), row, 0, 0) for move, row in zip(moves, ink)])
    return cropped(moved)


def cropped(ink: np.ndarray) -> np.ndarray:
    """The box of the ink (H, W). Raises ValueError if there is none."""
    rows, columns = (np.flatnonzero((ink > FULL).any(axis)) for axis in (1, 0))
    if not rows.size:
        raise ValueError(SMALL)
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


# ---------------------------------------------------------------------------------------------- for the networks


def evened(pieces: Pieces, height: int = 20, gap: int = 6, margin: int = MARGIN) -> np.ndarray:
    """A line of pieces (h, w) of one height, with equal gaps: uint8 (32, W), W >= 34."""
    columns = []
    for piece in pieces:
        columns += [scaled(piece, max(len(piece) / height, piece.shape[1] / (6 * height))), np.zeros((32, gap))]
    return with_margins(np.hstack(columns[:-1]), margin)


def as_written(pieces: Pieces, middles: np.ndarray, height: int = 20) -> np.ndarray:
    """A line of pieces (h, w) with their sizes, places and gaps: uint8 (32, W), W >= 34.

    The median of their heights becomes `height`, or less where the line would be higher than 28 pixels.
    """
    shapes = np.array([piece.shape for piece in pieces])  # (N, 2)
    corners = np.rint(middles - shapes[:, ::-1] / 2).astype(int)
    corners -= corners.min(0)
    ink = np.zeros((corners[:, ::-1] + shapes).max(0))
    for piece, (x, y), (tall, wide) in zip(pieces, corners, shapes):
        ink[y : y + tall, x : x + wide] = np.maximum(ink[y : y + tall, x : x + wide], piece)
    return with_margins(scaled(ink, max(np.median(shapes[:, 0]) / height, len(ink) / 28)))


def scaled(ink: np.ndarray, unit: float) -> np.ndarray:
    """Ink (h, w) in the middle of 32 rows, each `unit` of its pixels: (32, w'), 1 where there is most."""
    above = (32 * unit - len(ink)) / 2
    width = int(np.ceil(ink.shape[1] / unit))
    part = resample(ink, [(-above, 32 * unit - above), (0, width * unit)], (32, width))
    return part / part.max()


def with_margins(line: np.ndarray, margin: int = MARGIN) -> np.ndarray:
    """A line (32, w) with free pixels before and behind: uint8 (32, W), W >= 34."""
    behind = max(margin, 34 - margin - line.shape[1])
    return np.uint8(np.rint(255 * np.pad(line, ((0, 0), (margin, behind))).clip(0, 1)))


def placed(pieces: Pieces) -> np.ndarray:
    """Pieces (h, w) in MNIST's form, with strokes at least as wide as there: uint8 (N, 28, 28)."""
    return np.stack([widened(place(piece, tuple((0, side) for side in piece.shape))) for piece in pieces])


def widened(image: np.ndarray) -> np.ndarray:
    """An image uint8 (28, 28) with strokes of about 2 pixels or more; 2 * area / outline is the width of a stroke."""
    ink = image / 255
    outline = sum(np.abs(np.diff(ink, axis=axis)).sum() for axis in (0, 1))
    width = 2.5 * ink.sum() / outline
    if width >= 2:
        return image
    wider = ndimage.grey_dilation(ink, footprint=[[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    share = 1 if width < 1.5 else 0.5
    return np.uint8(np.rint(255 * (share * wider + (1 - share) * ink)))
