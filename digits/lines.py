"""Lines of digits, made of single ones: for training as people write and scanners see them, and for testing.

reading/ctc.py trains on them; experiments/numbers.py measures with them; docs/numbers.md shows some.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from digits import writing
from digits.augmentation import NUMBERS, PLACES, affine_maps, elastic_shifts, warp
from digits.mnist import Digits
from model import pad

MARGIN = 14  # pixels free before and behind the digits: even a narrow one stands in the middle of a place

Lines = tuple[Tensor, list[list[int]]]  # uint8 (N, 32, W), and the digits of each


def compose(digits: np.ndarray, counts: np.ndarray, gaps: np.ndarray, margin: int = MARGIN) -> np.ndarray:
    """Digits pasted into lines, each `gaps` pixels behind the one before: uint8 (D, 32, 32) -> uint8 (N, 32, W).

    Line n has the next counts[n] digits. Gaps (D,) are counted between the columns with any ink, and below 0 overlap;
    a line's first digit starts at `margin`. All lines are as wide as the widest needs, W >= 34.
    """
    ink = digits.any(1)  # (D, 32): the columns with ink
    left, right = ink.argmax(1), 32 - ink[:, ::-1].argmax(1)
    lines, ends = [], []
    first = 0
    for count in counts:
        x, starts = margin, []
        for i in range(first, first + count):
            x += gaps[i] if i > first else 0
            starts.append(x - left[i])
            x += right[i] - left[i]
        lines.append((first, starts))
        ends.append(x)
        first += count
    width = max(34, max(ends) + margin)
    drawn = np.zeros((len(counts), 32, 32 + width + 32), np.uint8)  # a digit's field may leave the line
    for line, (first, starts) in zip(drawn, lines):
        for digit, start in zip(digits[first:], starts):
            part = line[:, 32 + start : 64 + start]
            np.maximum(part, digit, out=part)
    return drawn[:, :, 32:-32]


def training_lines(
    images: Tensor,
    labels: np.ndarray,
    counts: np.ndarray,
    strength: float,
    elastic: float,
    generator: np.random.Generator,
    evened: float = 0.0,
) -> np.ndarray:
    """Lines as people write and scanners see them: uint8 (N, 32, W).

    Of digits uint8 (D, 32, 32) with labels (D,), line n has the next counts[n]. Every digit is distorted as in
    digits/augmentation.py, with this strength and these elastic distortions (pixels); size and slant vary from line to
    line and from digit to digit, places up and down by two pixels. Most gaps are -1 to 8 pixels, a third -3 to 1, some
    wide. A third of the lines have noise. The first lines, a share `evened`, are as digits/pieces.py makes those of
    photos: digits of one height, by other pens and in other ways (digits/writing.py).
    """
    line = np.repeat(np.arange(len(counts)), counts)  # the line of each digit
    of_digits = generator.uniform(-1, 1, (len(line), NUMBERS)).astype(np.float32)
    of_lines = generator.uniform(-1, 1, (len(counts), NUMBERS)).astype(np.float32)
    amounts = strength * of_digits  # translation right and down, scaling, squeezing, shearing
    amounts[:, 0], amounts[:, 1] = 0, 0.8 * of_digits[:, 1]  # 0.8 of the range: two pixels
    amounts[:, 2] += 0.7 * of_lines[line, 2]
    amounts[:, 4] += 0.5 * of_lines[line, 4]
    field = generator.uniform(-1, 1, (len(line), 2 * PLACES**2)).astype(np.float32)
    shifts = elastic_shifts(torch.from_numpy(elastic * 3**0.5 * field))
    kinds = generator.choice(3, len(line), p=(0.6, 0.35, 0.05))
    gaps = generator.integers((-1, -3, 8), (9, 2, 24), (len(line), 3))[np.arange(len(line)), kinds]
    digits = images.cpu().numpy()
    some = slice(int((line < evened * len(counts)).sum()))  # the digits of the first lines
    if some.stop:
        digits, own = digits.copy(), (digits[some], labels[some], line[some], amounts[some, 4])
        digits[some], amounts[some], joined = writing.evened(*own, generator)
    digits = warp(torch.from_numpy(digits), affine_maps(torch.from_numpy(amounts)), shifts).numpy()
    if some.stop:
        gaps[some] = writing.gaps(digits[some], joined, generator)
    lines = compose(digits, counts, gaps, MARGIN + int(generator.integers(0, 9)))
    noisy = generator.random(len(lines)) < 1 / 3
    lines[noisy] = add_noise(lines[noisy], generator)
    return lines


def add_noise(lines: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Lines, uint8 (N, 32, W), with ink of any strength, grain, and up to seven specks of dust each."""
    count, height, width = lines.shape
    grey = lines * generator.uniform(0.6, 1, (count, 1, 1)).astype(np.float32)
    grain = generator.uniform(0, 40, (count, 1, 1)) * (generator.random((count, 1, 1)) < 0.5)
    grey += grain.astype(np.float32) * generator.standard_normal(grey.shape, np.float32)
    for line in grey:
        for _ in range(generator.integers(0, 8)):
            top, left = generator.integers(0, (height, width))
            tall, wide = generator.integers(1, 3, 2)
            speck = line[top : top + tall, left : left + wide]
            np.maximum(speck, generator.uniform(60, 255), out=speck)
    return np.rint(grey.clip(0, 255)).astype(np.uint8)


def sample_lines(
    test_set: Digits,
    count: int,
    generator: np.random.Generator,
    longest: int = 6,
    gaps: tuple[int, int] = (-1, 8),
    change: Callable[[Tensor], Tensor] = lambda digits: digits,
) -> list[Lines]:
    """Lines of 1 to `longest` digits, up and down by two pixels, with gaps in this range; 50 a batch.

    `change` may change the digits first, uint8 (D, 32, 32); without it they are as they are.
    """
    images, labels = pad(test_set[0]).cpu(), test_set[1].cpu()
    batches = []
    for counts in np.split(generator.integers(1, longest + 1, count), range(50, count, 50)):
        chosen = generator.integers(0, len(labels), counts.sum())
        down = generator.integers(-2, 3, len(chosen))
        digits = [np.roll(image, shift, 0) for image, shift in zip(change(images[chosen]).numpy(), down)]
        lines = compose(np.stack(digits), counts, generator.integers(gaps[0], gaps[1] + 1, len(chosen)))
        batches.append((torch.from_numpy(lines), split(labels[chosen].tolist(), counts)))
    return batches


def split(digits: list[int], counts: np.ndarray) -> list[list[int]]:
    """The digits of all lines as one list of digits a line."""
    return [digits[end - count : end] for end, count in zip(counts.cumsum(), counts)]
