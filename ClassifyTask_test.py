"""Test LeNet-5: a checkpoint in, its accuracy, metrics and figures out.

python ClassifyTask_test.py                   the checkpoint of ClassifyTask_train.py, figures into the same folder
python ClassifyTask_test.py --recipe 1998     that of ClassifyTask_train.py --recipe 1998
"""

import math
from pathlib import Path

import numpy as np
import sklearn
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

import plots
import utils
from ClassifyTask_train import RECIPES
from model import layer_table, map_loss, pad
from utils import UserError


def main():
    parser = utils.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: LeNet5.pt in the record folder")
    parser.add_argument("--weights", choices=("model", "last"), default="model", help="default: model, those reported")
    parser.add_argument("--recipe", choices=RECIPES, default="adam", help="whose record folder")
    parser.add_argument("--dataset", choices=("auto", "mnist", "digits"), default="auto", help="whose record folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    parser.add_argument(
        "--record-dir", type=Path, metavar="DIR", help="where figures are written and LeNet5.pt is looked for"
    )
    parser.add_argument("--device", default="auto", help="cuda if there is one, else cpu; or any torch device")
    args = parser.parse_args()

    device = utils.pick_device(args.device)
    if args.checkpoint:
        folder = args.record_dir or args.checkpoint.parent
    else:
        folder = args.record_dir or utils.record_dir(args.recipe, utils.find_dataset(args.dataset, args.data_dir))
    path = args.checkpoint or folder / "LeNet5.pt"
    checkpoint = utils.load_checkpoint(path)
    dataset = checkpoint["dataset"]
    if args.dataset not in ("auto", dataset):
        raise UserError(
            f"{path} was trained on {dataset}, not {args.dataset}; leave --dataset out to test it on {dataset}"
        )
    test_set = images, labels = [tensor.to(device) for tensor in utils.load_dataset(dataset, args.data_dir, "test")]

    model = utils.load_model(checkpoint, args.weights).to(device)
    scores = utils.class_scores(model, pad(images))
    predicted = scores.argmax(1)
    errors = int((predicted != labels).sum())
    matrix = confusion_matrix(labels.cpu(), predicted.cpu(), labels=range(10))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels.cpu(), predicted.cpu(), labels=range(10), zero_division=0
    )
    by_class = "  ".join(f"{digit}: {row.sum() - row[digit]}" for digit, row in enumerate(matrix))
    low, high = wilson_interval(len(labels) - errors, len(labels))
    metrics = {
        "accuracy": 1 - errors / len(labels),
        "interval": [low, high],
        "last_accuracy": utils.accuracy(checkpoint, "last", test_set),
        "loss": map_loss(scores, labels, checkpoint["recipe"]["j"]).mean().item(),
        "errors": errors,
        "classes": [
            {"precision": p, "recall": r, "f1": f, "support": int(s)}
            for p, r, f, s in zip(precision, recall, f1, support)
        ],
        "confusion_matrix": matrix.tolist(),
        "weights": args.weights,
        "dataset": dataset,
        "recipe": checkpoint["recipe"],
        "seed": checkpoint["seed"],
        "device": str(device),
        "versions": {**utils.versions(), "scikit-learn": sklearn.__version__},
    }
    with utils.sole_writer(folder / "metrics.json"), utils.whole_files(folder / "metrics.json") as temporary:
        utils.save_json(temporary / "metrics.json", metrics)
        draw(temporary, checkpoint, model, images, labels, scores, matrix)

    print(f"LeNet-5 on {dataset}, {path}, weights: {args.weights}")
    print(f"accuracy {metrics['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}")
    print(f"{errors} errors in {len(labels):,} digits; by class: {by_class}")
    print(f"figures and metrics.json: {folder}")


def wilson_interval(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion: where the true accuracy lies, given `right` of `count` answers."""
    share, spread = right / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return centre - half, centre + half


def draw(folder: Path, checkpoint: dict, model, images, labels, scores, matrix):
    """Write the five figures."""
    where = "MNIST" if checkpoint["dataset"] == "mnist" else "scikit-learn's digits, NOT MNIST"
    images, labels = images.cpu().numpy(), labels.cpu().numpy()
    predicted, probability = scores.argmax(1).cpu().numpy(), scores.softmax(1).amax(1).cpu().numpy()
    plots.training_curve(folder / "training_curve.png", checkpoint["history"], f"Training on {where}")
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
    plots.architecture(folder / "lenet.png", layer_table(model.cpu()))


if __name__ == "__main__":
    utils.run_script(main)
