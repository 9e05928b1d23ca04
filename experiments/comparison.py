"""The paper's figure 9 on the same digits: errors and seconds from a linear classifier to boosted LeNet-4.

python -m experiments comparison [NAME ...]     all classifiers, or those named

Each learns on the 60,000 training digits and is tested once, one after the other on one thread; nothing else should run
on the machine meanwhile. Seconds count from 28x28 digits on, deslanting included. How each is made is in
classifiers.py; no setting was chosen on the test set.

Errors of LeNet-1, LeNet-4 and LeNet-5 are means over the seeds of `section_3` and `seeds`, and so are their seconds of
training, which were taken beside other runs. Intervals are Wilson's, of 95 %: what 10,000 digits tell of one network.

The paper's error is near if ours is within 0.3 %, or a tenth of it. Figure 9 does not say that the digits of pairwise
linear and of the SVM are deslanted, the authors' list of results does: the paper's error stands beside both.
"""

import statistics
import time
from functools import partial
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits  # comes with scikit-learn
from torch import Tensor

import utils
from ClassifyTask_test import wilson_interval
from experiments import classifiers, results, runner, section_3
from experiments.benchmark import cpu
from experiments.classifiers import connected, deslant, deslanted, linear, neighbours, pairwise, pixels, slant
from experiments.runner import Context, Experiment
from figures import plots
from model import LeNet5, pad
from training.recipes import RECIPES
from utils import shown

METHODS = {  # by name: title, the paper's test error in %, the function that fits it
    "linear": ("linear", 12.0, partial(linear, features=pixels)),
    "linear-deslanted": ("linear, deslanted", 8.4, partial(linear, features=deslanted)),
    "softmax": ("linear, softmax", None, connected),
    "pairwise": ("pairwise linear", 7.6, partial(pairwise, features=pixels)),
    "pairwise-deslanted": ("pairwise, deslanted", 7.6, partial(pairwise, features=deslanted)),
    "neighbours": ("3 nearest neighbours", 5.0, partial(neighbours, features=pixels)),
    "neighbours-deslanted": ("3 nearest, deslanted", 2.4, partial(neighbours, features=deslanted)),
    "quadratic": ("40 PCA, quadratic", 3.3, classifiers.quadratic),
    "rbf": ("1000 RBF, linear", 3.6, classifiers.rbf),
    "svm": ("SVM, degree 4", 1.1, partial(classifiers.svm, features=pixels)),
    "svm-deslanted": ("SVM, deslanted", 1.1, partial(classifiers.svm, features=deslanted)),
    "300": ("300 hidden units", 4.7, partial(connected, sizes=(300,))),
    "300-augment": ("300, augmented", 3.6, partial(connected, sizes=(300,), augmented=True)),
    "1000": ("1000 hidden units", 4.5, partial(connected, sizes=(1000,))),
    "1000-augment": ("1000, augmented", 3.8, partial(connected, sizes=(1000,), augmented=True)),
    "300-100": ("300-100", 3.05, partial(connected, sizes=(300, 100))),
    "300-100-augment": ("300-100, augmented", 2.5, partial(connected, sizes=(300, 100), augmented=True)),
    "500-150": ("500-150", 2.95, partial(connected, sizes=(500, 150))),
    "500-150-augment": ("500-150, augmented", 2.45, partial(connected, sizes=(500, 150), augmented=True)),
}
LENETS = {  # by name, the same as in the study that has its runs: title, the paper's test error in %, the study
    "lenet-1": ("LeNet-1", 1.7, "section_3"),
    "lenet-4": ("LeNet-4", 1.1, "section_3"),
    "1998": ("LeNet-5", 0.95, "seeds"),
    "1998-augment": ("LeNet-5, augmented", 0.8, "seeds"),
    "boosted-lenet-4": ("boosted LeNet-4", 0.7, "section_3"),
}
ALL = METHODS | LENETS
NEAR = (0.3, 0.1)  # of the paper's error: within 0.3 %, or within a tenth


def measure(context: Context, task: dict) -> dict:
    """Fit and classify: the error, seconds of both, the numbers stored. Of a LeNet only what it takes to classify."""
    name, data = task["variant"], context.load()
    images, labels = data.test
    with threadpool_limits(1):
        start = time.perf_counter()
        if name in LENETS:
            classify, stored = lenet(name)
        else:
            fit = METHODS[name][2]
            few = {"epochs": 1} if context.tiny and getattr(fit, "func", fit) is connected else {}
            classify, stored = fit(*data.train, **few)
        fitted = time.perf_counter()
        wrong = int((classify(images) != labels).sum())
        end = time.perf_counter()
    found = {"classification_seconds": end - fitted, "numbers": stored, "digits": len(labels)}
    trained = {} if name in LENETS else {"errors": wrong, "training_seconds": fitted - start}
    return {**found, **trained, "seconds": end - start}


def lenet(name: str):
    """A network, or three of them, with initial weights: they take as long as trained ones."""
    if name in section_3.TITLES:
        networks = [section_3.build(name) for _ in range(3 if name == "boosted-lenet-4" else 1)]
        prepare = partial(section_3.prepared, name)
    else:
        networks, prepare = [LeNet5(**RECIPES["1998"].model_arguments)], pad

    def classify(images: Tensor) -> Tensor:
        inputs = prepare(images)
        return sum(utils.class_logits(network, inputs) for network in networks).argmax(1)

    return classify, sum(p.numel() for network in networks for p in network.parameters())


