"""What the paper leaves open of its training method, narrowed by evidence: three judges, none of them the test set.

python -m experiments left_open

Each setting is trained once on 55,000 digits and judged on the other 5,000. The 20 best are trained on all 60,000 as
well, their training error laid over the paper's curve (figure 5); the five best of these from five seeds, both ways,
and so are those that agree with all three judges.
"""

import dataclasses
import statistics
from pathlib import Path

from digits import mnist
from digits.mnist import Data
from experiments import results
from experiments.runner import Context, Experiment
from figures import plots
from training import loop
from training.recipes import RECIPES, Recipe
from utils import UserError

STEPS = (7e-5, 1.6e-2)  # the paper's smallest and largest effective step in the first pass (section III.A)
CURVE = [error / 100 for error in results.PAPER["figure 5"]["training"]]
KEPT, REPEATED, SEEDS = 20, 5, (0, 1, 2, 3, 4)
AGREES = {"curve": 0.002, "steps": 2.0}  # at most this far from every point of the curve; within this factor

# How weights start: bound, coefficient of S2 and S4, whether biases start at 0.
STARTS = {
    "drawn": ("1/sqrt(F)", 1.0, False),
    "authors'": ("1/sqrt(F)", 0.5, True),  # of the authors' own simulator
    "coefficient 1/2": ("1/sqrt(F)", 0.5, False),
    "biases 0": ("1/sqrt(F)", 1.0, True),
    "2.4/F": ("2.4/F", 1.0, False),
    "2.4/F, coefficient 1/4": ("2.4/F", 0.25, False),
}


def setting(start: str, distance: float, factor: float, **changes) -> tuple[str, Recipe]:
    """The name and the recipe of one setting: start of the weights, factor of the distance, factor of the loss."""
    bound, coefficient, zero_biases = STARTS[start]
    recipe = dataclasses.replace(
        RECIPES["1998"],
        model_arguments={"output": "rbf", "rbf_factor": distance},
        factor=factor,
        constant_order=True,
        augment=False,
        loss="eq. 9",
        j=1.0,
        f6_curvature=None,
        initialization={"bound": bound, "coefficient": coefficient, "zero_biases": zero_biases},
    )
    more = "".join(f", {key.replace('_', ' ')} {value}" for key, value in changes.items())
    changes |= {"j": None} if changes.get("loss") == "eq. 8" else {}
    return f"{start}, distance {distance:g}, loss {factor:g}{more}", dataclasses.replace(recipe, **changes)


def settings() -> dict[str, Recipe]:
    """Everything that is tried, by name."""
    most = [("drawn", 1.0, 0.1), ("drawn", 0.5, 0.1), ("authors'", 0.5, 0.3), ("authors'", 0.5, 0.5)]
    found = [
        setting(start, distance, factor)
        for factor in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
        for start in ("drawn", "authors'")
        for distance in (1.0, 0.5)
    ]
    found += [
        setting(start, distance, factor)
        for distance, factor in ((0.2, 0.3), (0.2, 1.0), (0.05, 0.5), (0.05, 1.0))
        for start in ("drawn", "authors'")
    ]
    found += [
        setting(start, distance, factor)
        for start in ("coefficient 1/2", "biases 0", "2.4/F", "2.4/F, coefficient 1/4")
        for distance, factor in ((1.0, 0.1), (0.5, 0.1), (0.5, 0.3))
    ]
    found += [setting(*one, j=j) for one in most[1:3] for j in (0.0, 5.0, 20.0, 100.0)]
    found += [setting(*one, loss="eq. 8") for one in most[1:3]]
    found += [setting(*one, constant_order=False) for one in most]
    found += [setting(*one, f6_curvature=1.0) for one in most]
    found += [setting(*one, f6_curvature=0.1) for one in most[:2]]
    for factor in (0.3, 0.5, 0.7):  # as the authors' simulator throughout: the second derivative at F6 is 1 there
        found += [setting("authors'", 0.5, factor, f6_curvature=1.0, j=j) for j in (0.0, *[1.0] * (factor == 0.7))]
    # Around the one that came nearest to the paper's steps: drawn, distance 1, loss 0.1, f6 curvature 1.
    found += [setting("drawn", 1.0, 0.1, f6_curvature=curvature) for curvature in (0.5, 0.7)]
    found += [setting("drawn", 0.5, 0.2, f6_curvature=curvature) for curvature in (0.7, 1.0)]
    found += [setting("drawn", 1.0, 0.15, f6_curvature=1.0), setting("drawn", 1.0, 0.1, f6_curvature=0.7, j=0.0)]
    found += [setting(start, 1.0, 0.1, f6_curvature=0.7) for start in ("coefficient 1/2", "authors'")]
    return dict(found)


