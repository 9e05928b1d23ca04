"""LeNet-5 swept over a line of digits: whole numbers, read without cutting them apart (section VII).

The network is replicated over a line of any width, a place every two pixels; shared weights make that a convolution.
Each place says which digit stands in its middle, or none: an eleventh class. The paper calls this a space displacement
neural network, and finds the best path through its outputs with the Viterbi algorithm. reading/ctc.py trains it, as
`python ClassifyTask_train.py --recipe numbers`; here are the sweep itself and the decoding of what it gives.

ClassifyTask_predict.py reads images with it; experiments/numbers.py measures it; docs/numbers.md explains it.
"""

import itertools
import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import LeNet5, normalize

NONE = 10  # the class of a place with no digit in its middle
STEP = 2  # pixels from a place to the next
WINDOW = 32  # pixels that a place sees


def sweep(model: LeNet5, lines: Tensor) -> Tensor:
    """The logits at every place of lines: (N, 1, 32, W), W >= 32 -> (N, T, classes), T = (W - 32) // 2 + 1.

    Place t sees the columns 2t to 2t + 31, and has the logits that the network gives this piece alone. C1 to C3 are
    shared by all places. S4 halves its maps, so it is computed at every column instead of every second one, and C5
    reads every second of them.
    """
    if lines.shape[2] != WINDOW or lines.shape[3] < WINDOW:
        height, width = lines.shape[2:]
        raise ValueError(f"lines are {height}x{width}, but must be 32 high and at least 32 wide")
    layers, maps = model.layers(), lines
    for name in ("c1", "s2", "c3"):
        for module in layers[name]:
            maps = module(maps)  # c3: (N, 16, 10, W // 2 - 6)
    maps = model.s4(maps, stride=(2, 1))  # (N, 16, 5, W // 2 - 7)
    c5 = even_and_odd_columns if maps.is_cuda else every_second_column
    maps = model.squash(c5(maps, model.c5))  # (N, 120, 1, T)
    for name in ("f6", "output"):
        for module in layers[name]:
            maps = module(maps)
    return maps


def every_second_column(maps: Tensor, c5: nn.Conv2d) -> Tensor:
    """C5 at every place, a dilated convolution: maps (N, 16, 5, W), W >= 9 -> (N, 120, 1, W - 8)."""
    return F.conv2d(maps, c5.weight, c5.bias, dilation=(1, 2))


def even_and_odd_columns(maps: Tensor, c5: nn.Conv2d) -> Tensor:
    """The same by an ordinary convolution: even and odd columns side by side in the batch, their results interleaved.

    For CUDA: cuDNN's dilated convolutions do not repeat bit for bit, and PyTorch's own start a kernel for each line.
    """
    width = maps.shape[3]
    maps = F.pad(maps, (0, width % 2)).unflatten(3, (-1, 2))  # (N, 16, 5, W / 2, even or odd)
    even, odd = c5(torch.cat(maps.unbind(4))).chunk(2)  # (N, 120, 1, W / 2 - 4) each
    return torch.stack([even, odd], 4).flatten(3)[..., : width - 8]


class Reading(NamedTuple):
    number: str  # leading zeros are kept
    probability: float
    digits: list[float]  # the probability of each digit
    runner_up: str  # the second-best reading
    logits: Tensor  # (T, 11)


def best_path(logits: Tensor) -> list[list[int]]:
    """The likeliest class at each place, repetitions and "none" left out: logits (N, T, 11) -> N lists of digits."""
    likeliest = logits.argmax(2).cpu()  # (N, T)
    new = F.pad(likeliest, (1, 0), value=NONE)[:, :-1] != likeliest
    return [row[keep].tolist() for row, keep in zip(likeliest, new & (likeliest != NONE))]


def best_places(logits: Tensor) -> list[tuple[float, int]]:
    """The middle of the places of each digit on the best path of one line, and the digit: logits (T, 11)."""
    places, likeliest = [], logits.argmax(1).tolist()
    for digit, group in itertools.groupby(range(len(likeliest)), likeliest.__getitem__):
        own = list(group)
        if digit != NONE:
            places.append(((own[0] + own[-1]) / 2, digit))
    return places


