"""Is it luck? One recipe, several seeds: mean and deviation.

python -m experiments.seeds                            Record/seeds.json
python -m experiments.seeds --plain                    Record/study/seeds-adam-plain.json, by model.py itself
python -m experiments.seeds --recipe 1998              Record/study/seeds-1998.json and seeds-1998.png, figure 5

Goes on where it stopped. A seed whose checkpoint lies in the recipe's record folder is not trained again, unless
--plain asks for the other path.
"""

import json
import statistics
from pathlib import Path

import torch
from tqdm import tqdm

import plots
import utils
from ClassifyTask_train import RECIPES, train

SEEDS = [0, 1, 2, 3, 4]
DATA = Path("data")


def main():
    parser = utils.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=RECIPES, default="adam")
    parser.add_argument("--seeds", type=utils.seed, nargs="+", default=SEEDS, metavar="N")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plain", action="store_true", help="the readable path of model.py, not the fast one")
    args = parser.parse_args()
    device = utils.pick_device(args.device)
    dataset = utils.find_dataset("mnist", DATA)
    sets = [[t.to(device) for t in utils.load_dataset(dataset, DATA, subset)] for subset in ("train", "test")]
    name = f"seeds-{args.recipe}" + "-plain" * args.plain
    path = utils.RECORD / ("seeds.json" if name == "seeds-adam" else f"study/{name}.json")
    recipe = {"name": args.recipe, **RECIPES[args.recipe]}
    for seed in args.seeds:
        if seed in [run["seed"] for run in runs_in(path, recipe)]:
            continue
        settings = {"recipe": recipe, "dataset": dataset, "seed": seed}
        checkpoint = (None if args.plain else reference(settings)) or run_seed(settings, *sets, args.plain)
        run = result(checkpoint, *sets)
        runs = sorted([*runs_in(path, recipe), run], key=lambda run: run["seed"])
        utils.save_json(path, {"command": command(args), "recipe": recipe, "runs": runs, **summary(runs)})
        print(json.dumps({key: value for key, value in run.items() if key != "history"}))
    runs = runs_in(path, recipe)
    if name == "seeds-1998":
        figure_5(path.with_suffix(".png"), runs)
    for name, key in (("", "mean"), ("last ", "last_mean")):
        totals = summary(runs)
        print(f"{len(runs)} seeds, {name}accuracy {totals[key]:.2%} ± {totals[key.replace('mean', 'deviation')]:.2%}")


def command(args) -> str:
    flags = f" --recipe {args.recipe}" * (args.recipe != "adam") + " --plain" * args.plain
    return "python -m experiments.seeds" + flags


def runs_in(path: Path, recipe: dict) -> list[dict]:
    """The runs of this recipe that are done already; raises UserError if the file is another recipe's."""
    study = utils.read_study(path)
    if study["runs"] and study.get("recipe") != recipe:
        raise utils.UserError(f"{path} holds runs of another recipe than now; move it away to start anew")
    return study["runs"]


def reference(settings: dict) -> dict | None:
    """The finished checkpoint of exactly this run in its record folder, if there is one."""
    path = utils.record_dir(settings["recipe"]["name"], settings["dataset"]) / "LeNet5.pt"
    if not path.exists():
        return None
    checkpoint = utils.load_checkpoint(path)
    same = all(checkpoint[key] == value for key, value in settings.items())
    return checkpoint if same and checkpoint["epoch"] == settings["recipe"]["epochs"] else None


def run_seed(settings: dict, train_set, test_set, plain: bool) -> dict:
    """Train with one seed; returns the last checkpoint."""
    epochs = train(settings, train_set, test_set, plain=plain)
    return list(tqdm(epochs, total=settings["recipe"]["epochs"], unit="epoch", disable=None))[-1]


def result(checkpoint: dict, train_set, test_set) -> dict:
    """What a run came to: accuracies on the test set and the whole training set, seconds, each epoch's figures."""
    return {
        "seed": checkpoint["seed"],
        "accuracy": utils.accuracy(checkpoint, "model", test_set),
        "last_accuracy": utils.accuracy(checkpoint, "last", test_set),
        "seconds": sum(epoch["seconds"] for epoch in checkpoint["history"]),
        "training_accuracy": utils.accuracy(checkpoint, "last", train_set),
        "history": checkpoint["history"],
    }


def summary(runs: list[dict]) -> dict[str, float]:
    """Means and sample standard deviations."""
    totals = {}
    for name, key in (("", "accuracy"), ("last_", "last_accuracy"), ("training_", "training_accuracy")):
        values = [run[key] for run in runs]
        totals[f"{name}mean"] = statistics.mean(values)
        totals[f"{name}deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return totals


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
        errors = torch.tensor([[100 - 100 * epoch[key] for epoch in run["history"]] for run in runs])
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