def known(context: Context) -> dict[str, tuple[Path, list[dict]]]:
    """Of each LeNet the file with its runs, the user's own before the reference's, and the runs; of those there are."""
    found = {}
    for name, (*_, study) in LENETS.items():
        own = context.folder / f"{study}.json"
        files = [own] if context.tiny else [own, runner.folder(reference=True) / own.name]
        for file in filter(Path.exists, files):
            if runs := [run for run in runner.read(file)["runs"] if run["variant"] == name]:
                found.setdefault(name, (file, runs))
    return found


def notice(context: Context) -> str:
    found = known(context)
    lines = [f"errors of {ALL[name][0]}: those in {shown(file)}" for name, (file, _) in found.items()]
    missing = dict.fromkeys(study for name, (*_, study) in LENETS.items() if name not in found)
    return "\n".join(lines + [f"left out: what python -m experiments {study} has not made yet" for study in missing])


def summarize(context: Context, runs: list[dict]) -> dict:
    """Of each classifier: error and interval, seconds, stored numbers, and whether the paper's error is near."""
    found, others = {}, known(context)
    done = {run["variant"]: run for run in runs}
    for name in ALL:
        if name not in done or name in LENETS and name not in others:
            continue
        run = done[name]
        own = others[name][1] if name in LENETS else [{"accuracy": 1 - run["errors"] / run["digits"], **run}]
        error = 1 - statistics.mean(one["accuracy"] for one in own)
        seconds = statistics.mean(one["seconds"] if name in LENETS else one["training_seconds"] for one in own)
        row = {"seeds": len(own), "error": error, "interval": wilson_interval(error * run["digits"], run["digits"])}
        row |= {"training_seconds": seconds, "classification_seconds": run["classification_seconds"]}
        row |= {"numbers": run["numbers"]}
        if paper := ALL[name][1]:
            row |= {"paper": paper, "near": round(abs(100 * error - paper), 4) <= max(NEAR[0], NEAR[1] * paper)}
        found[name] = row
    return {"variants": found}


def tables(content: dict) -> dict[str, str]:
    header = ["classifier", "networks", "test error, %", "95 % interval", "the paper's", "near", "seconds to train"]
    header += ["to classify 10,000", "stored numbers"]
    rows = []
    for name, row in content["variants"].items():
        low, high = (100 * bound for bound in row["interval"])
        near = {True: "yes", False: "no"}.get(row.get("near"), "")
        error = results.error({"mean": 1 - row["error"], "deviation": 0}).split()[0]
        cells = [row["seeds"], error, f"{low:.2f} to {high:.2f}", row.get("paper", ""), near]
        seconds = [f"{row[f'{what}_seconds']:.1f}" for what in ("training", "classification")]
        rows.append([ALL[name][0], *cells, *seconds, f"{row['numbers']:,}"])
    return {"results": results.markdown(header, rows)}


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """A row a classifier: our error with its interval, and the paper's; in a corner some digits, deslanted."""
    rows = content["variants"]
    subtitle = "bars: 95 % intervals; hollow: without augmentation; triangles: the paper"
    figure = plots.new_figure("The classifiers of 1998, on the same digits", subtitle, height=1.8 + 0.31 * len(rows))
    axes = figure.subplots()
    for i, (name, row) in enumerate(rows.items()):
        hue = plots.HUES["1998"] if "1998" in name else plots.SKY if name in LENETS else plots.GREY
        augmented = "augment" in name or name == "boosted-lenet-4"
        axes.plot([100 * bound for bound in row["interval"]], [i, i], color=hue, linewidth=5, alpha=0.5)
        face = hue if augmented else "white"
        axes.plot(100 * row["error"], i, "o", color=hue, markerfacecolor=face, markeredgewidth=2, markersize=8)
        if "paper" in row:
            face = plots.INK if augmented else "white"
            axes.plot(row["paper"], i, "^", color=plots.INK, markerfacecolor=face, markersize=8)
    axes.set(xscale="log", ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlabel("test error (%, logarithmic axis)")
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [ALL[name][0] for name in rows])
    images, labels = (part[:500] for part in context.load().train)
    slants = slant(images)[0].abs()
    images = images[[int((slants * (labels == digit)).argmax()) for digit in (1, 2, 4, 5, 7, 9)]]
    pictures = torch.stack([images[:, 4:24, 4:24], deslant(images)])  # (2, 6, 20, 20)
    corner = axes.inset_axes((0.02, 0.8, 0.5, 0.18))
    corner.imshow(pictures.permute(0, 2, 1, 3).reshape(40, 120).numpy(), "gray_r")
    corner.set(xticks=[], yticks=[10, 30])
    corner.set_yticklabels(["slanted", "deslanted"])
    corner.yaxis.tick_right()
    corner.grid(False)
    plots.save(figure, path)


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=lambda context, runs: [{"variant": name} for name in context.variants],
    measure=measure,
    draw=draw,
    facts=lambda context: {"machine": cpu()},
    notice=notice,
    variants=tuple(ALL),
    seconds=60,
    alone=True,
)
