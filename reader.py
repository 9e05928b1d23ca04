"""LeNet-5 swept over a line of digits: whole numbers, read without cutting them apart (section VII).

python reader.py            train it: Record/numbers/LeNet5.safetensors, in about 15 minutes on one core
python reader.py --resume   go on where it stopped

The network is replicated over a line of any width, a place every two pixels; shared weights make that a convolution.
Each place says which digit stands in its middle, or none: an eleventh class. The paper calls this a space displacement
neural network, and finds the best path through its scores with the Viterbi algorithm. Here the loss is CTC (A. Graves
et al., "Connectionist Temporal Classification", ICML 2006): minus the log-probability of the right digits, summed over
all the places where they may stand.

ClassifyTask_predict.py reads pictures with it; experiments/numbers.py measures it; docs/numbers.md explains it.
"""

import functools
import itertools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import checkpoint
import mnist
import utils
from checkpoint import Checkpoint
from lines import Lines, sample_lines, split, training_lines
from model import LeNet5, scale
from recipes import RECIPES, Recipe, cosine, record_dir
from training import SHUFFLE, Set, State, random, shuffled
from utils import UserError

NONE = 10  # the class of a place with no digit in its middle
STEP = 2  # pixels from a place to the next
WINDOW = 32  # pixels that a place sees

START = RECIPES["best"]  # whose weights the training starts from
RECIPE = Recipe(
    "numbers",
    optimizer="adam",
    learning_rates=cosine(32, 0.001),
    batch_size=128,  # digits, in lines that all have the same length
    loss="ctc",
    average=True,
    distort=True,
    strength=0.7,
    elastic=0.5,
    network={"activation": "relu", "classes": 11},  # ReLU was chosen on held-out digits: experiments/numbers.py
)

# ---------------------------------------------------------------------------------------------- the sweep