SETTINGS = settings()


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    """All settings; then the best of them on all digits; then the best of these from more seeds, both ways."""
    tried = dict(list(SETTINGS.items())[: 6 if context.tiny else None])
    recipes = {name: context.shorten(recipe).to_json() for name, recipe in tried.items()}

    def task(name: str, digits: str, seed: int) -> dict:
        return {"variant": name, "digits": digits, "seed": seed, "recipe": recipes[name]}

    found = [task(name, "without validation", 0) for name in tried]
    first = [run for run in runs if run["digits"] == "without validation" and run["seed"] == 0]
    if len(first) < len(tried):
        return found
    best = ranked(first)[: 3 if context.tiny else KEPT]
    found += [task(name, "all", 0) for name in best]
    curves = [run for run in runs if run["digits"] == "all" and run["seed"] == 0 and run["variant"] in best]
    if len(curves) < len(best):
        return found
    repeated = ranked([{**run, "accuracy": accuracy_of(run, first)} for run in curves])
    judged = summarize(context, first + curves)["settings"]
    chosen = dict.fromkeys([*repeated[:REPEATED], *(name for name in repeated if len(judged[name]["agrees"]) == 3)])
    seeds = SEEDS[1 : 2 if context.tiny else None]
    ways = ("without validation", "all")
    return found + [task(name, way, seed) for seed in seeds for name in chosen for way in ways]


def accuracy_of(run: dict, others: list[dict]) -> float:
    return next(other["accuracy"] for other in others if other["variant"] == run["variant"])


def ranked(runs: list[dict]) -> list[str]:
    """The settings that did not diverge, by the sum of their places by validation error and by the training curve."""
    runs = [run for run in runs if run["accuracy"] is not None]
    orders = [sorted(runs, key=lambda run: -run["accuracy"]), sorted(runs, key=lambda run: away(run["training"]))]
    places = {run["variant"]: [order.index(run) for order in orders] for run in runs}
    return sorted(places, key=lambda name: (sum(places[name]), places[name]))


def away(training: list[float], shift: int = 0) -> float:
    """How far a curve of training errors, pass by pass, is from the paper's where it is farthest.

    Point k of the paper's 21 is taken for pass k, or with a shift of 1 for pass k - 1.
    """
    return max(abs(ours - theirs) for ours, theirs in zip(training, CURVE[shift:]))


def measure(context: Context, task: dict) -> dict:
    """Train: the accuracy on the validation set, the training error of each pass, the range of steps in the first."""
    data = context.validation() if task["digits"] == "without validation" else all_digits(context)
    try:
        *_, trained = loop.train(Recipe.from_json(task["recipe"]), data, task["seed"])
    except UserError:
        return {"accuracy": None}
    rows = trained.history
    return {
        "accuracy": rows[-1]["test_accuracy"] if task["digits"] == "without validation" else None,
        "training": [1 - row["train_accuracy"] for row in rows],
        "steps": rows[0]["step_range"],
        "seconds": sum(row["seconds"] for row in rows),
    }


def all_digits(context: Context) -> Data:
    """All training digits; those that the loop tests after each pass are 100 of them, and no judge."""
    images, labels = mnist.load_dataset(context.dataset, context.data_dir, "train")
    return Data(context.dataset, (images, labels), (images[:100], labels[:100]))


def summarize(context: Context, runs: list[dict]) -> dict:
    """What each setting has to show to the judges: means over its seeds, and the judges it agrees with."""
    rows = {}
    for name, own in results.group(runs).items():
        ways = results.group(own, "digits")
        validated, whole = ways.get("without validation", []), ways.get("all", [])
        finished = [run for run in whole or validated if "training" in run]
        row = {"seeds": len(validated), "diverged": sum("training" not in run for run in own)}
        if finished and not row["diverged"]:
            curve = [statistics.mean(errors) for errors in zip(*(run["training"] for run in finished))]
            factor = own[0]["recipe"]["factor"]
            row |= results.mean_and_deviation(validated)
            row |= {"digits": "all" if whole else "without validation", "training": curve}
            row |= {"away": away(curve), "away_shifted": away(curve, 1)}
            least, most = (statistics.mean(run["steps"][i] for run in finished) for i in (0, 1))
            row |= {"least": least, "most": most}
            row |= {"unscaled_least": factor * least, "unscaled_most": factor * most}
        rows[name] = row
    judged = {name: {**row, "agrees": judges(row, rows)} for name, row in rows.items()}
    return {"settings": judged}


