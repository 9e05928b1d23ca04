"""How many of the training lines should be evened, as lines of real handwriting are, and what the peak rate should be.

Each variant trains for six epochs without the validation digits, and then reads these: in photos, written, ruled and
dotted by other means than the training lines; in lines as they are in MNIST; narrow 7s and plain 1s, each alone. Photos
are read as ClassifyTask_predict.py reads them, by the network for numbers alone: that for digits knows these digits.
"""

import dataclasses
import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter

from digits.augmentation import warp
from digits.lines import MARGIN, sample_lines
from digits.mnist import Digits
from digits.preprocessing import read_grey
from experiments import handwriting, numbers, rendered, results
from experiments.runner import Context, Experiment
from model import LeNet5, normalize, pad
from reading.ctc import ctc
from reading.sweep import best_path, sweep
from training import checkpoint, loop
from training.recipes import RECIPES, Recipe, cosine

EPOCHS, OF_DIGITS = 6, 10  # of the lines, and of the digit network before
RATE = RECIPES["numbers"].learning_rates[0]
VARIANTS = {"none": (0.0, RATE), "a half": (0.5, RATE), "all": (1.0, RATE)}  # the share that is evened, the peak rate
VARIANTS |= {f"a half, rate {rate}": (0.5, rate) for rate in (0.001, 0.002, 0.008)}
LINES, PHOTOS = 2000, 400
NARROW = 0.6  # times its width: a 7 that is not to be taken for a 1


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    recipes = {}
    for name in context.variants:
        share, rate = VARIANTS[name]
        recipes[name] = dataclasses.replace(RECIPES["numbers"], learning_rates=cosine(EPOCHS, rate), evened=share)
    return context.tasks(recipes)


def measure(context: Context, task: dict) -> dict:
    """The shares of photos, lines, narrow 7s and 1s that are read correctly."""
    data, recipe = context.validation(), Recipe.from_json(task["recipe"])
    *_, first = loop.train(context.shorten(RECIPES["best"].override(epochs=OF_DIGITS)), data, task["seed"])
    *_, latest = loop.train(recipe, data, task["seed"], None, ctc, checkpoint.network(first))
    model = checkpoint.network(latest)
    images, labels = (tensor.numpy() for tensor in data.test)
    rng, photos = np.random.default_rng(6), []
    for _ in range(8 if context.tiny else PHOTOS):
        chosen = rng.integers(0, len(labels), rng.integers(1, 8))
        file = photo_of_line(images[chosen], labels[chosen], rng)
        photos.append(read(io.BytesIO(file), model) == "".join(map(str, labels[chosen])))
    lines = sample_lines(data.test, 100 if context.tiny else LINES, np.random.default_rng(5))
    return {
        "accuracy": sum(photos) / len(photos),
        "lines": 1 - numbers.errors(numbers.read_all(model, lines))["lines"],
        "narrow_7s": alone(model, data.test, 7, NARROW),
        "1s": alone(model, data.test, 1),
        "seconds": sum(row["seconds"] for row in latest.history),
    }


def alone(model: LeNet5, data: Digits, label: int, wide: float = 1.0) -> float:
    """The share of a class's digits, each alone in a line and `wide` times as wide, that are read correctly."""
    digits = pad(data[0][data[1] == label])
    lines = warp(digits, torch.tensor([[1 / wide, 0, 0], [0, 1, 0]]).expand(len(digits), 2, 3))
    with torch.inference_mode():
        found = best_path(sweep(model, normalize(F.pad(lines, (MARGIN, MARGIN)))))
    return sum(number == [label] for number in found) / max(len(found), 1)


def read(file, model: LeNet5) -> str:
    """The number in an image file; nothing where none can be read."""
    try:
        return handwriting.first_line(read_grey(file), None, model)[0]
    except ValueError:
        return ""


# ---------------------------------------------------------------------------------------------- photos of lines

TALL = 80  # pixels: the height of a large digit


