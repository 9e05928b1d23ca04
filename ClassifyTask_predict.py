"""Read digits in pictures of one's own: picture files in, digits out.

python ClassifyTask_predict.py seven.jpg             file, digit, probability, runner-up
python ClassifyTask_predict.py seven.jpg --csv       the same as comma-separated values
python ClassifyTask_predict.py seven.jpg --figure    and what every layer saw: Record/prediction-1.png

One digit a picture, on a plain ground: a scan, a photo, a drawing; dark on light, or light on dark.
"""

import csv
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps, UnidentifiedImageError

import plots
import utils
from model import LeNet5, Squash, pad, scale


def main() -> int:
    parser = utils.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="a picture file with one digit in it")
    parser.add_argument("--csv", action="store_true", help="print file,digit,probability,runner_up")
    parser.add_argument("--figure", action="store_true", help="draw what each layer saw: prediction-1.png, -2.png, ...")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: LeNet5.pt in the record folder")
    parser.add_argument("--record-dir", type=Path, metavar="DIR", help="of figures and LeNet5.pt; default: Record")
    parser.add_argument("--device", default="auto", help="cuda if there is one, else cpu; or any torch device")
    args = parser.parse_args()

    device = utils.pick_device(args.device)
    folder = args.record_dir or (args.checkpoint.parent if args.checkpoint else utils.RECORD)
    model = utils.load_model(utils.load_checkpoint(args.checkpoint or folder / "LeNet5.pt")).to(device)
    rows = csv.writer(sys.stdout, lineterminator="\n")
    if args.csv:
        rows.writerow(["file", "digit", "probability", "runner_up"])
    failed = 0
    for number, path in enumerate(args.pictures, 1):
        try:
            grey = read_grey(path)
            image = prepare(grey)
        except ValueError as error:
            print(f"{Path(sys.argv[0]).name}: {printable(path)} {' '.join(str(error).split())}", file=sys.stderr)
            failed += 1
            continue
        outputs = layer_outputs(model, torch.from_numpy(image)[None].to(device))
        probabilities = outputs["output"].softmax(0)
        digit, runner_up = probabilities.topk(2).indices.tolist()
        if args.csv:
            rows.writerow([path, digit, f"{probabilities[digit]:.4f}", runner_up])
        else:
            print(f"{printable(path)}: {digit}, probability {probabilities[digit]:.1%}, runner-up {runner_up}")
        if args.figure:
            with utils.whole_files(folder / f"prediction-{number}.png") as temporary:
                figure(temporary / f"prediction-{number}.png", printable(Path(path.name)), grey, image, model, outputs)
    return 2 if failed else 0


def printable(path: Path) -> str:
    """A file's name for a line of text: without control characters."""
    return str(path) if str(path).isprintable() else ascii(str(path))


