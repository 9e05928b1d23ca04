"""Is it luck? One recipe, several seeds: mean and deviation.

python -m experiments.seeds                            Record/seeds.json
python -m experiments.seeds --no-distort               Record/study/seeds-undistorted.json
python -m experiments.seeds --recipe best              Record/study/seeds-best.json
python -m experiments.seeds --recipe 1998              Record/study/seeds-1998.json
python -m experiments.seeds --recipe 1998 --distort    Record/study/seeds-1998-distorted.json
--plain besides                                        ...-plain.json, by model.py itself

Goes on where it stopped. A seed whose checkpoint lies in the recipe's record folder is not trained again, unless
--plain asks for the other path. Seeds are trained side by side, one a core; the bits are the same one by one.
"""

import functools
from argparse import BooleanOptionalAction
from pathlib import Path

import checkpoint
import mnist
import utils
from checkpoint import Checkpoint
from experiments.study import COMPARED, Study, arguments, mean_and_deviation, seeds_of, seeds_path
from model import pad
from recipes import RECIPES, Recipe, record_dir
from training import train

SEEDS = [0, 1, 2, 3, 4]


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=RECIPES, default="adam")
    parser.add_argument("--distort", action=BooleanOptionalAction, help="default: the recipe's")
    parser.add_argument("--seeds", type=utils.seed, nargs="+", default=SEEDS, metavar="N")
    parser.add_argument("--plain", action="store_true", help="let model.py itself take the steps: slower")
    parser.add_argument("--device", default="auto", help="cuda if there is one, else cpu; or any torch device")
    args = parser.parse_args()
    jobs = args.jobs if utils.pick_device(args.device).type == "cpu" else 1
    mnist.find_dataset("mnist", args.data_dir)
    recipe = RECIPES[args.recipe].override(distort=args.distort)
    study = Study(
        seeds_path(recipe, args.plain), command(recipe, args.plain), mean_and_deviation, recipe=recipe.to_json()
    )
    work = functools.partial(measure, recipe, args.plain, args.data_dir, args.device)
    study.finish([{"seed": seed} for seed in args.seeds], work, jobs)
    totals = mean_and_deviation(study.runs)
    for title, prefix in ("", ""), ("last ", "last_"):
        mean, deviation = totals[f"{prefix}mean"], totals[f"{prefix}deviation"]
        print(f"{len(study.runs)} seeds, {title}accuracy {mean:.2%} ± {deviation:.2%}")


def command(recipe: Recipe, plain: bool) -> str:
    """What makes the file of this recipe anew."""
    words = ["python -m experiments.seeds"]
    if recipe.name != "adam":
        words.append(f"--recipe {recipe.name}")
    if recipe.distort != RECIPES[recipe.name].distort:
        words.append("--distort" if recipe.distort else "--no-distort")
    return " ".join(words + ["--plain"] * plain)


def tables() -> dict[str, str]:
    """What docs/study.md shows of all files, in Markdown: errors in %, mean ± deviation."""
    lines = ["| training | seeds | test error, % | last weights, % | seconds |", "|---|---:|---:|---:|---:|"]
    for name in COMPARED:
        runs = seeds_of(name)
        row = mean_and_deviation(runs)
        errors = [f"{100 - 100 * row[p + 'mean']:.2f} ± {100 * row[p + 'deviation']:.2f}" for p in ("", "last_")]
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        lines.append(f"| {name} | {len(runs)} | {' | '.join(errors)} | {seconds:.0f} |")
    return {"results": "\n".join(lines)}


def measure(recipe: Recipe, plain: bool, data_dir: Path, device: str, task: dict) -> dict:
    """Train with the task's seed: accuracies on the test set and the whole training set, the test digits misread (their
    numbers), seconds, each epoch's row."""
    device = utils.pick_device(device)
    train_set, (images, labels) = (
        [tensor.to(device) for tensor in mnist.load_dataset("mnist", data_dir, subset)] for subset in ("train", "test")
    )
    trained = None if plain else reference(recipe, task["seed"])
    if not trained:
        for trained in train(recipe, "mnist", task["seed"], train_set, (images, labels), plain=plain):  # noqa: B007
            pass
    reported, last = (checkpoint.network(trained, weights).to(device) for weights in ("reported", "last"))
    wrong = utils.class_scores(reported, pad(images)).argmax(1) != labels
    return {
        "accuracy": utils.accuracy(reported, images, labels),
        "last_accuracy": utils.accuracy(last, images, labels),
        "seconds": sum(row["seconds"] for row in trained.history),
        "training_accuracy": utils.accuracy(last, *train_set),
        "misread": wrong.nonzero().flatten().tolist(),
        "history": trained.history,
    }


def reference(recipe: Recipe, seed: int) -> Checkpoint | None:
    """The finished checkpoint of exactly this run in its record folder, if there is one."""
    path = record_dir(recipe, "mnist") / checkpoint.FILE
    if not path.exists():
        return None
    found = checkpoint.load(path)
    same = (found.recipe, found.seed, found.dataset) == (recipe, seed, "mnist") and found.finished
    return found if same else None


if __name__ == "__main__":
    utils.run_script(main)
