"""Cut, then classify: the pieces of a line, and the digit network's answer for each (section I of the paper, "heuristic
over-segmentation").

A piece may be one digit, or several that touch. How wide it is says how likely each count is; cut into so many, its
parts go to the network for single digits. Where the sweep in reading/sweep.py needs no cuts, this reader knows digits
better: it has seen nothing else. reading/vote.py asks all.
"""

import math

import numpy as np
import torch
from torch import Tensor

from digits.pieces import LEANS, Pieces, cropped, leaning, placed
from model import LeNet5, normalize, pad

MOST = 4  # digits in a piece
Number = tuple[int, ...]
Ways = list[dict[int, tuple[float, Tensor]]]  # of each piece: digits in it -> how likely so many are, and which (n, 10)


def segment(pieces: Pieces, model: LeNet5) -> Ways:
    """The ways to take each piece (h, w): as one digit, or cut into several. Each part is seen at three leans."""
    found, parts = [], []
    for piece in pieces:
        counts = {n: cut for n in range(1, MOST + 1) if (cut := cut_piece(piece, n))}
        found.append((count_probabilities(piece.shape[1] / len(piece), list(counts)), counts))
        parts += [part for cut in counts.values() for part in cut]
    rows = iter(sum(classify(placed(lean), model) for lean in leaning(parts)) / len(LEANS))
    return [{n: (likely[n], torch.stack([next(rows) for _ in range(n)])) for n in counts} for likely, counts in found]


def with_image(ways: Ways, image: np.ndarray, model: LeNet5) -> Ways:
    """The ways of a single piece; as one digit, it is also seen in an image uint8 (28, 28) made another way."""
    likely, digits = ways[0][1]
    return [ways[0] | {1: (likely, (digits + classify(image[None], model)) / 2)}]


def cut_piece(piece: np.ndarray, count: int) -> Pieces:
    """A piece (h, w) cut into so many parts, near to equal widths, where its outline is lowest: two noughts that touch
    have a notch above and below. [] if it is too narrow or a part would be too low.
    """
    height, width = piece.shape
    unit = width / count
    if count == 1:
        return [piece]
    if not 0.28 < unit / height < 1.3:
        return []
    rows = np.arange(height)[:, None]
    extent = (np.where(piece > 0.5, rows + 1, 0).max(0) - np.where(piece > 0.5, rows, height).min(0)).clip(0) / height
    cuts = [0]
    for i in range(1, count):
        x = np.arange(int((i - 0.25) * unit), int((i + 0.25) * unit) + 1)
        cuts.append(int(x[np.argmin(extent[x] + 2 * (x / unit - i) ** 2)]))
    parts = [piece[:, start:stop] for start, stop in zip(cuts, [*cuts[1:], width])]
    if not all((part > 0.5).any() for part in parts):
        return []
    parts = [cropped(part) for part in parts]
    return parts if min(map(len, parts)) >= 0.3 * height else []


def count_probabilities(aspect: float, counts: list[int]) -> dict[int, float]:
    """How likely a piece that is `aspect` times as wide as high holds so many digits.

    One digit is rarely wider than high; of several each is about three quarters as wide as high.
    """
    several = 1 / (1 + math.exp(-(aspect - 1.15) / 0.12))
    several = min(max(several, 0.02), 0.98)
    weights = {n: math.exp(-0.5 * (math.log(aspect / n / 0.75) / 0.3) ** 2) for n in counts if n > 1}
    total = sum(weights.values())
    likely = {n: several * weight / total for n, weight in weights.items() if total}
    return {n: 1 - several if n == 1 else likely.get(n, 0.0) for n in counts}


def classify(images: np.ndarray, model: LeNet5) -> Tensor:
    """The probabilities of the ten digits for each image uint8 (N, 28, 28): (N, 10)."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        return model(normalize(pad(torch.from_numpy(images).to(device)))).softmax(1).cpu()


def likeliest(ways: Ways, most: int = 6) -> list[Number]:
    """The likeliest number of each way to cut, for the likeliest of these ways."""
    found = [((), 1.0)]
    for piece in ways:
        longer = []
        for number, share in found:
            for likely, digits in piece.values():
                values, best = digits.max(1)
                longer.append(((*number, *best.tolist()), share * likely * float(values.prod())))
        found = sorted(longer, key=lambda pair: -pair[1])[:most]
    return [number for number, _ in found]


def probability(ways: Ways, number: Number) -> float:
    """That of a number: the sum over all ways to give its digits to the pieces."""
    sums = {0: 1.0}  # how many digits are given -> the probability of these
    for piece in ways:
        grown = {}
        for given, share in sums.items():
            for n, (likely, digits) in piece.items():
                if given + n <= len(number):
                    own = math.prod(digits[range(n), number[given : given + n]].tolist())
                    grown[given + n] = grown.get(given + n, 0.0) + share * likely * own
        sums = grown
    return sums.get(len(number), 0.0)
