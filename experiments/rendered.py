"""Are images from outside classified and read? Test digits rendered as large images, prepared as for prediction.

python -m experiments rendered [digits] [numbers] [predict]      all, or what is named

As ClassifyTask_predict.py reads them. digits: single digits, with --digit. numbers: lines of digits, with --number.
predict: the same single digits with no flag, when it is found out that each is a single one.
The preparation was made with digits of the training set alone; the test digits measure it. A network of the user's own
is taken before that of the reference.
"""

import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import ClassifyTask_predict
import utils
from digits.lines import MARGIN, sample_lines
from digits.preprocessing import prepare, read_grey
from experiments import results
from experiments.runner import Context, Experiment
from figures import plots
from model import LeNet5, pad
from reading import sweep
from training import checkpoint, provenance
from training.recipes import RECIPES
from utils import UserError, shown

COUNT, SEED = 1000, 0
LEAST = 0.98  # of the accuracy on the digits as they are in MNIST
RECIPES_OF = {"digits": ("best",), "numbers": ("numbers",), "predict": ("best", "numbers")}


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    return [{"what": what, "weights": weights(context, what)} for what in context.variants]


def weights(context: Context, what: str) -> str:
    return " ".join(checkpoint.digest(checkpoint.load(file).tested, {}) for file in network_files(context, what))


def network_files(context: Context, what: str) -> list[Path]:
    return [context.network_file(RECIPES[name]) for name in RECIPES_OF[what]]


def measure(context: Context, task: dict) -> dict:
    """How many images are right, beside those right as they are in MNIST."""
    what, count = task["what"], 16 if context.tiny else COUNT
    networks = [checkpoint.load_network(file) for file in network_files(context, what)]
    measures = {"digits": measure_digits, "numbers": measure_numbers, "predict": measure_predict}
    found = measures[what](*networks, context.load().test, count)
    kept = found["accuracy"] / max(found["plain_accuracy"], 1 / count)
    if what == "digits" and kept < LEAST and not context.tiny:
        raise UserError(f"only {kept:.1%} of the plain accuracy is kept, less than {LEAST:.0%}: the preparation failed")
    return {"images": count, **found, "kept": kept, "versions": provenance.versions()}


def measure_digits(model: LeNet5, test_set: tuple, count: int) -> dict:
    images, labels = (tensor[:count] for tensor in test_set)
    seen = np.stack([prepared(file) for file in image_files(images.numpy())])
    right = [(utils.class_logits(model, pad(i)).argmax(1) == labels) for i in (torch.from_numpy(seen), images)]
    accuracy, plain_accuracy = (int(own.sum()) / len(labels) for own in right)
    without_ink = int((seen.max((1, 2)) == 0).sum())
    return {"without_ink": without_ink, "accuracy": accuracy, "plain_accuracy": plain_accuracy}


def measure_numbers(model: LeNet5, test_set: tuple, count: int) -> dict:
    right = plain_right = index = 0
    for lines, numbers in sample_lines(test_set, count, np.random.default_rng(SEED)):
        for line, number in zip(lines.numpy(), numbers):
            line = line[:, : np.flatnonzero(line.any(0))[-1] + 1 + MARGIN]  # without what the widest line needs
            index, text = index + 1, "".join(map(str, number))
            plain_right += sweep.read(model, line).number == text
            file = image_file(line, np.random.default_rng([SEED, index]))
            with contextlib.suppress(ValueError):
                right += number_in(file, None, model) == text
    return {"accuracy": right / count, "plain_accuracy": plain_right / count}


def measure_predict(digits: LeNet5, numbers: LeNet5, test_set: tuple, count: int) -> dict:
    images, labels = (tensor[:count] for tensor in test_set)
    said = []  # of each image the number, nothing where none can be read
    for file in image_files(images.numpy()):
        try:
            said.append(number_in(file, digits, numbers))
        except ValueError:
            said.append("")
    right = sum(number == str(label) for number, label in zip(said, labels.tolist()))
    return {
        "unread": said.count(""),
        "several_digits": sum(len(number) > 1 for number in said),
        "accuracy": right / count,
        "plain_accuracy": utils.accuracy(digits, images, labels),
    }


def number_in(file: bytes, digits: LeNet5 | None, numbers: LeNet5) -> str:
    """What the predict script reads in an image file; of several lines all."""
    return " ".join(answer.number for answer in ClassifyTask_predict.read(read_grey(io.BytesIO(file)), digits, numbers))


def image_files(images: np.ndarray) -> list[bytes]:
    return [image_file(image, np.random.default_rng([SEED, i])) for i, image in enumerate(images)]