def sweep(model: LeNet5, lines: Tensor) -> Tensor:
    """The scores at every place of lines: (N, 1, 32, W), W >= 32 -> (N, T, classes), T = (W - 32) // 2 + 1.

    Place t sees the columns 2t to 2t + 31, and has the scores that the network gives this piece alone. C1 to C3 are
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
    maps = model.squash(F.conv2d(maps, model.c5.weight, model.c5.bias, dilation=(1, 2)))  # (N, 120, 1, T)
    for name in ("f6", "output"):
        for module in layers[name]:
            maps = module(maps)
    return maps


class Reading(NamedTuple):
    number: str  # leading zeros are kept
    probability: float
    digits: list[float]  # the probability of each digit
    runner_up: str  # the second-best reading
    scores: Tensor  # (T, 11)


def best_path(scores: Tensor) -> list[list[int]]:
    """The likeliest class at each place, repetitions and "none" left out: scores (N, T, 11) -> N lists of digits."""
    likeliest = scores.argmax(2)  # (N, T)
    new = F.pad(likeliest, (1, 0), value=NONE)[:, :-1] != likeliest
    return [row[keep].tolist() for row, keep in zip(likeliest, new & (likeliest != NONE))]


def best_places(scores: Tensor) -> list[tuple[float, int]]:
    """The middle of the places of each digit on the best path of one line, and the digit: scores (T, 11)."""
    places, likeliest = [], scores.argmax(1).tolist()
    for digit, group in itertools.groupby(range(len(likeliest)), likeliest.__getitem__):
        own = list(group)
        if digit != NONE:
            places.append(((own[0] + own[-1]) / 2, digit))
    return places


def beam_search(scores: Tensor, width: int = 8) -> list[tuple[tuple[int, ...], float]]:
    """The likeliest numbers of one line, each with its log-probability: scores (T, 11) -> at most `width`, best first.

    Prefix beam search (Graves et al., section 3.2, pruned to a fixed width): of each prefix of a number it keeps the
    probability of all paths that end in "none", and of those that end in the prefix's last digit.
    """
    beams = {(): (0.0, -math.inf)}
    for row in scores.log_softmax(1).tolist():
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
    device = next(model.parameters()).device
    with torch.inference_mode():
        scores = sweep(model, scale(torch.from_numpy(line)[None].to(device)))[0].cpu()  # (T, 11)
        (best, _), *others = beam_search(scores)
        (loss,) = ctc_losses(scores[None], torch.tensor(best, dtype=torch.int64), torch.tensor([len(best)])).tolist()
        digits = digit_probabilities(scores, best) if best else []
    return Reading(as_text(best), math.exp(-loss), digits, as_text(others[0][0]), scores)


def digit_probabilities(scores: Tensor, number: tuple[int, ...]) -> list[float]:
    """The probability of each digit of a number, the others given: scores (T, 11) of one line.

    Each digit in turn is replaced by all ten; CTC gives the probability of each such number.
    """
    numbers = torch.tensor(number).repeat(len(number), 10, 1)  # (digit replaced, by which, digits)
    for i in range(len(number)):
        numbers[i, :, i] = torch.arange(10)
    numbers = numbers.flatten(0, 1)
    counts = torch.full((len(numbers),), len(number))
    log_p = scores.log_softmax(1).unsqueeze(1).expand(-1, len(numbers), -1)
    losses = F.ctc_loss(log_p, numbers, torch.full_like(counts, len(scores)), counts, blank=NONE, reduction="none")
    shares = (-losses).view(len(number), 10).softmax(1)
    return [shares[i, digit].item() for i, digit in enumerate(number)]


def as_text(number: tuple[int, ...]) -> str:
    return "".join(map(str, number))


def log_sum(a: float, b: float) -> float:
    """log(exp(a) + exp(b)), of log-probabilities."""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def ctc_losses(scores: Tensor, digits: Tensor, counts: Tensor) -> Tensor:
    """Minus the log-probability of each line's digits: scores (N, T, 11), digits (D,), their counts (N,) -> (N,).

    0 for a line too narrow for its digits. On the CPU, where its gradient repeats bit for bit; on CUDA it does not.
    """
    log_p = scores.log_softmax(2).transpose(0, 1).cpu()  # (T, N, 11)
    widths = torch.full_like(counts, len(log_p))
    return F.ctc_loss(log_p, digits, widths, counts, blank=NONE, reduction="none", zero_infinity=True)


# ---------------------------------------------------------------------------------------------- training

LINES, TEST = 3, 4  # what random numbers are drawn for, beside those of training.py
LONGEST = 8  # digits of a line
TEST_LINES = 1000


def train(
    recipe: Recipe,
    dataset: str,
    seed: int,
    train_set: Set,
    test_set: Set,
    start: LeNet5 | None = None,
    found: Checkpoint | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Checkpoint]:
    """Train on lines of digits, and yield a checkpoint after each epoch; from `found` on, as if it had never stopped.

    `start` is a network for single digits whose weights are the first ones; "none" starts with the weights 0. In an
    epoch each digit stands in one line, but for a few. Lines without any digit are a sixteenth. The test is 1,000 lines
    of test digits. Raises UserError if the loss is no number.
    """
    state = State(recipe, seed, train_set)
    torch.set_num_threads(1)
    if start is not None:
        take_over(state.model, start)
        state.average.copy_(state.weights)
    history = []
    if found:
        state.restore(found)
        history = list(found.history)
    test = sample_lines(test_set, TEST_LINES, random(0, 0, TEST))

    for epoch in range(len(history) + 1, recipe.epochs + 1):
        begin = time.perf_counter()
        state.learning_rate.fill_(recipe.learning_rates[epoch - 1])
        generator, digits, lines, total, right = random(seed, epoch, LINES), 0, 0, 0.0, 0
        for order in shuffled(state, random(seed, epoch, SHUFFLE)):
            for chosen in order:
                losses, correct = step(state, recipe, chosen, generator)
                digits, lines = digits + len(chosen), lines + len(losses)
                total, right = total + losses.sum().item(), right + correct
            if progress:
                progress(epoch, digits)
        seconds = time.perf_counter() - begin
        if not total < math.inf:
            raise UserError(f"the training diverged in epoch {epoch}; what was saved is kept")
        loss, accuracy = evaluate(state.reported, test)
        row = {"epoch": epoch, "train_loss": total / lines, "train_accuracy": right / lines}
        row |= {"test_loss": loss, "test_accuracy": accuracy, "seconds": seconds, "path": "plain"}
        history.append(row)
        yield Checkpoint(recipe, dataset, seed, list(history), **state.tensors())


def step(state: State, recipe: Recipe, chosen: Tensor, generator: np.random.Generator) -> tuple[Tensor, int]:
    """One step on lines of the digits `chosen` (B,); each line's loss, and how many lines are read correctly."""
    length = min(int(generator.integers(1, LONGEST + 1)), len(chosen))
    count = len(chosen) // length
    counts = np.array([length] * count + [0] * math.ceil(count / 16))
    chosen = chosen[: count * length]
    lines = torch.from_numpy(training_lines(state.images[chosen], counts, recipe, generator))
    scores = sweep(state.model, scale(lines.to(state.images.device)))
    digits = state.labels[chosen].cpu()
    losses = ctc_losses(scores, digits, torch.from_numpy(counts))
    state.gradient.zero_()
    (losses.sum() / len(chosen)).backward()
    state.optimizer.step()
    share = state.steps[0].clamp(max=state.steps_an_epoch).reciprocal()
    state.average.lerp_(state.weights, share)
    read = best_path(scores.detach())
    return losses.detach(), sum(map(list.__eq__, read, split(digits.tolist(), counts)))


