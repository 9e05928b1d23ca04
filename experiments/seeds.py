"""Is it luck? One recipe, several seeds: mean and deviation.

python -m experiments.seeds                            Record/seeds.json
python -m experiments.seeds --plain                    Record/study/seeds-adam-plain.json, by model.py itself
python -m experiments.seeds --recipe 1998              Record/study/seeds-1998.json and seeds-1998.png, figure 5

Goes on where it stopped. A seed whose checkpoint lies in the recipe's record folder is not trained again, unless
--plain asks for the other path. Seeds are trained side by side, one a core; the bits are the same one by one.
"""

import functools
from pathlib import Path

import torch

import checkpoint
import mnist
import plots
import utils
from checkpoint import Checkpoint
from experiments.study import Study, arguments, mean_and_deviation
from recipes import RECIPES, Recipe, record_dir
from training import train

SEEDS = [0, 1, 2, 3, 4]


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=RECIPES, default="adam")
    parser.add_argument("--seeds", type=utils.seed, nargs="+", default=SEEDS, metavar="N")
    parser.add_argument("--plain", action="store_true", help="let model.py itself take the steps: slower")
    parser.add_argument("--device", default="auto", help="cuda if there is one, else cpu; or any torch device")
    args = parser.parse_args()
    jobs = args.jobs if utils.pick_device(args.device).type == "cpu" else 1
    mnist.find_dataset("mnist", args.data_dir)
    recipe = RECIPES[args.recipe]
    name = f"seeds-{args.recipe}" + "-plain" * args.plain
    path = utils.RECORD / ("seeds.json" if name == "seeds-adam" else f"study/{name}.json")
    flags = f" --recipe {args.recipe}" * (args.recipe != "adam") + " --plain" * args.plain
    study = Study(path, f"python -m experiments.seeds{flags}", mean_and_deviation, recipe=recipe.to_json())
    work = functools.partial(measure, recipe, args.plain, args.data_dir, args.device)
    study.finish([{"seed": seed} for seed in args.seeds], work, jobs)
    if name == "seeds-1998":
        figure_5(path.with_suffix(".png"), study.runs)
    totals = mean_and_deviation(study.runs)
    for title, prefix in ("", ""), ("last ", "last_"):
        mean, deviation = totals[f"{prefix}mean"], totals[f"{prefix}deviation"]
        print(f"{len(study.runs)} seeds, {title}accuracy {mean:.2%} ± {deviation:.2%}")


def measure(recipe: Recipe, plain: bool, data_dir: Path, device: str, task: dict) -> dict:
    """Train with the task's seed: accuracies on the test set and the whole training set, seconds, each epoch's row."""
    device = utils.pick_device(device)
    train_set, test_set = (
        [tensor.to(device) for tensor in mnist.load_dataset("mnist", data_dir, subset)] for subset in ("train", "test")
    )
    trained = None if plain else reference(recipe, task["seed"])
    if not trained:
        for trained in train(recipe, "mnist", task["seed"], train_set, test_set, plain=plain):  # noqa: B007
            pass
    reported, last = (checkpoint.network(trained, weights).to(device) for weights in ("reported", "last"))
    return {
        "accuracy": utils.accuracy(reported, *test_set),
        "last_accuracy": utils.accuracy(last, *test_set),
        "seconds": sum(row["seconds"] for row in trained.history),
        "training_accuracy": utils.accuracy(last, *train_set),
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


@plots.style()
def figure_5(path: Path, runs: list[dict]):
    """Errors against passes, the mean and range over seeds, beside what the paper's text and figure 5 give."""
    subtitle = f"recipe 1998 on MNIST: lines are means of {len(runs)} seeds, bands their range"
    figure = plots.new_figure("The paper's figure 5, repeated", subtitle, height=4.2)
    axes = figure.subplots()
    for key, colour, marker, label in (
        ("train_accuracy", plots.BLUE, "s", "training set, while it is trained on"),
        ("test_accuracy", plots.VERMILLION, "o", "test set"),
    ):
        errors = torch.tensor([[100 - 100 * row[key] for row in run["history"]] for run in runs])
        passes = range(1, errors.shape[1] + 1)
        axes.plot(passes, errors.mean(0), marker=marker, color=colour, label=label)
        axes.fill_between(passes, errors.amin(0), errors.amax(0), color=colour, alpha=0.2, linewidth=0)
    axes.axhline(0.95, color=plots.VERMILLION, linestyle=":", label="paper: test set, 0.95 %")
    axes.plot(
        19, 0.35, "x", color=plots.BLUE, markersize=9, markeredgewidth=2, label="paper: training set, 0.35 % after 19"
    )
    axes.set(
        xlabel="passes through the training set", ylabel="error (%)", ylim=(0, 4), xlim=(0.5, errors.shape[1] + 0.5)
    )
    axes.set_xticks(range(2, errors.shape[1] + 1, 2))
    axes.legend()
    plots.save(figure, path)


if __name__ == "__main__":
    utils.run_script(main)
