"""From 1998 to today, one idea at a time: what each idea was worth, from recipe 1998 to recipe best.

python -m experiments ladder [ladder] [backwards] [side]     all three parts, or those named

ladder     Each step's recipe is the one before it with one idea more, ten seeds.
backwards  Recipe best with one idea taken away, three seeds.
side       What other repositories choose, one change of recipe default each, three seeds.

The recipes, and why they stand in this order, are in ladder_recipes.py. Where a step is a recipe of `seeds`, its
networks are those. The factor of the loss that two steps need is chosen on a validation set of 5,000 training digits;
the test set takes no part. Training errors are those of all training digits, not augmented, by the weights that are
tested. An interval is Welch's, of 95 %, for the difference of
two means. Seconds are those of `ladder_seconds`, which needs a quiet machine.
"""

import dataclasses
import itertools
import statistics
from pathlib import Path
from unittest.mock import patch

from scipy.stats import ttest_ind  # comes with scikit-learn

import utils
from digits.mnist import Data
from experiments import ladder_recipes, results, runner, seeds, validation
from experiments.ladder_recipes import BATCHES, BEFORE_BEST, FACTORS, FIRST, IS_BEST, IS_DEFAULT, LINEAR, Variant
from experiments.runner import Context, Experiment
from figures import plots
from model import LeNet5, pad
from training import loop, state, steps
from training.recipes import Recipe
from utils import UserError, shown

CHOICE_SEEDS, FEWER = (0, 1), 3  # of the factors; how many seeds of backwards and side
PAPER = {0.8: ("the paper, augmented: 0.8 %", "right"), 0.95: ("0.95 %: the paper", "left")}  # test errors, %


# ---------------------------------------------------------------------------------------------- the training runs


def parts(factors: dict[str, float]) -> dict[str, dict[str, Recipe]]:
    """The recipes of each part, by name; no ladder before its factors are chosen."""
    climbed = ladder_recipes.ladder(factors) if factors else {}
    return {"ladder": climbed, "backwards": ladder_recipes.backwards(), "side": ladder_recipes.side()}


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    """The choice of factors, where the ladder needs it; then everything else."""
    found = choice(context) if "ladder" in context.variants else []
    for part, own in parts(chosen(context, runs)).items():
        if part in context.variants:
            some = dataclasses.replace(context, seeds=context.seeds[: None if part == "ladder" else FEWER])
            found += [{"part": part, **task} for task in some.tasks(own)]
    return found


def choice(context: Context) -> list[dict]:
    """The two steps that need a factor, with each of them."""
    found = []
    for step, factor in itertools.product((LINEAR, BATCHES), FACTORS[: 2 if context.tiny else None]):
        recipe = ladder_recipes.ladder({LINEAR: factor, BATCHES: factor})[step]
        some = dataclasses.replace(context, seeds=CHOICE_SEEDS[: 1 if context.tiny else None])
        named = {"part": "factor", "step": step, "factor": factor}
        found += [{**named, **task} for task in some.tasks({f"{step}, factor {factor:g}": recipe})]
    return found


def chosen(context: Context, runs: list[dict]) -> dict[str, float]:
    """Of each of the two steps the factor with the least validation error; nothing as long as a run is missing."""
    wanted, best = choice(context), {}
    done = [run for run in runs if any(task.items() <= run.items() for task in wanted)]
    if len(done) < len(wanted):
        return {}
    for step, own in results.group(done, "step").items():
        tried = results.group(own, "factor")
        best[step] = max(tried, key=lambda factor: statistics.mean(run["accuracy"] or 0 for run in tried[factor]))
    return best


def runs_of(context: Context, runs: list[dict], part: str, name: str, recipe: Recipe) -> list[dict]:
    """The runs of a step by today's recipe; those with a factor that was chosen before are no longer its own."""
    wanted = {"part": part, "variant": name, "recipe": context.shorten(recipe).to_json()}
    return sorted((run for run in runs if wanted.items() <= run.items()), key=lambda run: run["seed"])


