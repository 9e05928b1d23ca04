"""Train LeNet-5: a recipe in, a checkpoint out after each epoch.

python ClassifyTask_train.py                    the recipe of today: Adam, 20 epochs, batches of 32, augmentation
python ClassifyTask_train.py --recipe best      ReLU, 60 epochs, cosine learning-rate decay
python ClassifyTask_train.py --recipe distilled best, taught by five of its kind that are trained first
python ClassifyTask_train.py --recipe fast      ReLU, 2 epochs: seconds
python ClassifyTask_train.py --recipe 1998      the network, loss and method as published
python ClassifyTask_train.py --recipe numbers   the network swept over lines of digits, from that of `best`
"""

import functools
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # which PYTHONSAFEPATH leaves out

import utils  # isort: skip; first, so that Ctrl-C shows no traceback of imports

from torch import Tensor
from tqdm import tqdm

from digits import mnist
from digits.mnist import Data
from model import LeNet5
from training import checkpoint, loop, steps
from training.checkpoint import Checkpoint
from training.recipes import RECIPES, Recipe, record_dir
from utils import UserError, shown

AFTER_STOP = "if an epoch of this run is finished, it is on disk, and --resume goes on from there"


def main():
    args = parse_arguments()
    device = utils.pick_device(args.device)
    recipe = override(RECIPES[args.recipe or "default"], args)
    seed = args.seed or 0
    dataset = mnist.find_dataset(args.dataset, args.data_dir)
    path = (args.record_dir or record_dir(recipe, dataset, args.reference)) / checkpoint.FILE
    with utils.sole_writer(path):
        found = checkpoint.load(path, "leave --resume out to start anew") if args.resume and path.exists() else None
        if found:
            require_agreement(found, path, args)
            recipe, seed, dataset = found.recipe, found.seed, found.dataset
            if found.finished:
                plural = "s" * (recipe.epochs > 1)
                print(f"{shown(path)} has finished its {recipe.epochs} epoch{plural}; nothing is left to do.")
                return
        data = mnist.load(dataset, args.data_dir, device)
        initial = None if found else initial_network(recipe, dataset, args)
        print(f"LeNet-5 on {dataset}, recipe {recipe.name}, seed {seed}, device {device}")
        if path.exists() and not found:
            print(f"this run replaces the one in {shown(path)}, from its first epoch on")
        committee = teachers(recipe, data, seed, args.plain)
        count = len(data.train[1])
        whole, done = recipe.epochs * count, found.epoch * count if found else 0
        with tqdm(total=whole, initial=done, unit=" digits", unit_scale=True, disable=None) as bar:
            progress = None if bar.disable else functools.partial(show_progress, bar, count)
            make_steps = maker(recipe, args.plain)
            for latest in loop.train(recipe, data, seed, found, make_steps, initial, progress, committee):
                checkpoint.save(path, latest)
                bar.write(epoch_line(latest))
    report(path, latest, data)


def override(recipe: Recipe, args) -> Recipe:
    """The recipe with what the flags change. Raises UserError if it cannot be changed so."""
    try:
        return recipe.override(args.epochs, args.batch_size, args.lr, args.augment)
    except ValueError as error:
        raise UserError(f"{error}; leave the flag out") from None


def parse_arguments():
    parser = utils.Parser(description=utils.first_line(__doc__))
    what = "of today (default), the most accurate (best, distilled), fastest, as published (1998), or for whole numbers"
    parser.add_argument("--recipe", choices=RECIPES, help=f"{what}; default: default")
    what = "where files are written; default: below Record"
    parser.add_argument("--record-dir", type=Path, metavar="DIR", help=what)
    parser.share("--dataset", "--data-dir", "--reference", "--device", "--augment")
    what = f"default: {', '.join(f'{recipe.epochs} ({name})' for name, recipe in RECIPES.items())}"
    parser.add_argument("--epochs", type=utils.positive(int, most=5_000), metavar="N", help=what)
    parser.add_argument("--batch-size", type=utils.positive(int), metavar="N", help="default: the recipe's")
    parser.add_argument("--lr", type=utils.positive(float), metavar="X", help="the first epoch's learning rate")
    parser.add_argument("--seed", type=utils.seed, metavar="N", help="default: 0")
    what = "checkpoint of a digit network that --recipe numbers starts from; default: that of --recipe best"
    parser.add_argument("--initial", type=Path, metavar="FILE", help=what)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    parser.add_argument("--plain", action="store_true", help="let model.py itself take the steps: slower")
    return parser.parse_args()


