"""A photo of a line of digits, cleaned and taken to pieces: what reading/ reads when somebody wrote, not a program.

    ink = clean(read_grey("house.jpg"))  # (H, W), 0 to about 1: the digits, and nothing else
    pieces = cut(ink)                    # one array (h, w) for each piece, from left to right
    line = evened(pieces)                # uint8 (32, W'): all pieces brought to one height
    digits = placed(pieces)              # uint8 (N, 28, 28): each as MNIST would hold it

People do not write as MNIST's lines are made. Their digits differ in size; they write on ruled paper, in boxes, on the
printed ground of cheques; a shadow lies on the photo, a comma or a dash stands in the line. Each step here takes one of
these away. The page in tools/ does without: nothing but ink is drawn on it.
"""

import numpy as np
from scipy import ndimage

from digits.preprocessing import deskew, lighting, place, resample, shrink

LOOK_AT = 480  # pixels of the longer side at which a line is looked for
FULL = 0.375  # of full ink: what has more belongs to a piece
TOUCH = np.ones((3, 3))  # pixels that touch at a corner are in one piece, too


def clean(grey: np.ndarray) -> np.ndarray:
    """The ink of one line of digits, uint8 (H, W) -> (H', W'), level and without margin.

    Raises ValueError if there is none, or if it stands in several lines.
    """
    ink = strokes(shrink(grey.astype(float), LOOK_AT))
    ink = without_marks(without_rules(ink))
    ink = cropped(deskew(cropped(ink)))
    refuse_several_lines(ink)
    return ink


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
        raise ValueError("shows no digit that stands out from its ground; take more light, or a thicker pen")
    ground = contrast[~ndimage.binary_dilation(contrast > full / 2, iterations=2)]
    printed = np.percentile(ground, 85) if ground.size else 0
    low = min(max(printed, full / 4), 0.6 * full)
    return ((contrast - low) / (full - low)).clip(0, 1.2)


def without_rules(ink: np.ndarray) -> np.ndarray:
    """The ink (H, W) without ruled lines and edges of boxes: long and thin horizontal runs.

    A stroke that crosses one stays whole. In an image of one digit, about square, only what runs from edge to edge is
    taken for a rule: the bar of a 7 is long, too.
    """
    mask = ink > FULL
    height, width = mask.shape
    length = max(8, width // 3, int(0.9 * height)) if width > 1.5 * height else width
    runs = ndimage.binary_opening(ndimage.binary_dilation(mask, np.ones((3, 1))), np.ones((1, length))) & mask
    if not runs.any():
        return ink
    thickness = np.median(runs.sum(0)[runs.any(0)])
    if thickness > height / 8:
        return ink
    crossing = ndimage.binary_opening(mask, np.ones((int(2 * thickness + 2), 1)))
    return np.where(ndimage.binary_dilation(runs, np.ones((3, 1))) & ~crossing, 0, ink)


def without_marks(ink: np.ndarray) -> np.ndarray:
    """The ink (H, W) without specks, points, commas, dashes, and what reaches in from the edge of the image.

    Raises ValueError if nothing is left.
    """
    labels, top, bottom, left, right = pieces_of(ink)
    height, middle, area = bottom - top, (top + bottom) / 2, np.bincount(labels.ravel())[1:]
    kept = (area >= 4) & (area >= area.max() / 40)
    tall = np.median(np.sort(height[area >= area.max() / 20])[-3:])
    base = np.median(bottom[height >= 0.5 * tall])
    low = height < 0.3 * tall
    for i in np.flatnonzero(kept):
        shared = np.minimum(right[i], right) - np.maximum(left[i], left)
        over = ~low & (shared > 0.5 * (right[i] - left[i])) & (top - 0.3 * tall < middle[i]) & (middle[i] < bottom)
        comma = height[i] < 0.5 * tall and middle[i] > base - 0.15 * tall
        edge = height[i] < 0.6 * tall and (top[i] == 0 or bottom[i] == len(ink))
        kept[i] = over.any() if low[i] else not (comma or edge)
    return only(ink, labels, kept)


def pieces_of(ink: np.ndarray):
    """The pieces of the ink (H, W): their labels 1, 2, ... (H, W), and where each starts and stops: (N,) four times.

    Raises ValueError if there are none.
    """
    labels, count = ndimage.label(ink > FULL, TOUCH)
    if not count:
        raise ValueError("shows no digit that can be read; write larger, or with a thicker pen")
    boxes = ndimage.find_objects(labels)
    return labels, *np.array([(y.start, y.stop, x.start, x.stop) for y, x in boxes]).T


def only(ink: np.ndarray, labels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The ink (H, W) of the pieces that are kept, bool (N,), with their soft rims."""
    own = np.append(False, kept)[labels]
    return np.where(ndimage.binary_dilation(own, TOUCH) & (own | (labels == 0)), ink, 0)


def cropped(ink: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero((ink > FULL).any(axis)) for axis in (1, 0))
    if not rows.size:
        raise ValueError("shows no digit that can be read; write larger, or with a thicker pen")
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def refuse_several_lines(ink: np.ndarray):
    """Raises ValueError if the ink (H, W) has tall parts with free rows between; a break in a stroke is narrower."""
    rows = np.flatnonzero((ink > FULL).any(1))
    gaps = np.diff(rows)
    tallest = max(map(len, np.split(rows, np.flatnonzero(gaps > 1) + 1)))
    heights = [len(part) for part in np.split(rows, np.flatnonzero(gaps > 1 + max(2, tallest / 20)) + 1)]
    if sum(height > max(heights) / 3 for height in heights) > 1:
        raise ValueError("shows several lines; cut them apart, one line an image")


def cut(ink: np.ndarray) -> list[np.ndarray]:
    """The ink (H, W) cut at its gaps: pieces (h, w) from left to right; those above each other are in one."""
    labels, _, _, left, right = pieces_of(ink)
    groups = []  # where each stops, and its labels
    for i in np.argsort(left):
        start, stop, own = groups[-1] if groups else (0, 0, [])
        if min(stop, right[i]) - left[i] > 0.5 * min(stop - start, right[i] - left[i]):
            groups[-1] = (start, max(stop, right[i]), [*own, i])
        else:
            groups.append((left[i], right[i], [i]))
    everything = np.arange(len(left))
    return [cropped(only(ink, labels, np.isin(everything, own))) for _, _, own in groups]


def evened(pieces: list[np.ndarray], height: int = 20, gap: int = 6, margin: int = 14) -> np.ndarray:
    """A line of pieces (h, w) of one height, with equal gaps: uint8 (32, W), W >= 34."""
    columns = [np.zeros((32, margin))]
    for piece in pieces:
        unit = max(len(piece) / height, piece.shape[1] / (6 * height))  # the side of one of the 32 pixels
        above = (32 * unit - len(piece)) / 2
        width = int(np.ceil(piece.shape[1] / unit))
        part = resample(piece, [(-above, 32 * unit - above), (0, width * unit)], (32, width))
        columns += [part / part.max(), np.zeros((32, gap))]
    columns[-1] = np.zeros((32, max(margin, 34 - sum(part.shape[1] for part in columns[:-1]))))
    return np.uint8(np.rint(255 * np.hstack(columns).clip(0, 1)))


def placed(pieces: list[np.ndarray]) -> np.ndarray:
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
