"""What the tools share: the flags, which network they show, and where they write."""

from argparse import Namespace
from pathlib import Path

import utils
from training import checkpoint
from training.recipes import RECIPES, record_dir
from utils import UserError, shown


def parser(docstring: str | None, output: str) -> utils.Parser:
    """A parser with the flags of all tools; `output` names the file where --output does not."""
    made = utils.Parser(description=utils.first_line(docstring))
    what = "default: that of your run of ClassifyTask_train.py, else the one shipped"
    made.add_argument("--checkpoint", type=Path, metavar="FILE", help=what)
    made.add_argument("--output", type=Path, metavar="FILE", help=f"default: {output}")
    return made.share("--reference")


def trained_networks(recipes: tuple[str, ...], reference: bool) -> list[Path]:
    """The checkpoints of the user's own runs of these recipes on MNIST, else, with a line that says so, those shipped.

    `reference` asks for those shipped, whatever else there is.
    """
    found, missing = [], []
    for recipe in recipes:
        own, shipped = (record_dir(RECIPES[recipe], "mnist", where) / checkpoint.FILE for where in (False, True))
        found.append(shipped if reference or shipped.exists() and not own.exists() else own)
        if found[-1] == shipped and not reference:
            missing.append(shown(shipped))
    if missing:
        print(f"no training run of yours: made of the network{'s' * (len(missing) > 1)} shipped, {', '.join(missing)}")
    return found


def output_path(args: Namespace, name: str) -> Path:
    """The file to write: that of --output, else one of this name below Record, or Record/reference.

    Raises UserError if --output names the checkpoint.
    """
    if args.output and args.checkpoint and args.output.resolve() == args.checkpoint.resolve():
        raise UserError(f"{shown(args.output)} is the checkpoint; name another file with --output")
    return args.output or (utils.RECORD / utils.REFERENCE if args.reference else utils.RECORD) / name