def beam_search(logits: Tensor, width: int = 8) -> list[tuple[tuple[int, ...], float]]:
    """The likeliest numbers of one line, each with its log-probability: logits (T, 11) -> at most `width`, best first.

    Prefix beam search (Graves et al., section 3.2, pruned to a fixed width): of each prefix of a number it keeps the
    probability of all paths that end in "none", and of those that end in the prefix's last digit.
    """
    beams = {(): (0.0, -math.inf)}
    for row in logits.log_softmax(1).tolist():
        grown: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-math.inf, -math.inf])
        for prefix, (none, digit) in beams.items():
            both, last = log_sum(none, digit), prefix[-1:]
            steps = [(prefix, 0, both + row[NONE])]  # a prefix, how its path ends, and the path's log-probability
            if prefix:
                steps.append((prefix, 1, digit + row[prefix[-1]]))
            for new in range(10):
                steps.append(((*prefix, new), 1, (none if last == (new,) else both) + row[new]))
            for longer, ending, amount in steps:
                grown[longer][ending] = log_sum(grown[longer][ending], amount)
        beams = dict(sorted(grown.items(), key=lambda item: -log_sum(*item[1]))[:width])
    return [(prefix, log_sum(*pair)) for prefix, pair in beams.items()]


def read(model: LeNet5, line: np.ndarray) -> Reading:
    """The number in a line uint8 (32, W), by beam search; of a line without digits the number is empty."""
    logits = logits_of(model, line)
    (best, _), *others = beam_search(logits)
    digits = digit_probabilities(logits, best) if best else []
    return Reading(as_text(best), probability(logits, best), digits, as_text(others[0][0]), logits)


def logits_of(model: LeNet5, line: np.ndarray) -> Tensor:
    """The logits at every place of a line uint8 (32, W): (T, 11), on the CPU."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        return sweep(model, normalize(torch.from_numpy(line)[None].to(device)))[0].cpu()


def probability(logits: Tensor, number: tuple[int, ...]) -> float:
    """That of all paths that write a number, in one line: logits (T, 11). 0 if the line is too narrow for it."""
    equal = sum(one == other for one, other in itertools.pairwise(number))  # each needs "none" between them
    if len(number) + equal > len(logits):
        return 0.0
    (loss,) = ctc_losses(logits[None], torch.tensor(number, dtype=torch.int64), torch.tensor([len(number)])).tolist()
    return math.exp(-loss)


def digit_probabilities(logits: Tensor, number: tuple[int, ...]) -> list[float]:
    """The probability of each digit of a number, the others given: logits (T, 11) of one line.

    Each digit in turn is replaced by all ten; CTC gives the probability of each such number.
    """
    numbers = torch.tensor(number).repeat(len(number), 10, 1)  # (digit replaced, by which, digits)
    for i in range(len(number)):
        numbers[i, :, i] = torch.arange(10)
    numbers = numbers.flatten(0, 1)
    counts = torch.full((len(numbers),), len(number))
    log_p = logits.log_softmax(1).unsqueeze(1).expand(-1, len(numbers), -1)
    losses = F.ctc_loss(log_p, numbers, torch.full_like(counts, len(logits)), counts, blank=NONE, reduction="none")
    shares = (-losses).view(len(number), 10).softmax(1)
    return [shares[i, digit].item() for i, digit in enumerate(number)]


def as_text(number: tuple[int, ...]) -> str:
    return "".join(map(str, number))


def log_sum(a: float, b: float) -> float:
    """log(exp(a) + exp(b)), of log-probabilities."""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def ctc_losses(logits: Tensor, digits: Tensor, counts: Tensor) -> Tensor:
    """Minus the log-probability of each line's digits: logits (N, T, 11), digits (D,), their counts (N,) -> (N,).

    0 for a line too narrow for its digits. On the CPU, where its gradient repeats bit for bit; on CUDA it does not.
    """
    log_p = logits.log_softmax(2).transpose(0, 1).cpu()  # (T, N, 11)
    widths = torch.full_like(counts, len(log_p))
    return F.ctc_loss(log_p, digits, widths, counts, blank=NONE, reduction="none", zero_infinity=True)