def steps_agree(least: float, most: float, factor: float) -> bool:
    """Whether a range of steps agrees with the paper's, of the loss as it is or without its factor."""
    ranges = [(least, most), (factor * least, factor * most)]
    return any(all(1 / AGREES["steps"] <= a / b <= AGREES["steps"] for a, b in zip(own, STEPS)) for own in ranges)


def judges(row: dict, rows: dict[str, dict]) -> list[str]:
    """The judges that a setting agrees with: as good on the validation set as the best from as many seeds, as far as
    5,000 digits tell; near the paper's training curve at every pass; its range of steps, of the scaled or the unscaled
    loss."""
    if "mean" not in row:
        return []
    best = max(other["mean"] for other in rows.values() if "mean" in other and other["seeds"] == row["seeds"])
    noise = (2 * best * (1 - best) / 5000) ** 0.5
    near = steps_agree(row["least"], row["most"], row["unscaled_most"] / row["most"])
    told = {"validation": best - row["mean"] <= noise, "curve": row["away"] <= AGREES["curve"], "steps": near}
    return [judge for judge, agrees in told.items() if agrees]


def tables(content: dict) -> dict[str, str]:
    header = ["weights, factors, and what differs", "seeds", "validation error, %", "training error at the end, %"]
    header += ["farthest from the paper's curve, %", "steps of pass 1", "on the loss without factor", "agrees with"]
    rows = []
    for name, row in by_rank(content["settings"]):
        if "mean" not in row:
            rows.append([name, row["seeds"], "diverged", *[""] * 5])
            continue
        ranges = [f"{row[p + 'least']:.1e} to {row[p + 'most']:.1e}" for p in ("", "unscaled_")]
        curve = [f"{100 * row['training'][-1]:.2f}", f"{100 * row['away']:.2f}"]
        rows.append([name, row["seeds"], results.error(row), *curve, *ranges, ", ".join(row["agrees"]) or "none"])
    return {"results": results.markdown(header, rows), "best": results.markdown(header, [r for r in rows if r[1] > 1])}


def by_rank(settings: dict[str, dict]) -> list[tuple[str, dict]]:
    """The settings trained on all digits first, then by the seeds, then by validation error."""

    def key(item):
        row = item[1]
        return "mean" not in row, row.get("digits") != "all", -row["seeds"], -row.get("mean", 0)

    return sorted(settings.items(), key=key)


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """Each setting's two errors: on the validation set, and its distance from the paper's training curve."""
    subtitle = "a dot a setting, large: five seeds; dotted: 0.20 % from the curve; without those far off"
    figure = plots.new_figure("What the paper leaves open, before three judges", subtitle, height=5)
    axes = figure.subplots()
    faces = ("white", plots.LIGHT, plots.INK, plots.HUES["1998"])
    for row in sorted(content["settings"].values(), key=lambda row: (row["seeds"], len(row["agrees"]))):
        if "mean" in row:
            look = {"color": plots.INK, "markerfacecolor": faces[len(row["agrees"])]}
            size = 13 if row["seeds"] > 1 else 7
            axes.plot(100 - 100 * row["mean"], 100 * row["away"], "o", markersize=size, **look)
    for count, face in enumerate(faces):
        look = {"color": plots.INK, "markerfacecolor": face, "markersize": 10}
        axes.plot([], [], "o", label=f"agrees with {count or 'no'} judge{'s' * (count != 1)}", **look)
    axes.axhline(100 * AGREES["curve"], color=plots.INK, linestyle=":")
    axes.set(xlabel="validation error (%)", ylabel="farthest from the paper's curve (%)")
    axes.set(xlim=(0.65, 1.35), yscale="log", ylim=(0.12, 4), yticks=[0.2, 0.5, 1, 2], yticklabels=[0.2, 0.5, 1, 2])
    axes.minorticks_off()
    axes.legend(loc="upper left")
    plots.save(figure, path)


EXPERIMENT = Experiment(
    tables=tables, summarize=summarize, tasks=tasks, measure=measure, draw=draw, seeds=(), seconds=110
)