@torch.inference_mode()
def layer_outputs(model: LeNet5, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """What every layer makes of one image, uint8 (1, 28, 28): its maps (C, H, W), or units (C,), on the CPU."""
    x = {"input": scale(pad(image))}
    x["c1"] = model.squash(model.c1(x["input"]))
    x["s2"] = model.s2(x["c1"])
    x["c3"] = model.squash(model.c3(x["s2"]))
    x["s4"] = model.s4(x["c3"])
    x["c5"] = model.squash(model.c5(x["s4"])).flatten(1)
    x["f6"] = model.squash(model.f6(x["c5"]))
    x["output"] = model.output(x["f6"])
    return {name: maps[0].cpu() for name, maps in x.items()}


# ---------------------------------------------------------------------------------------------- picture files

LARGEST = 64_000_000  # pixels; a larger picture is refused before it is decoded
READ_AT = 1024  # pixels of the longer side, beyond which a picture is reduced
Image.MAX_IMAGE_PIXELS = LARGEST


def read_grey(file) -> np.ndarray:
    """The first frame of a picture file, a path or an open file, as grey levels: uint8 (H, W), at most 1024 a side.

    Raises ValueError that says what is wrong with it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.init()
            formats = set(Image.OPEN) - {"EPS"}  # a program rather than a picture: Pillow would have it run
            with Image.open(file, formats=sorted(formats)) as picture:
                if picture.width * picture.height > LARGEST:
                    raise Image.DecompressionBombError
                return to_grey(ImageOps.exif_transpose(picture))
    except FileNotFoundError:
        raise ValueError("does not exist; check the name") from None
    except UnidentifiedImageError:
        raise ValueError("is no picture that can be read; save it as PNG or JPEG") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"has more than {LARGEST // 10**6} million pixels; make it smaller") from None
    except Exception as error:  # each of Pillow's readers has its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"cannot be read as a picture ({reason}); save it as PNG or JPEG") from None


def to_grey(picture: Image.Image) -> np.ndarray:
    """A picture of any mode as grey levels: uint8 (H, W)."""
    if picture.mode[0] in "IF":  # more than 8 bits: the range used becomes 0 to 255
        picture = picture.convert("F")
        picture.thumbnail((READ_AT, READ_AT), Image.Resampling.BOX)
        values = np.asarray(picture)
        low, high = values.min(), values.max()
        if not np.isfinite(high - low):
            raise ValueError("not all its values are finite")
        picture = Image.fromarray(np.uint8((values - low) * (255 / max(high - low, 1e-30))))
    elif picture.mode == "LAB":
        picture = picture.getchannel("L")
    picture = picture.convert("RGBA" if picture.has_transparency_data else "L")
    picture.thumbnail((READ_AT, READ_AT), Image.Resampling.BOX)
    if picture.mode == "L":
        return np.asarray(picture)
    grey, alpha = np.asarray(picture.convert("L")), np.asarray(picture.getchannel("A")) / 255
    return np.uint8(np.rint(alpha * grey + (1 - alpha) * ground_behind(grey[alpha > 0.5])))


def ground_behind(opaque: np.ndarray) -> float:
    """The grey of what is transparent, from the opaque pixels (N,): their median if they show paper and ink,
    else they are ink alone, on white if they are dark, on black if they are light."""
    if not opaque.size:
        raise ValueError("it is transparent all over")
    low, level, high = np.percentile(opaque, [5, 50, 95])
    if high - low > 64:
        return level
    return 255 if level < 128 else 0


# ---------------------------------------------------------------------------------------------- preparation
# From grey levels to MNIST's form, as its authors did. experiments/demo.html takes the same steps in JavaScript, and
# the tests compare the two: that is why all resampling is written out here.

LOOK_AT = 160  # pixels of the longer side at which ink is looked for
TINY = 1e-6  # added before rounding, so that sums taken in another order are rounded alike


def prepare(grey: np.ndarray) -> np.ndarray:
    """A picture of one digit as MNIST would hold it: grey levels uint8 (H, W) -> uint8 (28, 28), ink up to 255.

    The ink is found and its box cropped, twice: the second time only around what the first found. The box's longer side
    becomes 20 pixels, and the centre of mass the centre of the 28x28. Raises ValueError if there is no ink.
    """
    grey = grey.astype(float)
    ink, box = find_ink(shrink(grey, LOOK_AT))
    ratio = max(1, max(grey.shape) / LOOK_AT)
    margin = 0.25 * max(bottom - top for top, bottom in box)
    around = tuple(
        slice(max(0, int((start - margin) * ratio)), min(side, int((stop + margin) * ratio) + 1))
        for (start, stop), side in zip(box, grey.shape)
    )
    if grey[around].shape != grey.shape:
        ink, box = find_ink(shrink(grey[around], LOOK_AT))
    return place(ink, box)


def place(ink: np.ndarray, box) -> np.ndarray:
    """Ink (H, W) inside a box ((top, bottom), (left, right)) -> uint8 (28, 28).

    MNIST's own centres of mass lie within [14, 15), counted from the upper left corner; no ink may leave the field.
    """
    (top, bottom), (left, right) = box
    ink = ink[top:bottom, left:right]
    unit = max(ink.shape) / 20
    spans = []
    for size, profile in zip(ink.shape, (ink.sum(1), ink.sum(0))):
        centre = profile @ (np.arange(size) + 0.5) / profile.sum() / unit
        offset = min(max(np.ceil(14 - centre - TINY), 0), 28 - size / unit)
        spans.append((-offset * unit, (28 - offset) * unit))
    field = resample(ink, spans, (28, 28))
    return np.floor(field * (255 / field.max()) + 0.5 + TINY).clip(0, 255).astype(np.uint8)


def find_ink(grey: np.ndarray):
    """The ink of a picture (H, W), about 1 where it is full, else 0, and its box ((top, bottom), (left, right))."""
    height = grey - lighting(grey)
    if (height * height * height).sum() < 0:  # what stands out is darker than the ground
        height = -height
    noise = max(1, 1.5 * np.median(abs(height[border(grey.shape)])))
    strong = np.where(height > 3 * noise, height, 0)
    squares = strong * strong
    full = (squares * strong).sum() / max(squares.sum(), 1)  # the level of full ink: strong pixels count most
    if full < max(16, 4.5 * noise):
        raise ValueError("shows no digit that stands out from its ground; take more light, or a thicker pen")
    mask = height > max(0.35 * full, 3.5 * noise)
    mask, region = drop_specks(mask)
    ink = np.where(region, (height - 2.5 * noise).clip(0) / full, 0)
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return ink, ((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1))


def border(shape: tuple[int, int]) -> np.ndarray:
    """Which pixels are near the edge, where a picture shows its ground: bool (H, W)."""
    width = -(-min(shape) // 12)
    mask = np.ones(shape, bool)
    mask[width:-width, width:-width] = False
    return mask


def lighting(grey: np.ndarray) -> np.ndarray:
    """The ground's brightness (H, W): a quadratic surface, fitted to what is like the border and to nothing else.

    Least squares, reweighted by Geman and McClure's function, so that ink does not count.
    """
    small = shrink(grey, 48)
    terms, levels = quadratic_terms(small.shape), small.reshape(-1)
    edge = border(small.shape).reshape(-1)
    residual = levels - np.median(levels[edge])
    for _ in range(8):
        noise = max(4, 1.5 * np.median(abs(residual[edge])))
        weights = 1 / (1 + (residual / (2 * noise)) ** 2) ** 2
        matrix = (terms.T * weights) @ terms
        matrix[range(1, 6), range(1, 6)] += 1e-3 * weights.sum()  # a flat surface where a picture is too small to tell
        surface = np.linalg.solve(matrix, terms.T @ (weights * levels))
        residual = levels - terms @ surface
    return (quadratic_terms(grey.shape) @ surface).reshape(grey.shape)


def quadratic_terms(shape: tuple[int, int]) -> np.ndarray:
    """1, x, y, x^2, xy and y^2 of all pixels, with x and y from -1 to 1: (H*W, 6)."""
    y, x = np.meshgrid(*((2 * np.arange(size) + 1) / size - 1 for size in shape), indexing="ij")
    return np.stack([np.ones(shape), x, y, x * x, x * y, y * y], 2).reshape(-1, 6)


def drop_specks(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the pieces of a mask (H, W) those with at least a twentieth of the largest one's pixels; and their region.

    Pieces are one where they lie in cells that touch, of a grid with up to 64 cells on its longer side.
    """
    side = -(-max(mask.shape) // 64)
    rows, columns = (-(-size // side) for size in mask.shape)
    padded = np.zeros((rows * side, columns * side), int)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    cells = padded.reshape(rows, side, columns, side).sum((1, 3))
    pieces = []
    free = set(zip(*(index.tolist() for index in cells.nonzero())))
    while free:
        piece = [free.pop()]
        for row, column in piece:  # grows while it is walked
            around = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & free
            free -= around
            piece.extend(around)
        pieces.append((sum(cells[cell] for cell in piece), piece))
    least = max(mass for mass, _ in pieces) / 20
    kept = np.zeros((rows + 2, columns + 2), bool)  # with a rim of one cell
    for mass, piece in pieces:
        for row, column in piece if mass >= least else []:
            kept[row : row + 3, column : column + 3] = True
    for mass, piece in pieces:
        for row, column in piece if mass < least else []:
            kept[row + 1, column + 1] = False
    region = kept[1:-1, 1:-1].repeat(side, 0).repeat(side, 1)[: mask.shape[0], : mask.shape[1]]
    return mask & region, region


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """An image (H, W) reduced to a longer side of at most `longest` pixels, each the average of the area it covers."""
    ratio = max(image.shape) / longest
    if ratio <= 1:
        return image
    shape = [max(1, int(size / ratio + 0.5)) for size in image.shape]
    return resample(image, [(0, size) for size in image.shape], shape)


def resample(image: np.ndarray, spans, shape) -> np.ndarray:
    """The part of an image between spans ((top, bottom), (left, right)) as pixels of the shape (h, w): area averages.

    Spans may begin and end within a pixel, and outside the image, where there is nothing: 0.
    """
    for (start, stop), count in zip(spans, shape):
        edges = (start + (stop - start) * np.arange(count + 1) / count).clip(0, len(image))
        pixel = np.minimum(edges.astype(int), len(image) - 1)
        above = np.cumsum(np.vstack([np.zeros_like(image[:1]), image]), 0)  # the sum of the rows above each
        sums = above[pixel] + (edges - pixel)[:, None] * image[pixel]
        image = (np.diff(sums, axis=0) / ((stop - start) / count)).T
    return image


# ---------------------------------------------------------------------------------------------- the figure

SIGNED = LinearSegmentedColormap.from_list("signed", [plots.BLUE, "#F7F7F7", plots.VERMILLION])
UNIT = {"c1": 6, "s2": 8, "c3": 6, "s4": 8, "c5": 19, "f6": 19}  # pixels: the side of a unit
LEFT, TOP, GAP = 470, 165, 62  # pixels: where the layers are drawn, and between them


@plots.style()
def figure(path: Path, name: str, grey: np.ndarray, image: np.ndarray, model: LeNet5, outputs: dict):
    """A picture (H, W), what the network saw of it (28, 28), and what each layer made of that (see layer_outputs)."""
    probabilities = outputs["output"].softmax(0)
    digit, runner_up = probabilities.topk(2).indices.tolist()
    subtitle = f"probability {probabilities[digit]:.1%}; runner-up {runner_up}, {probabilities[runner_up]:.1%}"
    name = (name if len(name) <= 60 else f"…{name[-59:]}").replace("$", r"\$")
    axes = plots.canvas(plots.new_figure(f"{name}: {digit}", subtitle, height=5.9))
    draw_picture(axes, grey, "the picture", 28, TOP)
    draw_picture(axes, 255 - np.pad(image, 2), "the input, 32×32", 28, TOP + 480)
    draw_legend(axes)
    y = TOP
    for layer, unit in UNIT.items():
        maps = outputs[layer].numpy()
        form = f"{len(maps)} maps of {maps.shape[1]}×{maps.shape[2]}" if maps.ndim == 3 else f"{len(maps)} units"
        parameters = sum(parameter.numel() for parameter in getattr(model, layer).parameters())
        axes.text(LEFT, y - 14, layer.upper(), weight="bold")
        axes.text(LEFT + 50, y - 14, f"{form}, {parameters:,} parameters", color=plots.GREY)
        y = draw_maps(axes, maps, y, unit) + GAP
    axes.text(LEFT, y - 14, "Output", weight="bold")
    axes.text(LEFT + 112, y - 14, "probability of each class, and its score", color=plots.GREY)
    draw_classes(axes, outputs["output"].numpy(), probabilities.numpy(), y + 24)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a file's name may hold what the font does not
        plots.save(axes.figure, path)


def draw_picture(axes, grey: np.ndarray, title: str, x: int, y: int, size: int = 380):
    """A picture (H, W), 0 black to 255 white, fitted into a square."""
    height, width = (size * side / max(grey.shape) for side in grey.shape[:2])
    axes.text(x, y - 14, title, color=plots.GREY)
    axes.imshow(grey, "gray", aspect="auto", vmin=0, vmax=255, extent=(x, x + width, y + height, y))
    frame(axes, x, y, width, height)


def frame(axes, x: float, y: float, width: float, height: float):
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="#CCCCCC", linewidth=0.5))


def draw_legend(axes):
    """What the colours of the units mean."""
    x, y, width, height = 1462, TOP - 95, 160, 14
    axes.imshow(np.linspace(0, 1, 256)[None], SIGNED, aspect="auto", extent=(x, x + width, y + height, y))
    axes.text(x - 30, y + height, "output of a unit", color=plots.GREY, size=8, ha="right")
    for place, text in (x, f"−{Squash.A:.1f}"), (x + width / 2, "0"), (x + width, f"+{Squash.A:.1f}"):
        axes.text(place, y + height + 22, text, color=plots.GREY, size=8, ha="center")


def draw_maps(axes, maps: np.ndarray, y: int, unit: int) -> int:
    """A layer's maps (C, H, W) in a row, or its units (C,) in two; returns where they end."""
    maps = maps if maps.ndim == 3 else maps.reshape(1, 2, -1)
    height, width = (unit * side for side in maps.shape[1:])
    limit = max(Squash.A, abs(maps).max())  # other activations than the paper's may lie beyond it
    for i, one in enumerate(maps):
        x = LEFT + i * (width + 14)
        axes.imshow(one, SIGNED, aspect="auto", vmin=-limit, vmax=limit, extent=(x, x + width, y + height, y))
        frame(axes, x, y, width, height)
    return y + height


def draw_classes(axes, scores: np.ndarray, probabilities: np.ndarray, y: int, height: int = 56):
    """The ten classes: a bar of each one's probability, the digit, and its score."""
    for digit, (score, probability) in enumerate(zip(scores, probabilities)):
        x, best = LEFT + 116 * digit, digit == scores.argmax()
        colour = plots.VERMILLION if best else plots.GREY
        axes.add_patch(Rectangle((x, y), 90, height, facecolor="#F0F0F0"))
        axes.add_patch(Rectangle((x, y + height), 90, -height * probability, facecolor=colour))
        axes.text(x + 45, y - 8, f"{probability:.1%}", size=8, color=colour, ha="center")
        axes.text(x + 45, y + height + 32, str(digit), size=11, weight="bold" if best else "normal", ha="center")
        axes.text(x + 45, y + height + 58, f"{score:.1f}", size=8, color=plots.GREY, ha="center")


if __name__ == "__main__":
    utils.run_script(main)
