"""Train LeNet-5: a recipe in, a checkpoint out after each epoch.

python ClassifyTask_train.py                  the recipe of today: Adam, 20 epochs, batches of 32, distorted digits
python ClassifyTask_train.py --recipe best    ReLU, 60 epochs, a falling learning rate
python ClassifyTask_train.py --recipe 1998    the network, loss and method as published
"""

import functools
from argparse import BooleanOptionalAction
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

import checkpoint
import mnist
import training
import utils
from checkpoint import Checkpoint
from recipes import RECIPES, record_dir


def main():
    args = parse_arguments()
    device = utils.pick_device(args.device)
    dataset = mnist.find_dataset(args.dataset, args.data_dir)
    recipe, seed = RECIPES[args.recipe].override(args.epochs, args.batch_size, args.lr, args.distort), args.seed or 0
    path = (args.record_dir or record_dir(recipe, dataset)) / checkpoint.FILE
    with utils.sole_writer(path):
        found = checkpoint.load(path) if args.resume and path.exists() else None
        if found:
            checkpoint.require_agreement(
                path,
                ("data set", found.dataset, dataset),
                ("recipe", found.recipe.name, args.recipe),
                ("seed", found.seed, args.seed),
                ("distortions", found.recipe.distort, args.distort),
                ("epochs", found.recipe.epochs, args.epochs),
                ("batch size", found.recipe.batch_size, args.batch_size),
                ("learning rate", found.recipe.learning_rates[0], args.lr),
            )
            recipe, seed = found.recipe, found.seed
            if found.finished:
                print(f"{path} has finished its {recipe.epochs} epochs; nothing is left to do.")
                return
        train_set, test_set = (
            [tensor.to(device) for tensor in mnist.load_dataset(dataset, args.data_dir, subset)]
            for subset in ("train", "test")
        )
        print(f"LeNet-5 on {dataset}, recipe {recipe.name}, seed {seed}, device {device}")
        with tqdm(total=recipe.epochs * len(train_set[1]), unit=" digits", unit_scale=True, disable=None) as bar:
            progress = None if bar.disable else functools.partial(show_progress, bar, len(train_set[1]))
            for latest in training.train(recipe, dataset, seed, train_set, test_set, found, args.plain, progress):
                checkpoint.save(path, latest)
                bar.write(epoch_line(latest))
    report(path, latest, test_set)


def parse_arguments():
    parser = utils.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("auto", "mnist", "digits"), default="auto", help="auto: MNIST if any")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    parser.add_argument("--record-dir", type=Path, metavar="DIR", help="where the checkpoint is written")
    parser.add_argument("--device", default="auto", help="cuda if there is one, else cpu; or any torch device")
    parser.add_argument(
        "--recipe", choices=RECIPES, default="adam", help="of today, the most accurate one found, or as published"
    )
    parser.add_argument(
        "--distort", action=BooleanOptionalAction, help="distort the training digits; default: the recipe's"
    )
    parser.add_argument("--epochs", type=utils.positive(int, most=5_000), metavar="N", help="default: the recipe's")
    parser.add_argument("--batch-size", type=utils.positive(int), metavar="N", help="default: the recipe's")
    parser.add_argument("--lr", type=utils.positive(float), metavar="X", help="the first epoch's learning rate")
    parser.add_argument("--seed", type=utils.seed, metavar="N", help="default: 0")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    parser.add_argument("--plain", action="store_true", help="let model.py itself take the steps: slower")
    return parser.parse_args()


def show_progress(bar: tqdm, count: int, epoch: int, digits: int, totals: Tensor):
    """Move the bar on; with loss and accuracy of the epoch so far, where looking at them waits for nothing."""
    bar.set_description(f"epoch {epoch}", refresh=False)
    if totals.device.type == "cpu":
        loss, right = (totals / digits).tolist()
        bar.set_postfix_str(f"loss {loss:.4f}, accuracy {right:.2%}", refresh=False)
    bar.update((epoch - 1) * count + digits - bar.n)


def epoch_line(latest: Checkpoint) -> str:
    """What the last epoch came to."""
    row, epochs = latest.history[-1], latest.recipe.epochs
    step_range = "  effective steps {:.1e} to {:.1e}".format(*row["step_range"]) if "step_range" in row else ""
    return (
        f"epoch {row['epoch']:2}/{epochs}  train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}"
        f"  test accuracy {row['test_accuracy']:.2%}  {row['seconds']:.1f} s{step_range}"
    )


def report(path: Path, latest: Checkpoint, test_set: list[Tensor]):
    """Print what the run came to, and where to go on."""
    seconds, digits = sum(row["seconds"] for row in latest.history), len(test_set[1])
    print(f"trained in {seconds:.0f} s; test accuracy {latest.history[-1]['test_accuracy']:.2%} of {digits:,} digits")
    if latest.recipe.average:
        last = utils.accuracy(checkpoint.network(latest, "last").to(test_set[0].device), *test_set)
        print(f"(that is the running average of the weights; the last weights alone: {last:.2%})")
    print(f"checkpoint: {path}; for the figures: python ClassifyTask_test.py --checkpoint {path}")


if __name__ == "__main__":
    utils.run_script(main)
