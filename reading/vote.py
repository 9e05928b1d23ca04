"""A line read in three ways, by sweeping it evened and as it is written, and by cutting it into pieces; and the number
that all find likely.

The sweep needs no cuts; the digit network knows digits better. They err differently. Each sees the line three times,
leaning a little to the left and to the right, and takes the mean. Each names numbers, and says how probable all those
named are. Their weighted geometric mean, made to sum to 1, decides: it is near 1 only for a number that none rules out.
The evened line weighs most: the sweep has been trained on lines of this kind, with ways of writing that MNIST does not
have.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

from digits.pieces import SMALL, Line, as_written, evened, leaning
from model import LeNet5
from reading import segmentation, sweep
from reading.segmentation import Number

SURE = 0.9  # a probability from which on a reading is called sure: see docs/numbers.md
WEIGHTS = 0.6, 0.2, 0.2  # evened, as written, cut: chosen on people's own images, docs/numbers.md
LEAST = 3e-4  # added to each probability, so that no reader alone can rule a number out


class Vote(NamedTuple):
    number: str
    probability: float
    digits: list[float]  # the probability of each digit, the others given; of a single digit none
    runner_up: str
    line: np.ndarray  # evened, uint8 (32, W)
    logits: Tensor  # of it, (T, 11)


def vote(line: Line, numbers: LeNet5, digits: LeNet5 | None, image: np.ndarray | None = None) -> Vote:
    """What a line says. Without a network for digits the sweeps alone decide. Several pieces are never one digit; of a
    single one the digit network is also shown an image uint8 (28, 28), if there is one.

    Raises ValueError if nothing can be read.
    """
    pieces, leans = line.pieces, leaning(line.pieces)
    even = [evened(lean) for lean in leans]
    logits = [sweep.logits_of(numbers, own) for own in even]
    written = [sweep.logits_of(numbers, as_written(lean, line.middles)) for lean in leans]
    named = [number for own in logits + written for number, _ in sweep.beam_search(own)]
    readers = [functools.partial(mean_probability, own) for own in (logits, written)]
    if digits:
        ways = segmentation.segment(pieces, digits)
        if len(pieces) == 1 and image is not None:
            ways = segmentation.with_image(ways, image, digits)
        named += segmentation.likeliest(ways)
        readers.append(lambda number: segmentation.probability(ways, number))
    named = [number for number in dict.fromkeys(named) if len(number) >= min(len(pieces), 2)]
    if not named:
        raise ValueError(SMALL)
    weights = [weight / sum(WEIGHTS[: len(readers)]) for weight in WEIGHTS]
    scores = [math.prod((r(number) + LEAST) ** w for r, w in zip(readers, weights)) for number in named]
    shares = {number: score / sum(scores) for number, score in zip(named, scores)}
    best, *others = sorted(shares, key=shares.get, reverse=True)
    each = digit_shares(best, shares) if len(best) > 1 else []
    runner_up = sweep.as_text(others[0]) if others else ""
    return Vote(sweep.as_text(best), shares[best], each, runner_up, even[1], logits[1])


def mean_probability(logits: list[Tensor], number: Number) -> float:
    """Of a number, over sweeps (T, 11) of the same line."""
    return sum(sweep.probability(own, number) for own in logits) / len(logits)


def digit_shares(best: Number, shares: dict[Number, float]) -> list[float]:
    """Of each digit of a number its share in the probability of all numbers named that are as long."""
    alike = {number: share for number, share in shares.items() if len(number) == len(best)}
    total = sum(alike.values())
    return [sum(share for number, share in alike.items() if number[i] == digit) / total for i, digit in enumerate(best)]
