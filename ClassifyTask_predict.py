"""Read digits and whole numbers in images of one's own: image files in, what they say out.

python ClassifyTask_predict.py seven.jpg             file, digit, probability, runner-up; "7 ?" if it is not sure
python ClassifyTask_predict.py house.jpg             the same of a whole number, and the probability of each digit
python ClassifyTask_predict.py seven.jpg --csv       as comma-separated values
python ClassifyTask_predict.py seven.jpg --figure    and what the network saw: Record/prediction-1.png

A digit, a line of digits, or lines that are clearly apart: a scan, a photo, a drawing; dark on light, or light on
dark. Only digits are read.
"""

import contextlib
import csv
import functools
import glob
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))  # which PYTHONSAFEPATH leaves out

import utils  # isort: skip; first, so that Ctrl-C shows no traceback of imports

import numpy as np
import torch

from digits.pieces import SMALL, find_lines, widened
from digits.preprocessing import prepare, read_grey
from model import LeNet5, normalize, pad
from reading.vote import SURE, Vote, vote
from training import checkpoint
from training.recipes import RECIPES, record_dir
from utils import UserError, shown

LEAST = 0.1  # a probability below which nothing is said
COLUMNS = ("file", "line", "number", "probability", "sure", "runner_up")


class Answer(NamedTuple):
    number: str
    probability: float
    runner_up: str
    digits: list[float]  # of a whole number, the probability of each digit
    draw: Callable[[Path, str], None]  # draws what the network saw, given the file to write and the image's name

    @property
    def sure(self) -> bool:
        return self.probability >= SURE

    def row(self) -> list[str]:
        return [self.number, f"{self.probability:.4f}", "yes" if self.sure else "no", self.runner_up]

    def __str__(self) -> str:
        each = f"; of each digit {', '.join(f'{p:.1%}' for p in self.digits)}" if self.digits else ""
        share = f"probability {self.probability:.1%}, runner-up {self.runner_up or 'none'}"
        return f"{self.number}{'' if self.sure else ' ?'}, {share}{each}"


def main() -> int:
    args = parse_arguments()
    device = utils.pick_device(args.device)
    digits, numbers = load_networks(args, device)
    folder = args.record_dir or (utils.RECORD / utils.REFERENCE if args.reference else utils.RECORD)
    rows = csv.writer(sys.stdout, lineterminator="\n")
    if args.csv:
        rows.writerow(COLUMNS)
    given = [flag for flag in ("--digit", "--checkpoint", "--record-dir") if vars(args)[flag[2:].replace("-", "_")]]
    status = 0
    for index, path in enumerate([file for image in args.images for file in expanded(image)], 1):
        try:
            answers = read(read_grey(path), digits, numbers, " and ".join(given))
        except ValueError as error:  # the other images are read all the same
            print(f"{Path(sys.argv[0]).name}: {printable(path)} {' '.join(str(error).split())}", file=sys.stderr)
            status = 2
            continue
        for line, answer in enumerate(answers, 1):
            if args.csv:
                rows.writerow([path, line, *answer.row()])
            else:
                print(f"{printable(path)}{f', line {line}' * (len(answers) > 1)}: {answer}")
            if args.figure:
                name = f"prediction-{index}{f'-{line}' * (len(answers) > 1)}.png"
                with utils.whole_files(folder / name) as temporary:
                    answer.draw(temporary / name, printable(Path(path.name)))
                if not args.csv:
                    print(f"figure: {shown(folder / name)}")
    return status


def parse_arguments():
    parser = utils.Parser(description=utils.first_line(__doc__))
    what = "an image file with a digit in it, or with lines of digits"
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help=what)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--digit", action="store_true", help="each image holds one digit; default: found out")
    kind.add_argument("--number", action="store_true", help="each image holds a line of digits")
    parser.add_argument("--csv", action="store_true", help=f"print {','.join(COLUMNS)}")
    parser.add_argument(
        "--figure", action="store_true", help="draw what the network saw: prediction-1.png, -2.png, ..."
    )
    where = (
        "of digits or of numbers; default: those in --record-dir and in numbers/ below it, else the best ones shipped"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help=where)
    where = "of your networks, and of figures; default: the networks shipped, figures into Record"
    parser.add_argument("--record-dir", type=Path, metavar="DIR", help=where)
    parser.share("--reference", "--device")
    return parser.parse_args()


