"""An image file in MNIST's form: a scan, a photo or a drawing of one digit -> uint8 (28, 28).

    image = prepare(read_grey("seven.jpg"))

read_grey turns a file of any kind into grey levels. prepare finds the ink and places it as MNIST's authors did; whole
numbers are for digits/pieces.py. Lengths are pixels, grey levels run from 0 (black) to 255 (white), and an
image is an array (H, W).

The page in tools/ repeats prepare in JavaScript, and a test compares the two. That is why all resampling is written out
here: a library's would round differently.
"""

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Span = tuple[float, float]  # where something starts and stops, along one axis
Box = tuple[Span, Span]  # its rows, its columns

# ---------------------------------------------------------------------------------------------- from file to grey

LARGEST = 64_000_000  # pixels; a larger image is refused before it is decoded
READ_AT = 1024  # pixels of the longer side; a larger image is reduced to it
Image.MAX_IMAGE_PIXELS = LARGEST  # above it Pillow warns, which read_grey turns into an error, or raises


def read_grey(file) -> np.ndarray:
    """The first frame of an image file, a path or an open file, as grey levels: uint8 (H, W), at most 1024 a side.

    Raises ValueError that says in a line what is wrong with the file.
    """
    if isinstance(file, str | Path) and os.path.exists(file) and not os.path.isfile(file):  # a pipe is waited for
        folder = os.path.isdir(file)
        raise ValueError("is a folder; name the images in it" if folder else "is a pipe or a device; name a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.init()
            formats = set(Image.OPEN) - {"EPS"}  # a program rather than an image: Pillow would have it run
            with Image.open(file, formats=sorted(formats)) as image:
                return to_grey(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise ValueError("does not exist; check the name") from None
    except UnidentifiedImageError:
        raise ValueError("is no image that can be read; save it as PNG or JPEG") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"has more than {LARGEST // 10**6} million pixels; make it smaller") from None
    except Exception as error:  # each of Pillow's readers has its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"cannot be read as an image ({reason}); save it as PNG or JPEG") from None


def to_grey(image: Image.Image) -> np.ndarray:
    """An image of any mode as grey levels: uint8 (H, W). Raises ValueError if it shows nothing."""
    if image.mode[0] in "IF":  # more than 8 bits: the range that is used becomes 0 to 255
        image = image.convert("F")
        image.thumbnail((READ_AT, READ_AT), Image.Resampling.BOX)
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if not np.isfinite(high - low):
            raise ValueError("not all its values are finite")
        image = Image.fromarray(np.uint8((values - low) * (255 / max(high - low, 1e-30))))
    elif image.mode == "LAB":
        image = image.getchannel("L")
    image = image.convert("RGBA" if image.has_transparency_data else "L")
    image.thumbnail((READ_AT, READ_AT), Image.Resampling.BOX)
    if image.mode == "L":
        return np.asarray(image)
    grey, alpha = np.asarray(image.convert("L")), np.asarray(image.getchannel("A")) / 255
    return np.uint8(np.rint(alpha * grey + (1 - alpha) * grey_behind(grey[alpha > 0.5])))


def grey_behind(opaque: np.ndarray) -> float:
    """The grey level to put behind a transparent image with these opaque pixels (N,).

    If they show paper and ink, it is their median, the paper. Else they are ink alone: dark ink gets white paper, light
    ink black paper. Raises ValueError if there are none.
    """
    if not opaque.size:
        raise ValueError("it is transparent all over")
    low, level, high = np.percentile(opaque, [5, 50, 95])
    if high - low > 64:
        return level
    return 255 if level < 128 else 0


# ---------------------------------------------------------------------------------------------- from grey to MNIST

FAINT = "shows no digit that stands out from its ground; take more light, or a thicker pen"
LOOK_AT = 160  # pixels of the longer side at which ink is looked for
TINY = 1e-6  # added before rounding: sums taken in another order, as in JavaScript, then round to the same number


def prepare(grey: np.ndarray) -> np.ndarray:
    """An image of one digit as MNIST would hold it: grey levels uint8 (H, W) -> uint8 (28, 28), ink up to 255.

    Raises ValueError if there is no ink.
    """
    return place(*look_twice(grey.astype(float)))


def look_twice(grey: np.ndarray) -> tuple[np.ndarray, Box]:
    """The ink of an image (H, W), and the box around it: looked for in the whole image, reduced to 160 pixels, then
    again, in more detail, around what was found, with a margin of a quarter of the longer side.
    """
    ink, box = find_ink(shrink(grey, LOOK_AT))
    ratio = max(1, max(grey.shape) / LOOK_AT)
    margin = 0.25 * max(stop - start for start, stop in box)
    around = tuple(
        slice(max(0, int((start - margin) * ratio)), min(side, int((stop + margin) * ratio) + 1))
        for (start, stop), side in zip(box, grey.shape)
    )
    if grey[around].shape != grey.shape:
        ink, box = find_ink(shrink(grey[around], LOOK_AT))
    return ink, box


def find_ink(grey: np.ndarray) -> tuple[np.ndarray, Box]:
    """The ink of an image (H, W): about 1 where it is full, 0 where there is none; and the box around it.

    Raises ValueError if nothing stands out from the ground.
    """
    contrast = grey - lighting(grey)
    if (contrast * contrast * contrast).sum() < 0:  # what stands out is darker than the ground
        contrast = -contrast
    noise = max(1, 1.5 * np.median(abs(contrast[border(grey.shape)])))
    strong = np.where(contrast > 3 * noise, contrast, 0)
    squares = strong * strong
    full = (squares * strong).sum() / max(squares.sum(), 1)  # the level of full ink: strong pixels count most
    if full < max(16, 4.5 * noise):
        raise ValueError(FAINT)
    mask = contrast > max(0.35 * full, 3.5 * noise)
    mask, region = drop_specks(mask)
    ink = np.where(region, (contrast - 2.5 * noise).clip(0) / full, 0)
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return ink, ((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1))


def lighting(grey: np.ndarray) -> np.ndarray:
    """The brightness of the ground (H, W): a quadratic surface, fitted to the pixels that look like the border.

    Least squares, repeated with the weights of Geman and McClure's function: they take the ink out of the fit.
    """
    small = shrink(grey, 48)
    terms, levels = quadratic_terms(small.shape), small.reshape(-1)
    edge = border(small.shape).reshape(-1)
    residual = levels - np.median(levels[edge])
    for _ in range(8):
        noise = max(4, 1.5 * np.median(abs(residual[edge])))
        weights = 1 / (1 + (residual / (2 * noise)) ** 2) ** 2
        matrix = (terms.T * weights) @ terms
        matrix[range(1, 6), range(1, 6)] += 1e-3 * weights.sum()  # a flat surface where an image is too small to tell
        surface = np.linalg.solve(matrix, terms.T @ (weights * levels))
        residual = levels - terms @ surface
    return (quadratic_terms(grey.shape) @ surface).reshape(grey.shape)


def quadratic_terms(shape: tuple[int, int]) -> np.ndarray:
    """1, x, y, x^2, xy and y^2 of all pixels, with x and y from -1 to 1: (H*W, 6)."""
    y, x = np.meshgrid(*((2 * np.arange(size) + 1) / size - 1 for size in shape), indexing="ij")
    return np.stack([np.ones(shape), x, y, x * x, x * y, y * y], 2).reshape(-1, 6)


def border(shape: tuple[int, int]) -> np.ndarray:
    """Which pixels lie near the edge, where an image shows its ground: bool (H, W)."""
    width = -(-min(shape) // 12)
    mask = np.ones(shape, bool)
    mask[width:-width, width:-width] = False
    return mask


def drop_specks(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mask (H, W) without its small pieces, and the region (H, W), bool, of what is left and its surroundings.

    A piece is small if it has less than a twentieth of the largest piece's pixels. Pieces are told apart on a grid of
    at most 64 cells a side.
    """
    side = -(-max(mask.shape) // 64)
    rows, columns = (-(-size // side) for size in mask.shape)
    padded = np.zeros((rows * side, columns * side), int)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    cells = padded.reshape(rows, side, columns, side).sum((1, 3))  # the pixels in each cell
    pieces = touching(cells)
    pixels = [sum(cells[cell] for cell in piece) for piece in pieces]
    kept = np.zeros((rows + 2, columns + 2), bool)  # with a rim of one cell
    for piece, count in zip(pieces, pixels):
        if count >= max(pixels) / 20:
            for row, column in piece:
                kept[row : row + 3, column : column + 3] = True  # the cell and its eight neighbours
    region = kept[1:-1, 1:-1].repeat(side, 0).repeat(side, 1)[: mask.shape[0], : mask.shape[1]]
    return mask & region, region


def touching(cells: np.ndarray) -> list[list[tuple[int, int]]]:
    """The cells (row, column) of a grid that are not 0, in pieces: those that touch, at a corner too, are in one."""
    pieces = []
    free = set(zip(*(index.tolist() for index in cells.nonzero())))
    while free:
        piece = [free.pop()]
        for row, column in piece:  # grows while it is walked
            around = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & free
            free -= around
            piece.extend(around)
        pieces.append(piece)
    return pieces


def place(ink: np.ndarray, box: Box) -> np.ndarray:
    """The ink (H, W) inside a box as uint8 (28, 28): the longer side 20 pixels, the centre of mass in the centre.

    MNIST's own centres of mass lie within [14, 15), counted from the upper left corner. No ink may leave the field.
    """
    (top, bottom), (left, right) = box
    ink = ink[top:bottom, left:right]
    unit = max(ink.shape) / 20  # the side of one of the 28x28 pixels
    spans = []
    for size, profile in zip(ink.shape, (ink.sum(1), ink.sum(0))):
        centre = profile @ (np.arange(size) + 0.5) / profile.sum() / unit
        offset = min(max(np.ceil(14 - centre - TINY), 0), 28 - size / unit)
        spans.append((-offset * unit, (28 - offset) * unit))
    field = resample(ink, spans, (28, 28))
    return np.floor(field * (255 / field.max()) + 0.5 + TINY).clip(0, 255).astype(np.uint8)


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """An image (H, W) reduced to a longer side of at most `longest` pixels, each the average of the area it covers."""
    ratio = max(image.shape) / longest
    if ratio <= 1:
        return image
    shape = [max(1, int(size / ratio + 0.5)) for size in image.shape]
    return resample(image, [(0, size) for size in image.shape], shape)


def resample(image: np.ndarray, spans, shape) -> np.ndarray:
    """The part of an image inside spans (rows, columns) as pixels of the shape (h, w), by averages of areas.

    Spans may start and stop inside a pixel, and outside the image, where all is 0.
    """
    for (start, stop), count in zip(spans, shape):
        edges = (start + (stop - start) * np.arange(count + 1) / count).clip(0, len(image))
        pixel = np.minimum(edges.astype(int), len(image) - 1)
        above = np.cumsum(np.vstack([np.zeros_like(image[:1]), image]), 0)  # the sum of the rows above each
        sums = above[pixel] + (edges - pixel)[:, None] * image[pixel]
        image = (np.diff(sums, axis=0) / ((stop - start) / count)).T  # the other axis is next
    return image