def require_agreement(found: Checkpoint, path: Path, args):
    """Raise UserError if a flag contradicts the run that is to be resumed."""
    for what, of_file, of_flag in (
        ("data set", found.dataset, None if args.dataset == "auto" else args.dataset),
        ("recipe", found.recipe.name, args.recipe),
        ("seed", found.seed, args.seed),
        ("augmentation", found.recipe.augment, args.augment),
        ("epochs", found.recipe.epochs, args.epochs),
        ("batch size", found.recipe.batch_size, args.batch_size),
        ("learning rate", found.recipe.learning_rates[0], args.lr),
    ):
        if of_flag not in (None, of_file):
            raise UserError(
                f"{shown(path)} was trained with {what} {of_file}, not {of_flag}; leave the flag out to go on with it, "
                "or leave --resume out to start anew"
            )
    if args.initial:
        raise UserError(f"{shown(path)} goes on with its own weights; leave --initial out, or --resume to start anew")


def initial_network(recipe: Recipe, dataset: str, args) -> LeNet5 | None:
    """The network whose weights a run starts from: for numbers a trained one for digits, else none.

    Raises UserError if the file named has another network, or if one is named for another recipe.
    """
    path = args.initial
    if not recipe.reads_numbers:
        if path:
            raise UserError(f"--initial is for --recipe numbers; leave it out with --recipe {recipe.name}")
        return None
    best = RECIPES["best"]
    own, shipped = (record_dir(best, dataset, reference) / checkpoint.FILE for reference in (False, True))
    path = path or (shipped if args.reference or shipped.exists() and not own.exists() else own)
    if not path.exists():
        make = f"python ClassifyTask_train.py --recipe best --dataset {dataset}"
        raise UserError(f"no digit network at {shown(path)}; make it with {make}, or name one with --initial")
    found = checkpoint.load(path, "name another with --initial")
    if found.recipe.model_arguments != best.model_arguments:
        raise UserError(f"{shown(path)} is another network than that of --recipe best; name one of this recipe")
    print(f"starting from the weights of {shown(path)}")
    return checkpoint.network(found)


def teachers(recipe: Recipe, data: Data, seed: int, plain: bool) -> list[LeNet5]:
    """The networks that the recipe's own learns from: trained now, and so again with --resume."""
    found = []
    for trained in loop.teachers(recipe, data, seed, maker(recipe, plain)):
        found.append(checkpoint.network(trained))
        last, seconds = trained.history[-1], sum(row["seconds"] for row in trained.history)
        print(f"teacher {len(found)}/{recipe.teachers}  test accuracy {last['test_accuracy']:.2%}  {seconds:.0f} s")
    return found


def maker(recipe: Recipe, plain: bool):
    """What makes the steps of a recipe."""
    if recipe.reads_numbers:
        from reading.ctc import ctc

        return ctc
    return steps.plain if plain else loop.fastest


def show_progress(bar: tqdm, count: int, epoch: int, digits: int, totals: Tensor):
    """Move the bar on; with loss and accuracy of the epoch so far, where looking at them waits for nothing."""
    bar.set_description(f"epoch {epoch}", refresh=False)
    if totals.device.type == "cpu":
        loss, correct = (totals[:2] / totals[2]).tolist()
        bar.set_postfix_str(f"loss {loss:.4f}, accuracy {correct:.2%}", refresh=False)
    bar.update((epoch - 1) * count + digits - bar.n)


def epoch_line(latest: Checkpoint) -> str:
    """What the last epoch came to."""
    row, epochs = latest.history[-1], latest.recipe.epochs
    step_range = "  effective steps {:.1e} to {:.1e}".format(*row["step_range"]) if "step_range" in row else ""
    return (
        f"epoch {row['epoch']:2}/{epochs}  train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}"
        f"  test accuracy {row['test_accuracy']:.2%}  {row['seconds']:.1f} s{step_range}"
    )


def report(path: Path, latest: Checkpoint, data: Data):
    """Print what the run came to, and where to go on."""
    seconds, accuracy = sum(row["seconds"] for row in latest.history), latest.history[-1]["test_accuracy"]
    what = "lines of test digits" if latest.recipe.reads_numbers else f"{len(data.test[1]):,} digits"
    print(f"trained in {seconds:.0f} s; test accuracy {accuracy:.2%} of {what}")
    if latest.recipe.ema:
        last = latest.history[-1]["last_accuracy"]
        print(f"(that is the moving average of the weights, EMA; the last weights alone: {last:.2%})")
    command = f"python ClassifyTask_test.py --checkpoint {shlex.quote(shown(path))}"
    print(f"checkpoint: {shown(path)}; for the figures: {command}")


if __name__ == "__main__":
    utils.run_script(main, AFTER_STOP)
