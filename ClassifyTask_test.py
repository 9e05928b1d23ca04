"""Test LeNet-5: a checkpoint in, its accuracy, metrics and figures out.

python ClassifyTask_test.py                     your last run of ClassifyTask_train.py; without one, the network shipped
python ClassifyTask_test.py --recipe 1998       the same of --recipe 1998, figures into Record/1998
python ClassifyTask_test.py --recipe numbers    the network for whole numbers, on lines of test digits
"""

import math
import sys
from argparse import BooleanOptionalAction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # which PYTHONSAFEPATH leaves out

import utils  # isort: skip; first, so that Ctrl-C shows no traceback of imports

import numpy as np
import sklearn
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from digits import mnist
from figures import diagrams, plots
from model import LeNet5, layer_table, pad
from training import checkpoint, provenance
from training.checkpoint import Checkpoint
from training.recipes import RECIPES, record_dir
from utils import UserError, shown


def main():
    args = parse_arguments()
    device = utils.pick_device(args.device)
    path, folder = find_checkpoint(args)
    trained = checkpoint.load(path)
    require_agreement(trained, path, args)
    if args.weights == "ema" and not trained.recipe.ema:
        raise UserError(f"{shown(path)} keeps no average of the weights (EMA); leave --weights out")
    test_set = tuple(tensor.to(device) for tensor in mnist.load_dataset(trained.dataset, args.data_dir, "test"))
    last = args.weights == "last"
    model = checkpoint.network(trained, last).to(device)
    examine = read_lines if trained.recipe.reads_numbers else classify_digits
    metrics, draw = examine(trained, model, test_set)
    metrics |= {
        "weights": "ema" if trained.recipe.ema and not last else "last",
        "dataset": trained.dataset,
        "recipe": trained.recipe.to_json(),
        "seed": trained.seed,
        "device": str(device),
        "versions": {**provenance.versions(device), "scikit-learn": sklearn.__version__},
    }
    with utils.sole_writer(folder / "metrics.json"), utils.whole_files(folder / "metrics.json") as temporary:
        provenance.save_json(temporary / "metrics.json", metrics)
        draw(temporary)
    report(path, folder, metrics)


def parse_arguments():
    parser = utils.Parser(description=utils.first_line(__doc__))
    what = f"default: {checkpoint.FILE} in the record folder, else the one shipped"
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help=what)
    what = "the moving average or those of the last step; default: the average, where there is one"
    parser.add_argument("--weights", choices=("ema", "last"), help=what)
    parser.add_argument("--recipe", choices=RECIPES, help="whose record folder; default: default")
    parser.add_argument("--augment", action=BooleanOptionalAction, help="whose record folder; default: the recipe's")
    what = "where the checkpoint is looked for and figures are written"
    parser.add_argument("--record-dir", type=Path, metavar="DIR", help=what)
    parser.share("--dataset", "--data-dir", "--reference", "--device")
    return parser.parse_args()


def require_agreement(trained: Checkpoint, path: Path, args):
    """Raise UserError if a flag contradicts the checkpoint that is tested."""
    for flag, how, of_file, of_flag in (
        ("--dataset", "on", trained.dataset, None if args.dataset == "auto" else args.dataset),
        ("--recipe", "by recipe", trained.recipe.name, args.recipe),
        ("--augment" if args.augment else "--no-augment", "with augmentation", trained.recipe.augment, args.augment),
    ):
        if of_flag not in (None, of_file):
            raise UserError(f"{shown(path)} was trained {how} {of_file}, not {of_flag}; leave {flag} out to test it")


def find_checkpoint(args) -> tuple[Path, Path]:
    """The checkpoint to test, and the folder for its figures: without a run of one's own, the one shipped."""
    if args.checkpoint:
        folder, shipped = args.checkpoint.resolve().parent, utils.RECORD / utils.REFERENCE
        if folder.is_relative_to(shipped) and not args.reference:  # what is shipped stays as it is
            folder = utils.RECORD / folder.relative_to(shipped)
        return args.checkpoint, args.record_dir or folder
    dataset = mnist.find_dataset(args.dataset, args.data_dir)
    try:
        recipe = RECIPES[args.recipe or "default"].override(augment=args.augment)
    except ValueError as error:
        raise UserError(f"{error}; leave the flag out") from None
    folder = args.record_dir or record_dir(recipe, dataset, args.reference)
    path, shipped = folder / checkpoint.FILE, record_dir(recipe, dataset, reference=True) / checkpoint.FILE
    if not args.record_dir and not path.exists() and shipped.exists():
        others = [found.parent for found in sorted(utils.RECORD.glob(f"*/{checkpoint.FILE}"))]
        named = ", ".join(shown(found) for found in others if found.name != utils.REFERENCE)
        yours = f" (--record-dir names one of {named})" if named else ""
        print(f"no training run of yours in {shown(folder)}{yours}: this is the network shipped, {shown(shipped)}")
        path = shipped
    if not path.exists():
        flags = f"--recipe {recipe.name} --dataset {dataset}" + " --augment" * (args.augment is True)
        flags += " --no-augment" * (args.augment is False)
        raise UserError(
            f"no checkpoint at {shown(path)}; train with ClassifyTask_train.py {flags}, or name --checkpoint"
        )
    return path, folder


# ---------------------------------------------------------------------------------------------- single digits


