"""How people write digits, where MNIST does not show it, and as digits/pieces.py hands it on: for digits/lines.py.

- ways: a 1 with an upstroke or a foot, a crossed, hooked or narrow 7, a 4 that is open or like an h, a 9 like a P, a 0
  with a stroke to the next. Few of MNIST's writers write these.
- pens: strokes from a hairline to a marker. MNIST's are two to three pixels wide in a digit of 20 pixels; in photos of
  whole lines most are finer.
- sizes: each digit has one height, as pieces have that were evened; digits that touch were enlarged as one piece.
- gaps: a few pixels, as between evened pieces; none between digits that touch.

Each step works on all digits of a batch at once. Of each digit `line` (D,) tells its line, counted from 0, and `joined`
(D,) whether it touches the one before. Lengths are pixels; x counts to the right, y down.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from digits.augmentation import CENTRE, SCALING, SHEARING, SQUEEZING, TRANSLATION, warp

INK = 96  # grey levels: what has more belongs to a stroke
HEIGHT = 20  # of a digit of size 1, as in MNIST and in evened lines
SMALLEST = 0.65  # size, of a digit that touches another
WIDEST = 27  # a digit's ink: slanted, it must still fit into its field of 32


def evened(
    digits: np.ndarray, labels: np.ndarray, line: np.ndarray, slant: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits of evened lines: digits uint8 (D, 32, 32), labels (D,), amounts of shearing `slant` (D,) -> three arrays.

    The digits as people write them, uint8 (D, 32, 32); amounts (D, 5) for affine_maps, to be applied to them; and which
    of them are joined, bool (D,).
    """
    joined = joins(line, generator)
    digits = with_ways(digits, labels, generator)
    size, middle = sizes(joined, generator)
    amounts = with_sizes(digits, size, middle, slant, line, generator)
    return with_pens(digits, line, size, generator), amounts, joined