def photo_of_line(digits: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> bytes:
    """Digits uint8 (D, 28, 28), written in a line as people do, in a JPEG: every length, pen and mark at random."""
    pen, wide, level, even = rng.uniform(3, 11), rng.uniform(0.8, 1.3), rng.uniform(-0.1, 0.1), rng.random() < 0.5
    gap = TALL * rng.choice((rng.uniform(-0.1, 0.1), rng.uniform(0.1, 0.5), rng.uniform(0.4, 1.2)))
    ink, x, y = Image.new("L", (200 + int((2 * TALL + abs(gap) * 1.5) * len(digits)), 4 * TALL)), TALL, 2.5 * TALL
    for digit, label in zip(digits, labels):
        size = TALL * rng.uniform(0.9 if even else 0.5, 1)
        drawn = written(digit, int(label), (int(wide * size * rng.uniform(0.85, 1.15)), int(size)), pen, rng)
        raised = rng.uniform(0, 0.15 if rng.random() < 0.8 else 0.9) * (TALL - size)
        place = int(x), int(y - drawn.height - raised)
        ink.paste(255, (*place, place[0] + drawn.width, place[1] + drawn.height), drawn)
        x, y = x + drawn.width + gap * rng.uniform(0.5, 1.5), y + level * drawn.width
    draw_marks(ImageDraw.Draw(ink), x - gap, y, rng)
    ink = ink.crop((0, 0, int(x + 2 * TALL), ink.height))
    return rendered.photo(np.asarray(ink) / 255, rng)


def written(digit: np.ndarray, label: int, side: tuple[int, int], pen: float, rng: np.random.Generator) -> Image.Image:
    """A digit (28, 28) enlarged until a square of 20 pixels fills `side`, with strokes of about `pen` pixels; some 1s
    with an upstroke, some 7s crossed."""
    rows, columns = (np.flatnonzero((digit > 96).any(axis)) for axis in (1, 0))
    part = Image.fromarray(digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = side[0] / 20, side[1] / len(rows)
    ink = part.resize([max(1, int(length * by)) for length, by in zip(part.size, scale)], Image.Resampling.BICUBIC)
    before = 40 if label == 1 and rng.random() < 0.5 else 0  # columns for an upstroke
    ink = np.pad(np.asarray(ink), ((8, 8), (8 + before, 8)))
    outline = sum(np.abs(np.diff(ink / 255, axis=axis)).sum() for axis in (0, 1))
    change = int((pen - 2.5 * ink.sum() / 255 / max(outline, 1)) / 2)
    changed = Image.fromarray(ink)
    for _ in range(min(abs(change), 3)):
        changed = changed.filter(ImageFilter.MaxFilter(3) if change > 0 else ImageFilter.MinFilter(3))
    drawing, height = ImageDraw.Draw(changed), len(ink)
    if before:
        top, x = 10, np.flatnonzero(ink[10:16].max(0) > 96).mean()
        end = x - rng.uniform(12, 36), top + rng.uniform(0.25, 0.5) * height
        drawing.line([(x, top), end], 255, max(2, round(pen)))
    if label == 7 and rng.random() < 0.4:
        y = int(rng.uniform(0.5, 0.6) * height)
        x, half = np.flatnonzero(ink[y] > 96).mean() if (ink[y] > 96).any() else ink.shape[1] / 2, rng.uniform(10, 22)
        drawing.line([(x - half, y + rng.uniform(0, 6)), (x + half, y)], 255, max(2, round(pen)))
    return changed.crop(changed.getbbox() or (0, 0, 1, 1))


def draw_marks(drawing: ImageDraw.ImageDraw, end: float, base: float, rng: np.random.Generator):
    """A rule below the digits, a point among them: each in some of the lines."""
    rule, point, grey = *rng.random(2), int(rng.uniform(120, 255))
    if rule < 0.25:
        y = base + rng.uniform(0, 12)
        drawing.line([(0.5 * TALL, y), (end + rng.uniform(0, TALL), y + rng.uniform(-4, 4))], grey, 3)
    if point < 0.15:
        x, y, radius = rng.uniform(TALL, end), base - 4, rng.uniform(3, 6)
        drawing.ellipse((x - radius, y - radius, x + radius, y + radius), 255)


# ---------------------------------------------------------------------------------------------- results


def summarize(context: Context, runs: list[dict]) -> dict:
    found = results.by_variant(runs)
    return {"variants": {name: found[name] for name in VARIANTS if name in found}}


def tables(content: dict) -> dict[str, str]:
    """Errors in %."""
    grouped, rows = results.group(content["runs"]), []
    for name, row in content["variants"].items():
        own = grouped[name]
        plain = [f"{100 - 100 * sum(run[key] for run in own) / len(own):.2f}" for key in ("lines", "narrow_7s", "1s")]
        rows.append([name, f"{100 - 100 * row['mean']:.2f}", *plain])
    wrong = [f"{what} wrong, %" for what in ("photos", "lines", "narrow 7s", "1s")]
    return {"results": results.markdown(["evened lines", *wrong], rows)}


EXPERIMENT = Experiment(
    tables=tables, summarize=summarize, tasks=tasks, measure=measure, seeds=(0,), variants=tuple(VARIANTS), seconds=300
)