def classify_digits(trained: Checkpoint, model: LeNet5, test_set: mnist.Digits):
    """The metrics of a network for digits, and a function that draws its five figures into a folder."""
    images, labels = test_set
    logits = utils.class_logits(model, pad(images))
    metrics = measure(logits, labels) | {
        "last_accuracy": utils.accuracy(checkpoint.network(trained, last=True).to(images.device), images, labels),
        "loss": trained.recipe.losses(logits, labels).mean().item(),
    }

    def draw(folder: Path):
        draw_digits(folder, trained, model, *(tensor.cpu() for tensor in (images, labels, logits)), metrics)

    return metrics, draw


def measure(logits: torch.Tensor, labels: torch.Tensor) -> dict:
    """What logits (N, 10) come to, given the labels (N,)."""
    labels, predicted = labels.cpu(), logits.argmax(1).cpu()
    correct, count = int((predicted == labels).sum()), len(labels)
    columns = precision_recall_fscore_support(labels, predicted, labels=range(10), zero_division=0)
    return {
        "accuracy": correct / count,
        "interval": wilson_interval(correct, count),
        "errors": count - correct,
        "classes": [
            {"precision": p, "recall": r, "f1": f, "support": int(support)} for p, r, f, support in zip(*columns)
        ],
        "confusion_matrix": confusion_matrix(labels, predicted, labels=range(10)).tolist(),
    }


def wilson_interval(correct: int, count: int, z: float = 1.96) -> list[float]:
    """Wilson's 95 % interval of a proportion: where the true accuracy lies, given `correct` of `count` answers."""
    share, spread = correct / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return [centre - half, centre + half]


def where(trained: Checkpoint) -> str:
    return "MNIST" if trained.dataset == "mnist" else "scikit-learn's digits, NOT MNIST"


def title_of(trained: Checkpoint) -> str:
    return f"Training on {where(trained)}, {'with' if trained.recipe.augment else 'without'} augmentation"


def draw_digits(folder: Path, trained: Checkpoint, model: LeNet5, images, labels, logits, metrics: dict):
    images, labels = images.numpy(), labels.numpy()
    predicted, probability = logits.argmax(1).numpy(), logits.softmax(1).amax(1).numpy()
    look = plots.look(trained.recipe.name, trained.recipe.augment)
    plots.training_curve(folder / "training_curve.png", trained.history, title_of(trained), look)
    matrix = np.array(metrics["confusion_matrix"])
    plots.confusion_matrix(folder / "ConfusionMatrix.png", matrix, f"Confusion matrix on {where(trained)}")
    chosen = np.append(np.arange(84), 84 + np.flatnonzero(predicted[84:] != labels[84:])[:12])
    plots.predictions(
        folder / "Result_of_LeNet_Training.png",
        *(images[chosen], labels[chosen], predicted[chosen]),
        f"{where(trained)}: the first 84 test digits, and the next errors",
    )
    title = f"The misclassified test digits of {where(trained)}"
    plots.misclassified(folder / "misclassified.png", images, labels, predicted, probability, title)
    diagrams.architecture(folder / "lenet.png", layer_table(model.cpu()))


# ---------------------------------------------------------------------------------------------- whole numbers

LINES, LONGEST = 1000, 6


def read_lines(trained: Checkpoint, model: LeNet5, test_set: mnist.Digits):
    """The metrics of a network for numbers, on lines of 1 to 6 test digits, and a function that draws its figures."""
    from digits.lines import MARGIN, sample_lines
    from reading import sweep

    outcomes, example = {length: [] for length in range(1, LONGEST + 1)}, None
    for lines, numbers in sample_lines(test_set, LINES, np.random.default_rng(0), LONGEST):
        for line, number in zip(lines.numpy(), numbers):
            line = line[:, : np.flatnonzero(line.any(0))[-1] + 1 + MARGIN]  # without what the widest of its batch needs
            reading = sweep.read(model, line)
            outcomes[len(number)].append(reading.number == "".join(map(str, number)))
            if example is None and len(number) == 5:
                example = line, reading
    correct = sum(map(sum, outcomes.values()))
    metrics = {
        "lines": LINES,
        "accuracy": correct / LINES,
        "interval": wilson_interval(correct, LINES),
        "errors": LINES - correct,
        "errors_by_length": {str(length): len(own) - sum(own) for length, own in outcomes.items()},
        "lines_by_length": {str(length): len(own) for length, own in outcomes.items()},
    }

    def draw(folder: Path):
        title, look = f"{title_of(trained)}: lines of digits", plots.look(trained.recipe.name, trained.recipe.augment)
        plots.training_curve(folder / "training_curve.png", trained.history, title, look, "line", "read")
        line, reading = example
        diagrams.sweep(folder / "sweep.png", "A line of test digits", None, line, reading)

    return metrics, draw


# ---------------------------------------------------------------------------------------------- what is printed


def report(path: Path, folder: Path, metrics: dict):
    low, high = metrics["interval"]
    print(f"LeNet-5 on {metrics['dataset']}, {shown(path)}, weights: {metrics['weights']}")
    print(f"accuracy {metrics['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}")
    if "lines" in metrics:
        pairs = zip(metrics["errors_by_length"].items(), metrics["lines_by_length"].values())
        by_length = "  ".join(f"{length}: {errors} of {count}" for (length, errors), count in pairs)
        print(f"{metrics['errors']} errors in {metrics['lines']:,} lines; by their number of digits: {by_length}")
    else:
        matrix = metrics["confusion_matrix"]
        by_class = "  ".join(f"{digit}: {sum(row) - row[digit]}" for digit, row in enumerate(matrix))
        print(f"{metrics['errors']} errors in {sum(map(sum, matrix)):,} digits; by class: {by_class}")
    print(f"figures and metrics.json: {shown(folder)}")


if __name__ == "__main__":
    utils.run_script(main)
