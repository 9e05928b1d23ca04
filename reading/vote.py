"""An image read in several ways, which vote: the number that they think likeliest on average.

The sweep reads a line of pieces of one height, and needs no cuts. The digit network reads each piece by itself, and
knows digits better; but where they touch it has nothing to read. What is one piece it reads in the whole image, too.
The ways err differently. Each names numbers, each says how probable all those named are, and the mean decides: near 1
only where all agree.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from digits.pieces import evened, placed, widened
from digits.preprocessing import prepare
from model import LeNet5, normalize, pad
from reading import sweep

WIDE, ALONE = 1.4, 1.6  # times as wide as high: a piece that is no single digit, beside others; and alone in the image

Number = tuple[int, ...]


class Vote(NamedTuple):
    number: str
    probability: float
    digits: list[float]  # the probability of each digit, the others given
    runner_up: str
    line: np.ndarray  # what was swept, uint8 (32, W)
    logits: Tensor  # (T, 11)


def vote(grey: np.ndarray, pieces: list[np.ndarray], numbers: LeNet5, digits: LeNet5 | None) -> Vote:
    """What an image (H, W) with these pieces says. Without a network for digits the sweep alone decides.

    Raises ValueError if nothing can be read.
    """
    line = evened(pieces)
    logits = sweep.logits_of(numbers, line)
    named = [number for number, _ in sweep.beam_search(logits) if number]
    ways = [] if digits is None else by_digits(grey, pieces, digits)  # (N, 10) each
    named += [likeliest for way in ways if (likeliest := tuple(way.argmax(1).tolist())) not in named]
    if not named:
        raise ValueError("shows no digit that can be read; write larger, or with a thicker pen")
    votes = [[sweep.probability(logits, number) for number in named]]
    votes += [[product(way, number) for number in named] for way in ways]
    means = np.mean(votes, 0)
    order = (-means).argsort()
    best = named[order[0]]
    others = [sweep.as_text(named[i]) for i in order[1:]]
    shares = digit_shares(best, named, means) if len(best) > 1 else []
    return Vote(sweep.as_text(best), float(means.max()), shares, others[0] if others else "", line, logits)


def by_digits(grey: np.ndarray, pieces: list[np.ndarray], model: LeNet5) -> list[Tensor]:
    """The digit network's probabilities: of each piece, and of the whole image, if it is one piece: (N, 10) each.

    None where a piece is too wide for a digit.
    """
    wide = WIDE if len(pieces) > 1 else ALONE
    if any(piece.shape[1] > wide * piece.shape[0] for piece in pieces):
        return []
    if len(pieces) > 1:
        return [probabilities(model, placed(pieces))]
    return list(probabilities(model, single(grey, pieces))[:, None])


def single(grey: np.ndarray, pieces: list[np.ndarray]) -> np.ndarray:
    """One digit in MNIST's form: as `prepare` finds it in the image (H, W), and its piece: uint8 (2, 28, 28)."""
    try:
        return np.stack([widened(prepare(grey)), *placed(pieces)])
    except ValueError:  # prepare finds no ground where ink fills the image
        return placed(pieces)


def probabilities(model: LeNet5, images: np.ndarray) -> Tensor:
    """Of the ten digits, for images uint8 (N, 28, 28): (N, 10)."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        return model(normalize(pad(torch.from_numpy(images).to(device)))).softmax(1).cpu()


def product(way: Tensor, number: Number) -> float:
    """The probability of a number by the probabilities of its digits (N, 10)."""
    return math.prod(way[range(len(way)), number].tolist()) if len(number) == len(way) else 0.0


def digit_shares(best: Number, named: list[Number], means: np.ndarray) -> list[float]:
    """Of each digit of a number its share in the probability of all numbers named that are as long."""
    alike = [(number, mean) for number, mean in zip(named, means) if len(number) == len(best)]
    total = sum(mean for _, mean in alike)
    return [float(sum(mean for number, mean in alike if number[i] == digit) / total) for i, digit in enumerate(best)]
