"""The paper's figure 10: the test digits to reject for 0.5 % error on the rest; and how right probabilities are.

A digit is rejected where the two best classes are too close, by the difference of their logits, or of the scores of
RBF units. LeNet-1, LeNet-4 and boosted LeNet-4 are the networks of `section_3`, the others those of `seeds`.

The probabilities are those that ClassifyTask_predict.py prints: softmax of the logits, or of the scores of RBF units.
Of the digits given 99 %, 99 % should be right. The expected calibration error says how far off that is: the mean, over
digits, of |share right - mean probability| in 15 bins of equal width.
"""

from pathlib import Path

import torch
from torch import Tensor

import utils
from experiments import results, section_3, seeds
from experiments.runner import Context, Experiment
from figures import plots
from model import pad

ERROR = 0.005  # of the digits that are not rejected
SHARES = [i / 500 for i in range(41)]  # rejected, of the curves: 0 to 8 %
BINS, FEWEST = 15, 10  # of probability; digits in a bin that is drawn
OURS = {name: seeds.TITLES[name] for name in (*seeds.COMPARED, "fast")}
TITLES = section_3.TITLES | OURS
MARKS = {"lenet-1": ("s", "white"), "lenet-4": ("D", "white"), "boosted-lenet-4": ("D", plots.SKY)}
LOOKS = {
    name: {**plots.look(name, face != "white"), "color": plots.SKY, "marker": mark, "markerfacecolor": face}
    for name, (mark, face) in MARKS.items()
}
LOOKS |= seeds.LOOKS


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    return [
        {"variant": name, "seed": seed}
        for seed in context.seeds
        for name in TITLES
        if name in OURS or seed in section_3.EXPERIMENT.seeds
    ]


def measure(context: Context, task: dict) -> dict:
    """Accuracy, the share to reject, the error at each of SHARES, and the calibration of a network."""
    name, seed, (images, labels) = task["variant"], task["seed"], context.load().test
    if name in OURS:
        logits = utils.class_logits(seeds.network(context, name, seed), pad(images))
    else:
        logits = section_3.logits(context, name, seed)
    best, second = logits.topk(2).values.T
    right = logits.argmax(1) == labels
    errors = errors_accepted(best - second, right)
    accepted = [round((1 - share) * len(labels)) for share in SHARES]
    found = {
        "accuracy": int(right.sum()) / len(labels),
        "rejected": rejected(errors),
        "curve": [errors[count - 1] / count for count in accepted],
    }
    return found | (calibration(logits.softmax(1), labels) if name in OURS else {})


def errors_accepted(margins: Tensor, right: Tensor) -> list[int]:
    """How many of the 1, 2, ... N digits with the largest margins are wrong: margins (N,) and right, bool (N,)."""
    return (~right[margins.argsort(descending=True, stable=True)]).cumsum(0).tolist()


def rejected(errors: list[int], most: float = ERROR) -> float:
    """The least share to reject so that at most this share of the rest is wrong, given errors_accepted."""
    accepted = max((count for count, wrong in enumerate(errors, 1) if wrong <= most * count + 1e-9), default=0)
    return 1 - accepted / len(errors)


def calibration(probabilities: Tensor, labels: Tensor) -> dict:
    """Of probabilities (N, 10): mean of those of the answers, calibration error, and the bins: digits, the sum of their
    probabilities, how many are right."""
    p, answers = probabilities.double().max(1)
    right, place = (answers == labels).double(), (p * BINS).long().clamp(max=BINS - 1)
    bins = torch.zeros(BINS, 3, dtype=torch.double).index_add(0, place, torch.stack([torch.ones_like(p), p, right], 1))
    error = (bins[:, 2] - bins[:, 1]).abs().sum().item() / len(labels)
    return {"probability": p.mean().item(), "calibration_error": error, "bins": bins.tolist()}


def summarize(context: Context, runs: list[dict]) -> dict:
    """Of each variant: accuracy, share to reject, curve, and calibration; means and deviations over the seeds."""
    found = results.by_variant(runs)
    for name, own in results.group(runs).items():
        found[name]["curve"] = [sum(errors) / len(own) for errors in zip(*(run["curve"] for run in own))]
        for key in ("rejected", "probability", "calibration_error"):
            if key in own[0]:
                found[name][key] = results.mean_and_deviation([{"accuracy": run[key]} for run in own])
        if "bins" in own[0]:
            found[name]["bins"] = torch.tensor([run["bins"] for run in own]).sum(0).tolist()
    return {"variants": {name: found[name] for name in TITLES if name in found}}


def tables(content: dict) -> dict[str, str]:
    """Shares in %, mean ± deviation: to reject, beside the paper's; and the calibration."""
    paper, rejection, calibrated = results.PAPER["figure 10"]["rejected"], [], []
    for name, row in content["variants"].items():
        head = [TITLES[name], row["seeds"], results.error(row)]
        rejection.append([*head, percent(row["rejected"]), paper.get(TITLES[name], "")])
        if "bins" in row:
            calibrated.append([*head, percent(row["probability"]), percent(row["calibration_error"])])
    header = ["network", "seeds", "test error, %"]
    return {
        "rejection": results.markdown([*header, "rejected, %", "the paper's"], rejection),
        "calibration": results.markdown([*header, "mean probability, %", "calibration error, %"], calibrated),
    }


def percent(row: dict) -> str:
    return f"{100 * row['mean']:.2f} ± {100 * row['deviation']:.2f}"


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """Error against the share rejected, and below it how right probabilities are."""
    subtitle = f"means over the seeds; dotted: {100 * ERROR:g} % error on the rest, and probabilities that are right"
    figure = plots.new_figure("Rejecting close calls, and trusting probabilities", subtitle, height=9.6)
    above, below = figure.subplots(2, 1)
    for name, row in content["variants"].items():
        curve = [100 * error for error in row["curve"]]
        above.plot([100 * x for x in SHARES], curve, label=TITLES[name], markevery=5, **LOOKS[name])
        bins = [bin for bin in row.get("bins", []) if bin[0] >= FEWEST]
        points = [100 * p / count for count, p, _ in bins], [100 * correct / count for count, _, correct in bins]
        below.plot(*points, **{"marker": "o", **LOOKS[name]})
    shares = [results.PAPER["figure 10"]["rejected"][title] for title in section_3.TITLES.values()]
    label = "the paper's three LeNets"
    above.plot(shares, [100 * ERROR] * len(shares), "^", color=plots.INK, markersize=9, label=label)
    above.axhline(100 * ERROR, color=plots.INK, linestyle=":")
    above.set(title="Rejection", xlabel="test digits rejected (%)", ylabel="error on the rest (%)", ylim=(0, None))
    below.plot([30, 100], [30, 100], color=plots.INK, linestyle=":")
    below.set(title=f"Calibration, in {BINS} bins", xlabel="mean probability (%)", ylabel="classified correctly (%)")
    above.legend(loc="upper right", ncols=2)
    plots.save(figure, path)


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    draw=draw,
    facts=lambda context: {"recipes": {name: seeds.recipes(context)[name] for name in OURS}},
    seeds=(0, 1, 2, 3, 4),
    seconds=3,
)