def measure(context: Context, task: dict) -> dict:
    """Train: accuracy on the test set and on all training digits; that on the validation set to choose a factor."""
    if task["part"] == "factor":
        return validation.train_and_validate(context, task)
    recipe, data = Recipe.from_json(task["recipe"]), context.load()
    if variant := variant_of_seeds(context, recipe):
        network = seeds.network(context, variant, task["seed"])
        return {"accuracy": utils.accuracy(network, *data.test), **of_training(network, data)}
    network = Variant(**recipe.model_arguments)
    try:
        with patch.object(state, "LeNet5", Variant):
            make_steps = loop.fastest if network.plain else steps.plain  # kernels.py knows LeNet5 alone
            *_, trained = loop.train(recipe, data, task["seed"], make_steps=make_steps)
    except UserError:
        return {"accuracy": None}
    network.load_state_dict(trained.tested, strict=False)
    if network.norms:
        utils.class_logits(network, pad(data.train[0]))  # the means and variances over all training digits
    network.eval()
    return {
        "accuracy": utils.accuracy(network, *data.test),
        **of_training(network, data),
        "seconds": sum(row["seconds"] for row in trained.history),
        "path": trained.history[-1]["path"],
    }


def variant_of_seeds(context: Context, recipe: Recipe) -> str | None:
    """The variant of `seeds` that has this recipe, by whatever name."""
    variants = {name: context.shorten(seeds.recipe_of(name)) for name in seeds.COMPARED}
    return next((name for name, own in variants.items() if own == dataclasses.replace(recipe, name=own.name)), None)


def of_training(network: LeNet5, data: Data) -> dict:
    """Its accuracy on the training digits, and the number of its parameters."""
    parameters = sum(p.numel() for p in network.parameters())
    return {"training_accuracy": utils.accuracy(network, *data.train), "parameters": parameters}


# ---------------------------------------------------------------------------------------------- what it comes to


def summarize(context: Context, runs: list[dict]) -> dict:
    """Errors of each part, and how they differ from those of the step before, or of best, or of default."""
    factors, quiet = chosen(context, runs), quiet_file(context)
    done = {
        part: {name: own for name, recipe in recipes.items() if (own := runs_of(context, runs, part, name, recipe))}
        for part, recipes in parts(factors).items()
    }
    climbed = done["ladder"]
    if BEFORE_BEST in climbed:
        done["backwards"][IS_BEST] = climbed[BEFORE_BEST]
    return {
        "factors": factors,
        "choice": results.by_variant([run for run in runs if run["part"] == "factor"]),
        "ladder": {name: row(own, base) for (name, own), base in zip(climbed.items(), [None, *climbed.values()])},
        "backwards": {name: row(own, climbed.get(IS_BEST)) for name, own in done["backwards"].items()},
        "side": {name: row(own, climbed.get(IS_DEFAULT)) for name, own in done["side"].items()},
        "quiet_seconds": runner.read(quiet)["variants"] if quiet else {},
    }


def row(own: list[dict], base: list[dict] | None) -> dict:
    """Means and deviations of some runs, and the difference of their error to that of others."""
    found = {"seeds": len(own), "diverged": sum(run["accuracy"] is None for run in own)}
    found |= results.mean_and_deviation(own)
    if values := [run["parameters"] for run in own if "parameters" in run]:
        found["parameters"] = values[0]
    both = [[1 - run["accuracy"] for run in runs if run["accuracy"] is not None] for runs in (own, base or [])]
    found["errors"] = both[0]
    if all(both):
        found["difference"] = statistics.mean(both[0]) - statistics.mean(both[1])
    if min(map(len, both)) > 1:
        found["interval"] = list(map(float, ttest_ind(*both, equal_var=False).confidence_interval()))
    return found


def quiet_file(context: Context) -> Path | None:
    """Where the seconds are: the user's own before the reference's."""
    own = context.folder / "ladder_seconds.json"
    files = [own] if context.tiny else [own, runner.folder(reference=True) / own.name]
    return next((file for file in files if file.exists()), None)