def alike(line: np.ndarray, generator: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Random numbers (D,) between these, the same for all digits of a line."""
    return generator.uniform(low, high, line.max(initial=-1) + 1)[line]


# ---------------------------------------------------------------------------------------------- ways of writing


def with_ways(digits: np.ndarray, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Some of the digits written in another way: digits uint8 (D, 32, 32), labels (D,) -> uint8 (D, 32, 32)."""
    digits = digits.copy()
    for label, share, way in WAYS:
        chosen = np.flatnonzero((labels == label) & (generator.random(len(labels)) < share))
        if chosen.size:
            digits[chosen] = way(digits[chosen], generator)
    return digits


def with_upstroke(ones: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """1s with a stroke that rises to their top from the left, 30 to 55 degrees off the vertical.

    The bar of a 7 is level. So that a narrow 7 stays one, flat upstrokes are short, and a 1 that leans far gets none.
    """
    top, bottom = stem(ones)
    height, leaning = bottom[:, 1] - top[:, 1], np.arctan2(top[:, 0] - bottom[:, 0], bottom[:, 1] - top[:, 1])
    angle = np.maximum(np.radians(generator.uniform(30, 55, len(ones))), leaning + np.radians(30))
    length = height * generator.uniform(0.25, 1.1 - 0.8 * np.sin(angle)) * (leaning < np.radians(25))
    start = top + length[:, None] * np.stack([-np.sin(angle), np.cos(angle)], 1)
    return draw(ones, start.clip(1, 30), top, pen_of(ones))


def with_foot(ones: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """1s on a level stroke of 6 to 12 pixels."""
    _, bottom = stem(ones)
    left, right = generator.uniform(3, 6, (2, len(ones)))
    level = np.zeros(len(ones))
    return draw(ones, bottom - np.stack([left, level], 1), bottom + np.stack([right, level], 1), pen_of(ones))


def narrowed(sevens: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """7s of 0.45 to 0.8 times their width. Beside 1s with upstrokes, the few of MNIST become 1s."""
    maps = torch.eye(2, 3).repeat(len(sevens), 1, 1)
    maps[:, 0, 0] = torch.from_numpy(1 / generator.uniform(0.45, 0.8, len(sevens)))
    return warp(torch.from_numpy(sevens), maps).numpy()


def crossed(sevens: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """7s with a short bar through the middle of the stem."""
    (_, top), (_, bottom) = (point.T for point in stem(sevens))
    row = np.rint(top + generator.uniform(0.45, 0.65, len(sevens)) * (bottom - top)).astype(int)
    across = (sevens > INK)[np.arange(len(sevens)), row]  # (N, 32): the ink of this row
    x = (across * np.arange(32)).sum(1) / across.sum(1).clip(1)
    middle = np.stack([np.where(across.any(1), x, CENTRE) + generator.uniform(-1.5, 1.5, len(sevens)), row], 1)
    half = generator.uniform(3, 6, len(sevens))[:, None] * towards(generator.uniform(-0.35, 0.15, len(sevens)))
    return draw(sevens, middle - half, middle + half, pen_of(sevens))


def hooked(sevens: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """7s whose bar starts with a short stroke down."""
    ink = sevens > INK
    ink[:, 14:] = False  # the upper part has the bar
    left = np.where(ink.any((1, 2)), ink.any(1).argmax(1), CENTRE)
    rows = ink[np.arange(len(ink)), :, left.astype(int)]
    start = np.stack([left + 0.5, np.where(rows.any(1), rows.argmax(1), 8)], 1)
    down = np.stack([generator.uniform(-1.5, 0.5, len(ink)), generator.uniform(2, 5, len(ink))], 1)
    return draw(sevens, start, start + down, pen_of(sevens))


def opened(fours: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """4s cut open at the top: two to four free columns left of the stem, in the upper third."""
    ink = fours > INK
    top = ink.any(2).argmax(1)
    right = 32 - ink[:, :, ::-1].argmax(2)  # (N, 32): where the ink of each row stops
    gap = generator.integers(2, 5, (len(fours), 1, 1))
    stop = (right - np.rint(pen_of(fours))[:, None])[:, :, None]
    x, y = np.arange(32), np.arange(32)[:, None] - top[:, None, None]
    return np.where((stop - gap <= x) & (x < stop) & (y < 7), 0, fours).astype(np.uint8)


def lowered(fours: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """4s like an h: the stem starts one to four pixels above where the bar meets it, and the bar stands lower.

    They are lower than they were, a few by far; with_sizes makes up for it.
    """
    ink, rows, x = fours > INK, np.arange(32), np.arange(32)
    stem, rest = first_run(ink[:, :, ::-1])
    parted = rest.any(2) & (stem.sum(2) < 2 * pen_of(fours)[:, None])  # (N, 32): a stroke stands left of the stem
    parted, _ = first_run(parted)
    top, bar = parted.argmax(1)[:, None], (parted.argmax(1) + parted.sum(1))[:, None]
    start = np.where(parted, 32 - stem.argmax(2) - stem.sum(2), 32)  # where the stem of a row starts
    start = np.where(rows < top, np.take_along_axis(start, top, 1), start)
    gone = rows < bar - generator.integers(1, 5, (len(fours), 1))
    cut = np.where(gone[:, :, None] & (x >= start[:, :, None] - 1), 0, fours)
    bottom = 32 - ink.any(2)[:, ::-1].argmax(1)[:, None]
    return stretched(cut, bar, bar + generator.uniform(0, 0.6, bar.shape) * (bottom - bar).clip(0), bottom)


def stretched(images: np.ndarray, row: np.ndarray, to: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Images (N, 32, 32) drawn out until a row stands at another, `to`; the bottom stays: (N, 1) each."""
    rows = np.arange(32)
    below = row + (rows - to) * (bottom - row) / (bottom - to).clip(1)
    source = np.where(rows < to, rows * row / to.clip(1), below).clip(0, 31)[:, :, None]  # where each row comes from
    above, share = source.astype(int), source % 1
    upper, lower = (np.take_along_axis(images, (above + i).clip(0, 31), 1) for i in (0, 1))
    return np.rint((1 - share) * upper + share * lower).astype(np.uint8)


def first_run(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first run of True along the last axis, and what comes after it: two arrays like `values`, bool (..., W)."""
    started = np.logical_or.accumulate(values, -1)
    stopped = np.logical_or.accumulate(started & ~values, -1)
    return started & ~stopped, values & stopped


def linked(noughts: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """0s with a stroke from their top to the right, as where noughts are written without lifting the pen."""
    top, _, left, right = box(noughts)
    start = np.stack([(left + 2 * right) / 3, top + pen_of(noughts) / 2], 1)
    end = np.stack([right + generator.uniform(1, 5, len(noughts)), top + generator.uniform(0, 5, len(noughts))], 1)
    return draw(noughts, start, end.clip(1, 30), pen_of(noughts))


def mirrored(nines: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """9s like a P: the loop on the other side, the stem leaning to the right as it did before, or nearly."""
    maps = torch.eye(2, 3).repeat(len(nines), 1, 1)
    maps[:, 0, 0], maps[:, 0, 1] = -1, torch.from_numpy(-generator.uniform(0, 0.5, len(nines)))
    return warp(torch.from_numpy(nines), maps).numpy()


WAYS = (  # of a class, each with its share of the digits
    (0, 0.2, linked),
    (1, 0.5, with_upstroke),
    (1, 0.12, with_foot),
    (4, 0.3, opened),
    (4, 0.3, lowered),
    (7, 0.3, narrowed),
    (7, 0.4, crossed),
    (7, 0.2, hooked),
    (9, 0.15, mirrored),
)


def stem(digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle (x, y) of the ink in a digit's two top rows, and in its two bottom rows: (N, 2) each."""
    ink = digits > INK
    rows = ink.any(2)
    top, bottom = rows.argmax(1), 31 - rows[:, ::-1].argmax(1)
    points = []
    for first, y in (top, top), (bottom - 1, bottom):
        columns = np.take_along_axis(ink, first.clip(0, 30)[:, None, None] + np.arange(2)[:, None], 1).any(1)
        points.append(np.stack([(columns * np.arange(32)).sum(1) / columns.sum(1).clip(1), y], 1))
    return tuple(points)


def towards(rise: np.ndarray) -> np.ndarray:
    """Directions (N, 2) one pixel to the right, and `rise` (N,) pixels down."""
    return np.stack([np.ones_like(rise), rise], 1)


# ---------------------------------------------------------------------------------------------- pens

FINEST, BROADEST = 1.0, 0.5  # levels of `pen`, for strokes of about 1.3 and 3.5 pixels
FINER = 0.35  # added to the level for each unit of a digit's size above 1
BLUR = torch.tensor([1.0, 4, 6, 4, 1]) / 16


def with_pens(digits: np.ndarray, line: np.ndarray, size: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Digits uint8 (D, 32, 32) as other pens write them, about alike in a line: each was enlarged by itself.

    A digit that will have another size (D,) gets a pen that is alike then.
    """
    level = FINEST - (FINEST - BROADEST) * alike(line, generator, 0, 1) ** 2
    level += 0.2 * generator.uniform(-1, 1, len(line)) + FINER * (size - 1)
    level, soft = level.clip(BROADEST - 0.2, FINEST), alike(line, generator, 0.3, 0.6)
    ink = torch.from_numpy(digits).float().unsqueeze(1) / 255
    ink = pen(ink, *(torch.from_numpy(values.astype(np.float32)).view(-1, 1, 1, 1) for values in (level, soft)))
    return np.rint(255 * ink.squeeze(1).numpy()).astype(np.uint8)


def pen(ink: Tensor, level: Tensor, soft: Tensor) -> Tensor:
    """Strokes made finer or broader: ink (N, 1, H, W), 0 to 1, and for each its level and softness (N, 1, 1, 1).

    Blurred, a stroke becomes a ridge. What stands above a level, a share of the ridge's height nearby, is kept: near 1
    only the crest. The crest has nearly the share 1 all along, so that a fine stroke hardly breaks.
    """
    blurred = F.conv2d(F.conv2d(ink, BLUR.view(1, 1, 1, 5), padding=(0, 2)), BLUR.view(1, 1, 5, 1), padding=(2, 0))
    crest = F.max_pool2d(blurred, 3, 1, 1).clamp(min=0.15)
    above = (blurred / crest - level) / soft + 0.5
    return (above / ((1 - level) / soft + 0.5).clamp(max=1)).clamp(0, 1)


# ---------------------------------------------------------------------------------------------- sizes


def sizes(joined: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The size of each digit (D,), and where it stands (D,): its middle, pixels below that of the line.

    Alone it has size 1. Of digits that touch some are smaller than their piece, and stand higher or lower in it.
    """
    count = len(joined)
    piece = joined | np.append(joined[1:], False)
    size = np.where(piece, generator.uniform(SMALLEST, 1, count), 1)
    return size, generator.uniform(-1, 1, count) * HEIGHT * (1 - size) / 2


def with_sizes(
    digits: np.ndarray,
    size: np.ndarray,
    middle: np.ndarray,
    slant: np.ndarray,
    line: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """What gives digits (D, 32, 32) sizes and places (D,), and some width: amounts (D, 5) for affine_maps.

    `slant` (D,) are the amounts of shearing.
    """
    top, bottom, left, right = box(digits)
    tall = (HEIGHT * size / (bottom - top)).clip(0, 1.6)
    wide = tall * alike(line, generator, 0.8, 1.25) * generator.uniform(0.85, 1.15, len(line))
    wide = np.minimum(wide, WIDEST / (right - left))
    x, y = (left + right) / 2 - 0.5 - CENTRE, (top + bottom) / 2 - 0.5 - CENTRE  # the middle of the ink
    right, down = -wide * x - SHEARING * slant * tall * y, middle - tall * y
    scaling, squeezing = np.log(wide * tall) / 2 / np.log(SCALING), np.log(wide / tall) / 2 / np.log(SQUEEZING)
    return np.stack([right / TRANSLATION, down / TRANSLATION, scaling, squeezing, slant], 1).astype(np.float32)


# ---------------------------------------------------------------------------------------------- gaps


def joins(line: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Which digits touch the one before, bool (D,): in a quarter of the lines more than half."""
    joined = (alike(line, generator, 0, 1) < 0.25) & (generator.random(len(line)) < 0.6)
    return joined & (np.diff(line, prepend=-1) == 0)


def gaps(digits: np.ndarray, joined: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The gaps (D,) before digits uint8 (D, 32, 32): none in joins, else those of evened lines less their soft rims."""
    equal = generator.integers(3, 7, len(digits))
    return np.where(joined, touching(digits) - generator.integers(0, 2, len(digits)), equal)


def touching(digits: np.ndarray) -> np.ndarray:
    """The gap (D,) at which each of the digits (D, 32, 32) meets the one before in some row; at least -4."""
    strokes, columns = digits > INK, digits.any(1)
    left = np.where(strokes.any(2), strokes.argmax(2), 32) - columns.argmax(1)[:, None]  # (D, 32): free in each row
    right = np.where(strokes.any(2), strokes[:, :, ::-1].argmax(2), 32) - columns[:, ::-1].argmax(1)[:, None]
    return -np.minimum((left + np.roll(right, 1, 0)).min(1), 4)


# ---------------------------------------------------------------------------------------------- strokes and ink


def pen_of(digits: np.ndarray) -> np.ndarray:
    """About how wide the strokes of digits (N, 32, 32) are: a stroke's area is half its outline times its width."""
    ink = np.pad(digits / np.float32(255), ((0, 0), (1, 1), (1, 1)))
    outline = sum(np.abs(np.diff(ink, axis=axis)).sum((1, 2)) for axis in (1, 2))
    return 2.5 * ink.sum((1, 2)) / outline.clip(1)


def draw(images: np.ndarray, start: np.ndarray, end: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """A straight stroke in each image: uint8 (N, H, W), from start to end (N, 2), as (x, y), so wide (N,)."""
    y, x = np.ogrid[: images.shape[1], : images.shape[2]]
    along = (end - start).astype(np.float32)
    right, down = (start.astype(np.float32)[:, i, None, None] for i in (0, 1))
    far_right, far_down = (along[:, i, None, None] for i in (0, 1))
    share = ((x - right) * far_right + (y - down) * far_down) / (along**2).sum(1).clip(1e-6)[:, None, None]
    share = share.clip(0, 1)  # of the way from start to end, where a pixel is nearest
    away = np.hypot(x - right - share * far_right, y - down - share * far_down)
    ink = 255 * (wide[:, None, None] / 2 + 0.5 - away).clip(0, 1)
    return np.maximum(images, ink.astype(np.uint8))


def box(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where the ink of images (N, H, W) starts and stops: top, bottom, left, right, (N,) each.

    An image without ink is taken for one with a digit's usual margins.
    """
    ink, found = images > INK, []
    for along, margin in (ink.any(2), 6), (ink.any(1), 14):
        some, size = along.any(1), along.shape[1]
        found.append(np.where(some, along.argmax(1), margin))
        found.append(np.where(some, size - along[:, ::-1].argmax(1), size - margin))
    return tuple(found)