def image_file(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """A digit (28, 28) or a line (32, W) as a large JPEG: any size, place and colour, dark on light or the reverse,
    shaded and noisy."""
    height, width = rng.integers(200, 800, 2)
    if image.shape[0] == image.shape[1]:
        tall = wide = int(min(height, width) * rng.uniform(0.4, 1))
    else:  # a line is as wide as its digits need, which are 25 to 250 pixels high
        unit = rng.uniform(1.25, 12.5)
        tall, wide = int(unit * image.shape[0]), int(unit * image.shape[1])
        height, width = max(height, tall), max(width, wide)
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    ink = np.zeros((height, width))
    large = Image.fromarray(image).resize((wide, tall), Image.Resampling.BICUBIC)
    ink[top : top + tall, left : left + wide] = np.asarray(large) / 255
    return photo(ink, rng)


def photo(ink: np.ndarray, rng: np.random.Generator) -> bytes:
    """Ink (H, W), 0 to 1, in a JPEG of any colour, dark on light or the reverse, shaded and noisy."""
    height, width = ink.shape
    dark, light = rng.uniform(0, 100, 3), rng.uniform(150, 255, 3)
    paper, pen = (light, dark) if rng.random() < 0.5 else (dark, light)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    slope, angle = rng.uniform(0, 0.2), rng.uniform(0, 2 * np.pi)
    lighting = 1 + slope * (np.cos(angle) * x + np.sin(angle) * y)
    noise = rng.normal(0, rng.uniform(0, 15), (height, width, 3))
    colours = (paper + ink[..., None] * (pen - paper)) * lighting[..., None] + noise
    file = io.BytesIO()
    Image.fromarray(np.uint8(colours.clip(0, 255))).save(file, "JPEG", quality=int(rng.integers(40, 95)))
    return file.getvalue()


def prepared(file: bytes) -> np.ndarray:
    """What the network is given of an image file, uint8 (28, 28); nothing if no ink is found."""
    try:
        return prepare(read_grey(io.BytesIO(file)))
    except ValueError:
        return np.zeros((28, 28), np.uint8)


def summarize(context: Context, runs: list[dict]) -> dict:
    """The latest run of each kind."""
    return {what: own[-1] for what, own in results.group(runs, "what").items()}


def tables(content: dict) -> dict[str, str]:
    names = {"digits": "digits, `--digit`", "predict": "digits, no flag", "numbers": "numbers, `--number`"}
    rows = []
    for what, name in names.items():
        if found := content.get(what):
            shares = (f"{100 * found[key]:.1f}" for key in ("accuracy", "plain_accuracy", "kept"))
            rows.append([name, f"{found['images']:,}", *shares])
    header = ["rendered as large images, and read with", "images", "right, %", "right as in MNIST, %", "kept, %"]
    return {"results": results.markdown(header, rows)}


def notice(context: Context) -> str:
    files = dict.fromkeys(shown(file) for what in context.variants for file in network_files(context, what))
    return f"networks: {', '.join(files)}"


SHOWN, SIZE = 8, 184  # images in the figure, and the pixels of their side


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """The first digits, and below each what the network sees of it, with the class predicted."""
    if not (found := content.get("digits")):
        return
    title = "Images of digits, and what the network sees of them"
    count, share, plain = found["images"], found["accuracy"], found["plain_accuracy"]
    subtitle = f"the first {SHOWN} of {count:,}: {100 * share:.1f} % right as images, {100 * plain:.1f} % as in MNIST"
    images, labels = (tensor[:SHOWN] for tensor in context.load().test)
    files = image_files(images.numpy())
    seen = np.stack([prepared(file) for file in files])
    model = checkpoint.load_network(context.network_file(RECIPES["best"]))
    predicted = utils.class_logits(model, pad(torch.from_numpy(seen))).argmax(1)
    axes = plots.canvas(plots.new_figure(title, subtitle, height=3.2))
    for i, (label, guess) in enumerate(zip(labels.tolist(), predicted.tolist())):
        x, y = 28 + 202 * i, 166
        image = np.asarray(Image.open(io.BytesIO(files[i])))
        height, width = (SIZE * side / max(image.shape) for side in image.shape[:2])
        plots.draw_fitted(axes, image, "", x + (SIZE - width) / 2, y + SIZE - height, SIZE)
        plots.draw_fitted(axes, 255 - seen[i], "", x, y + SIZE + 12, SIZE)
        text = str(guess) if guess == label else f"{label} → {guess}"
        look = {"color": plots.GREY} if guess == label else {"color": plots.RED, "weight": "bold"}
        axes.text(x + SIZE / 2, y + 2 * SIZE + 60, text, size=15, ha="center", **look)
    plots.save(axes.figure, path)


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    draw=draw,
    notice=notice,
    variants=tuple(RECIPES_OF),
    seconds=60,
)