def load_networks(args, device: torch.device) -> tuple[LeNet5 | None, LeNet5 | None]:
    """The network that reads single digits and the one that reads numbers; None for what is not to be read.

    Raises UserError if the checkpoint named reads the other kind than the flag says.
    """
    if args.checkpoint:
        found = checkpoint.load(args.checkpoint)
        of_numbers = found.recipe.reads_numbers
        if of_numbers and args.digit or not of_numbers and args.number:
            flag, kind = ("--digit", "numbers") if of_numbers else ("--number", "single digits")
            raise UserError(f"{shown(args.checkpoint)} reads {kind}; leave {flag} out, or name another --checkpoint")
        network = checkpoint.network(found).to(device)
        return (None, network) if of_numbers else (network, None)
    digits, numbers = (folder / checkpoint.FILE for folder in network_folders(args))
    if args.record_dir and not args.number and not numbers.exists():
        numbers = None  # a record folder that has no network for numbers is one for digits
    chosen = None if args.number else digits, None if args.digit else numbers
    if not args.record_dir and not args.csv and not args.reference:
        files = [shown(path) for path in chosen if path]
        print(f"read by the network{'s' * (len(files) > 1)} shipped, {', '.join(files)}; --record-dir names your own")
    return tuple(path and checkpoint.load_network(path).to(device) for path in chosen)


def network_folders(args) -> tuple[Path, Path]:
    """Where the networks for digits and for numbers lie: the best ones shipped, or the user's own in a record folder.

    Recipe `best` reads more of what people write than the default one does.
    """
    if args.record_dir:
        return args.record_dir, args.record_dir / "numbers"
    return tuple(record_dir(RECIPES[name], "mnist", True) for name in ("best", "numbers"))


def read(grey: np.ndarray, digits: LeNet5 | None, numbers: LeNet5 | None, given: str = "--digit") -> list[Answer]:
    """What an image (H, W) says, an answer for each of its lines: a digit, if there is no network for numbers, since
    these flags were given; else the number that the readers in reading/vote.py agree on. Raises ValueError if nothing
    can be read.
    """
    if not numbers:
        return [read_digit(grey, digits, given)]
    lines = find_lines(grey)
    image = whole(grey) if len(lines) == len(lines[0].pieces) == 1 else None
    answers = [answer_of(vote(line, numbers, digits, image), grey, image, digits) for line in lines]
    if len(answers) > 1 and sum(answer.probability < 0.5 for answer in answers) >= len(answers) / 2:
        raise ValueError(
            "shows several lines, and most of them do not read as numbers; cut them apart, one line an image"
        )
    if all(answer.probability < LEAST for answer in answers):
        raise ValueError(f"{SMALL} (at best {answers[0].number}, probability {answers[0].probability:.1%})")
    return answers


def whole(grey: np.ndarray) -> np.ndarray | None:
    """An image (H, W) of one digit in MNIST's form, uint8 (28, 28); None if no ground is found, since ink fills it."""
    with contextlib.suppress(ValueError):
        return widened(prepare(grey))


def answer_of(found: Vote, grey: np.ndarray, image: np.ndarray | None, digits: LeNet5 | None) -> Answer:
    if image is not None and digits and len(found.number) == 1:
        draw = functools.partial(draw_digit, grey, image, digits)
    else:
        draw = functools.partial(draw_number, grey, found)
    return Answer(found.number, found.probability, found.runner_up, found.digits, draw)


def read_digit(grey: np.ndarray, model: LeNet5, given: str) -> Answer:
    image = prepare(grey)  # (28, 28)
    if sum(len(line.pieces) for line in find_lines(grey)) > 2:  # two pieces may be a digit and what has come off it
        raise ValueError(f"shows several digits; cut one out, or leave {given} out")
    probabilities = states_of(image, model)["output"][0].softmax(0)  # (10,)
    digit, runner_up = probabilities.topk(2).indices.tolist()
    draw = functools.partial(draw_digit, grey, image, model)
    return Answer(str(digit), probabilities[digit].item(), str(runner_up), [], draw)


def states_of(image: np.ndarray, model: LeNet5) -> dict[str, torch.Tensor]:
    """What every layer makes of an image uint8 (28, 28)."""
    with torch.inference_mode():
        return model.states(normalize(pad(torch.from_numpy(image)[None].to(next(model.parameters()).device))))


def draw_digit(grey: np.ndarray, image: np.ndarray, model: LeNet5, path: Path, name: str):
    from figures import diagrams  # matplotlib takes half a second, which only figures need

    diagrams.layer_states(path, name, grey, image, model, states_of(image, model))


def draw_number(grey: np.ndarray, answer: Vote, path: Path, name: str):
    from figures import diagrams

    diagrams.sweep(path, name, grey, answer.line, answer)


def expanded(path: Path) -> list[Path]:
    """The files that a pattern such as *.png means: the command line of Windows leaves that to the program."""
    return [path] if os.path.exists(path) else [Path(found) for found in sorted(glob.glob(str(path)))] or [path]


def printable(path: Path) -> str:
    """A file's name for a line of text: without control characters."""
    return str(path) if str(path).isprintable() else ascii(str(path))


if __name__ == "__main__":
    utils.run_script(main)