def notice(context: Context) -> str:
    path = quiet_file(context)
    return f"seconds of an epoch: those in {shown(path)}" if path else ""


def tables(content: dict) -> dict[str, str]:
    """Errors in %, mean ± deviation, and differences of errors, in points; the seconds of a quiet machine."""
    header = ["seeds", "test error, %", "training error, %", "difference", "95 % interval"]
    heads = {
        "ladder": ["step", *header, "seconds an epoch", "minutes"],
        "backwards": ["best without", *header],
        "side": ["default, but with", *header, "parameters"],
    }
    rows = {part: [[name, *cells(one)] for name, one in content[part].items()] for part in heads}
    for cell in rows["ladder"]:
        quiet = content["quiet_seconds"].get(cell[0])
        cell += [f"{quiet['epoch']:.1f}", f"{quiet['whole'] / 60:.1f}"] if quiet else ["", ""]
    for cell, one in zip(rows["side"], content["side"].values()):
        cell.append(f"{one['parameters']:,.0f}" if "parameters" in one else "")
    found = {part: results.markdown(head, rows[part]) for part, head in heads.items()}
    return found | {"factor": results.validation_table({"variants": content["choice"]})["results"]}


def cells(one: dict) -> list:
    """Seeds, errors and difference of a row."""
    if "mean" not in one:
        return [one["seeds"], "diverged", "", "", ""]
    some = f" ({one['diverged']} diverged)" if one["diverged"] else ""
    values = [one["difference"], *one.get("interval", [])] if "difference" in one else []
    first, *others = [f"{100 * value:+.2f}".replace("-", "−") for value in values] or [""]
    return [one["seeds"], results.error(one) + some, results.error(one, "training_"), first, " to ".join(others)]


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """Each step's errors, one row below the other: dots the seeds, a line through their means."""
    climbed = {name: one for name, one in content["ladder"].items() if "mean" in one}
    if not climbed:
        return
    figure = plots.new_figure("LeNet-5 from 1998 to today, one idea at a time", "", height=1.7 + 0.46 * len(climbed))
    for text, size in zip(figure.texts, (17, 13)):  # to be read in a small figure
        text.set_size(size)
    figure.texts[1].set(y=1 - 0.64 / figure.get_figheight(), text="test error: a dot a seed, a line through the means")
    axes, hues = figure.subplots(), {FIRST: plots.VERMILLION, IS_DEFAULT: plots.BLUE, IS_BEST: plots.GREEN}
    means = [100 - 100 * one["mean"] for one in climbed.values()]
    for i, (name, mean) in enumerate(zip(climbed, means)):
        hue, errors = hues.get(name, plots.GREY), [100 * error for error in climbed[name]["errors"]]
        axes.plot(errors, [i] * len(errors), "o", color=hue, alpha=0.5, markersize=6, markeredgewidth=0)
        axes.plot(mean, i, "o", color=hue, markersize=11, zorder=3)
        axes.text(1.02, i, f"{mean:.2f} %", va="center", color=hue, size=14, transform=axes.get_yaxis_transform())
    axes.plot(means, range(len(means)), color=plots.INK, linewidth=2, zorder=2)
    for error, (text, side) in PAPER.items():
        axes.axvline(error, color=plots.INK, linestyle=":")
        axes.text(error, -0.72, text, ha=side, size=12)
    titles = {FIRST: "1998", IS_DEFAULT: "+ augmentation = default", IS_BEST: "+ elastic = best"}
    axes.set_yticks(range(len(means)), [titles.get(name, f"+ {name}") for name in climbed])
    axes.tick_params(labelsize=13)
    axes.set_ylim(len(means) - 0.5, -0.6)
    axes.set_xlabel("test error (%)", size=13)
    plots.save(figure, path)


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    draw=draw,
    notice=notice,
    seeds=tuple(range(10)),
    variants=("ladder", "backwards", "side"),
    seconds=100,
)