def take_over(model: LeNet5, start: LeNet5):
    """The weights of a network for digits, put into one with a class more."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            given = start.get_parameter(name)
            parameter.zero_()[: len(given)] = given


@torch.inference_mode()
def evaluate(model: LeNet5, batches: list[Lines]) -> tuple[float, float]:
    """The mean loss of a line, and the share of lines that are read correctly."""
    losses, correct = [], []
    device = next(model.parameters()).device
    for lines, numbers in batches:
        scores = sweep(model, scale(lines.to(device)))
        counts = torch.tensor([len(number) for number in numbers])
        losses += ctc_losses(scores, torch.tensor(sum(numbers, [])), counts).tolist()
        correct += [reading == number for reading, number in zip(best_path(scores), numbers)]
    return sum(losses) / len(losses), sum(correct) / len(correct)


# ---------------------------------------------------------------------------------------------- the script


def main():
    args = parse_arguments()
    device = utils.pick_device(args.device)
    dataset = mnist.find_dataset(args.dataset, args.data_dir)
    recipe, seed = RECIPE.override(epochs=args.epochs), args.seed or 0
    path = (args.record_dir or record_dir(recipe, dataset)) / checkpoint.FILE
    with utils.sole_writer(path):
        found = checkpoint.load(path) if args.resume and path.exists() else None
        if found:
            if found.recipe.name != RECIPE.name:
                raise UserError(f"{path} is no network for numbers; name another folder with --record-dir")
            checkpoint.require_agreement(
                path,
                ("data set", found.dataset, dataset),
                ("seed", found.seed, args.seed),
                ("epochs", found.recipe.epochs, args.epochs),
            )
            recipe, seed = found.recipe, found.seed
            if found.finished:
                print(f"{path} has finished its {recipe.epochs} epochs; nothing is left to do.")
                return
        train_set, test_set = (
            [tensor.to(device) for tensor in mnist.load_dataset(dataset, args.data_dir, subset)]
            for subset in ("train", "test")
        )
        start = digit_network(args.start or record_dir(START, dataset) / checkpoint.FILE, dataset)
        print(f"LeNet-5 swept over lines of {dataset}, seed {seed}, device {device}")
        with tqdm(total=recipe.epochs * len(train_set[1]), unit=" digits", unit_scale=True, disable=None) as bar:
            progress = None if bar.disable else functools.partial(show_progress, bar, len(train_set[1]))
            for latest in train(recipe, dataset, seed, train_set, test_set, start, found, progress):
                checkpoint.save(path, latest)
                row = latest.history[-1]
                bar.write(
                    f"epoch {row['epoch']:2}/{recipe.epochs}  train loss {row['train_loss']:.4f}  test: lines read "
                    f"correctly {row['test_accuracy']:.1%}  {row['seconds']:.1f} s"
                )
    seconds, accuracy = sum(row["seconds"] for row in latest.history), row["test_accuracy"]
    print(f"trained in {seconds:.0f} s; {accuracy:.1%} of {TEST_LINES:,} test lines are read")
    print(f"checkpoint: {path}; to read a number: python ClassifyTask_predict.py PICTURE")


def parse_arguments():
    parser = utils.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("auto", "mnist", "digits"), default="auto", help="auto: MNIST if any")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    parser.add_argument("--record-dir", type=Path, metavar="DIR", help="where the checkpoint is written")
    parser.add_argument("--device", default="auto", help="cuda if there is one, else cpu; or any torch device")
    what = "checkpoint of the digit network to start from; default: that of --recipe best"
    parser.add_argument("--start", type=Path, metavar="FILE", help=what)
    parser.add_argument("--epochs", type=utils.positive(int, most=5_000), metavar="N", help=f"default: {RECIPE.epochs}")
    parser.add_argument("--seed", type=utils.seed, metavar="N", help="default: 0")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    return parser.parse_args()


def digit_network(path: Path, dataset: str = "mnist") -> LeNet5:
    """The network of a checkpoint to start from; raises UserError unless it is one for digits with ReLU."""
    if not path.exists():
        raise UserError(
            f"no digit network at {path}; make it with ClassifyTask_train.py --recipe best --dataset {dataset}, or "
            "name --start"
        )
    found = checkpoint.load(path)
    if found.recipe.network != START.network:
        raise UserError(f"{path} is another network than that of --recipe best; name one of this recipe with --start")
    return checkpoint.network(found)


def show_progress(bar: tqdm, count: int, epoch: int, digits: int):
    bar.set_description(f"epoch {epoch}", refresh=False)
    bar.update((epoch - 1) * count + digits - bar.n)


if __name__ == "__main__":
    utils.run_script(main)
