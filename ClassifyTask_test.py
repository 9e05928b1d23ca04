"""Test LeNet-5: a checkpoint in, its accuracy, metrics and figures out.

python ClassifyTask_test.py                   the checkpoint of ClassifyTask_train.py, figures into the same folder
python ClassifyTask_test.py --recipe 1998     that of ClassifyTask_train.py --recipe 1998
"""

import math
from argparse import BooleanOptionalAction
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

import checkpoint
import diagrams
import mnist
import plots
import utils
from checkpoint import Checkpoint
from model import LeNet5, layer_table, pad
from recipes import RECIPES, record_dir
from utils import UserError


def main():
    args = parse_arguments()
    device = utils.pick_device(args.device)
    if args.checkpoint:
        folder = args.record_dir or args.checkpoint.parent
    else:
        dataset = mnist.find_dataset(args.dataset, args.data_dir)
        folder = args.record_dir or record_dir(RECIPES[args.recipe].override(distort=args.distort), dataset)
    path = args.checkpoint or folder / checkpoint.FILE
    trained = checkpoint.load(path)
    if trained.recipe.loss == "ctc":
        raise UserError(f"{path} reads whole numbers, and is tested by python -m experiments.numbers; name another")
    if args.dataset not in ("auto", trained.dataset):
        raise UserError(
            f"{path} was trained on {trained.dataset}, not {args.dataset}; leave --dataset out to test it on "
            f"{trained.dataset}"
        )
    images, labels = (tensor.to(device) for tensor in mnist.load_dataset(trained.dataset, args.data_dir, "test"))
    model = checkpoint.network(trained, args.weights).to(device)
    scores = utils.class_scores(model, pad(images))
    metrics = {
        **measure(scores, labels),
        "last_accuracy": utils.accuracy(checkpoint.network(trained, "last").to(device), images, labels),
        "loss": trained.recipe.losses(scores, labels).mean().item(),
        "weights": args.weights,
        "dataset": trained.dataset,
        "recipe": trained.recipe.to_json(),
        "seed": trained.seed,
        "device": str(device),
        "versions": {**utils.versions(device), "scikit-learn": sklearn.__version__},
    }
    with utils.sole_writer(folder / "metrics.json"), utils.whole_files(folder / "metrics.json") as temporary:
        utils.save_json(temporary / "metrics.json", metrics)
        draw(temporary, trained, model, images, labels, scores, np.array(metrics["confusion_matrix"]))
    report(path, folder, metrics)


def parse_arguments():
    parser = utils.Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help=f"default: {checkpoint.FILE} in the record folder"
    )
    parser.add_argument("--weights", choices=("reported", "last"), default="reported", help="default: reported")
    parser.add_argument("--recipe", choices=RECIPES, default="adam", help="whose record folder")
    parser.add_argument("--dataset", choices=("auto", "mnist", "digits"), default="auto", help="whose record folder")
    parser.add_argument("--distort", action=BooleanOptionalAction, help="whose record folder; default: the recipe's")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    parser.add_argument(
        "--record-dir", type=Path, metavar="DIR", help="where the checkpoint is looked for and figures are written"
    )
    parser.add_argument("--device", default="auto", help="cuda if there is one, else cpu; or any torch device")
    return parser.parse_args()


def measure(scores: torch.Tensor, labels: torch.Tensor) -> dict:
    """What scores (N, 10) come to, given the labels (N,)."""
    labels, predicted = labels.cpu(), scores.argmax(1).cpu()
    right, count = int((predicted == labels).sum()), len(labels)
    columns = precision_recall_fscore_support(labels, predicted, labels=range(10), zero_division=0)
    return {
        "accuracy": right / count,
        "interval": wilson_interval(right, count),
        "errors": count - right,
        "classes": [
            {"precision": p, "recall": r, "f1": f, "support": int(support)} for p, r, f, support in zip(*columns)
        ],
        "confusion_matrix": confusion_matrix(labels, predicted, labels=range(10)).tolist(),
    }


def wilson_interval(right: int, count: int, z: float = 1.96) -> list[float]:
    """Wilson's 95 % interval of a proportion: where the true accuracy lies, given `right` of `count` answers."""
    share, spread = right / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return [centre - half, centre + half]


def draw(folder: Path, trained: Checkpoint, model: LeNet5, images, labels, scores, matrix: np.ndarray):
    """Write the five figures."""
    where = "MNIST" if trained.dataset == "mnist" else "scikit-learn's digits, NOT MNIST"
    images, labels = images.cpu().numpy(), labels.cpu().numpy()
    predicted, probability = scores.argmax(1).cpu().numpy(), scores.softmax(1).amax(1).cpu().numpy()
    digits = ", its training digits distorted" if trained.recipe.distort else ""
    plots.training_curve(folder / "training_curve.png", trained.history, f"Training on {where}{digits}")
    plots.confusion_matrix(folder / "ConfusionMatrix.png", matrix, f"Confusion matrix on {where}")
    shown = np.append(np.arange(84), 84 + np.flatnonzero(predicted[84:] != labels[84:])[:12])
    plots.predictions(
        folder / "Result_of_LeNet_Training.png",
        *(images[shown], labels[shown], predicted[shown]),
        f"{where}: the first 84 test digits, and the next 12 that are misread",
    )
    plots.misclassified(
        folder / "misclassified.png", images, labels, predicted, probability, f"The misread test digits of {where}"
    )
    diagrams.architecture(folder / "lenet.png", layer_table(model.cpu()))


def report(path: Path, folder: Path, metrics: dict):
    (low, high), matrix = metrics["interval"], metrics["confusion_matrix"]
    by_class = "  ".join(f"{digit}: {sum(row) - row[digit]}" for digit, row in enumerate(matrix))
    print(f"LeNet-5 on {metrics['dataset']}, {path}, weights: {metrics['weights']}")
    print(f"accuracy {metrics['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}")
    print(f"{metrics['errors']} errors in {sum(map(sum, matrix)):,} digits; by class: {by_class}")
    print(f"figures and metrics.json: {folder}")


if __name__ == "__main__":
    utils.run_script(main)
