"""How sure is 0.95 %? MNIST's 10,000 test digits come from 297 writers: intervals that allow for each one's hand.

Wilson's interval takes the digits for independent. But the errors on one writer's digits may come together. The second
interval draws writers instead of digits: 10,000 times 297 of them with replacement, each with all digits; it leaves out
2.5 % of the test errors found at either end. Both are intervals of one network's error, their bounds means over seeds.

The writers are told by the labels of QMNIST (C. Yadav, L. Bottou, "Cold Case: The Lost MNIST Digits", NeurIPS 2019),
whose first 10,000 test digits are MNIST's, in order. Digits 0 to 5,000 are of NIST's series hsf_4, by high-school
students; the 4,999 after them are of hsf_0, by employees of the Census Bureau.

The paper's own network stands beside the others: figure 8 shows the 82 digits that it misclassifies.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np

from ClassifyTask_test import wilson_interval
from experiments import results, seeds
from experiments.runner import Context, Experiment
from figures import plots
from utils import UserError, shown

QMNIST, LIST = "QMNIST/raw/qmnist-test-labels-idx2-int", "mnist-test-writers.tsv.gz"  # in the data folder
STUDENTS = 4  # the series that high-school students wrote
RESAMPLES = 10_000
PAPER, PAPER_ERROR = "paper", 0.95  # %, trained without distorted digits
TITLES = seeds.TITLES | {PAPER: "the paper's, with distorted digits"}


def read_writers(context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Of each test digit NIST's series and the writer: int (N,) each. Those of a rehearsal are made up.

    Raises UserError if neither QMNIST's labels nor the list is in the data folder, or if they are not of these digits.
    """
    labels = context.load().test[1].numpy()
    if context.tiny:
        return np.arange(len(labels)) % 2 * STUDENTS, np.arange(len(labels)) // 4
    paths = [context.data_dir / name for name in (QMNIST, f"{QMNIST}.gz", LIST)]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        what = f"put {paths[1].name} from github.com/facebookresearch/qmnist into {shown(paths[1].parent)}"
        raise UserError(f"the writers of the test digits are told by QMNIST's labels: {what}")
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        if path.name == LIST:
            rows = np.array([line.split("\t")[:3] for line in content.decode().splitlines()], np.int64)
        else:  # big-endian int32 (60000, 8) behind three numbers
            rows = np.frombuffer(content, ">i4", offset=12).reshape(-1, 8)[: len(labels), :3].astype(np.int64)
        if rows.shape != (len(labels), 3) or (rows[:, 0] != labels).any():
            raise ValueError
    except (OSError, EOFError, ValueError, zlib.error):
        raise UserError(f"{shown(path)} is damaged or not of MNIST's test digits; fetch it anew") from None
    return rows[:, 1], rows[:, 2]


def writer_interval(errors: np.ndarray, writers: np.ndarray) -> list[float]:
    """The 95 % interval of a network's mean of errors, when writers (N,) are drawn with all their digits.

    Of errors (S, N) of several networks the means of the bounds.
    """
    writers = np.unique(writers, return_inverse=True)[1]
    totals = np.stack([np.bincount(writers, own) for own in (*errors, np.ones(len(writers)))], 1)  # of each writer
    count = len(totals)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)  # how often each writer
    *wrong, digits = (drawn @ totals).T
    return np.quantile(wrong / digits, [0.025, 0.975], axis=1).mean(1).tolist()


def summarize(context: Context, runs: list[dict]) -> dict:
    """Of each variant the mean error and its two intervals: on all digits, and on those of each group of writers."""
    series, writers = read_writers(context)
    groups = {"all": series >= 0, "students": series == STUDENTS, "employees": series != STUDENTS}
    found = {name: [run["misclassified"] for run in own] for name, (_, own) in seeds.found(context).items()}
    if not context.tiny:
        found[PAPER] = [[index for index, *_ in results.PAPER["figure 8"]["errors"]]]
    variants = {}
    for name, wrong in found.items():
        errors = np.stack([np.bincount(digits, minlength=len(series)) for digits in wrong])  # (seeds, digits), 0 or 1
        variants[name] = {"seeds": len(wrong)} | {
            group: {
                "error": errors[:, own].mean(),
                "by_digits": np.mean([wilson_interval(one.sum(), len(one)) for one in errors[:, own]], 0).tolist(),
                "by_writers": writer_interval(errors[:, own], writers[own]),
            }
            for group, own in groups.items()
        }
    sizes = {group: {"digits": int(own.sum()), "writers": len(set(writers[own]))} for group, own in groups.items()}
    return {"groups": sizes, "variants": variants}


def tables(content: dict) -> dict[str, str]:
    """Errors and their 95 % intervals in %: on all digits, and by the group of the writers."""
    header = ["network", "seeds", "test error, %", "95 % interval, digits drawn", "writers drawn", "times as wide"]
    rows, groups = [], []
    for name, row in content["variants"].items():
        whole = row["all"]
        (low, high), (least, most) = whole["by_digits"], whole["by_writers"]
        cells = [f"{100 * whole['error']:.2f}", interval(whole["by_digits"]), interval(whole["by_writers"])]
        rows.append([TITLES[name], row["seeds"], *cells, f"{(most - least) / (high - low):.1f}"])
        both = [row[group] for group in ("students", "employees")]
        groups.append([TITLES[name], *(f"{100 * one['error']:.2f} ({interval(one['by_writers'])})" for one in both)])
    sizes = [f"{name}: {row['digits']:,} digits, {row['writers']} writers" for name, row in content["groups"].items()]
    return {
        "intervals": results.markdown(header, rows),
        "groups": results.markdown(["network", *sizes[1:]], groups),
    }


def interval(bounds: list[float]) -> str:
    return " to ".join(f"{100 * bound:.2f}" for bound in bounds)


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """Both intervals of each variant's error, one below the other."""
    subtitle = "mean of the seeds, with 95 % intervals; dotted: the 0.95 % of 1998"
    height = 1.8 + 0.5 * len(content["variants"])
    figure = plots.new_figure("How sure a test error is", subtitle, height)
    axes = figure.subplots()
    for i, (name, row) in enumerate(content["variants"].items()):
        look = seeds.LOOKS.get(name, plots.look(name, augment=True))
        for place, key, width in (i - 0.15, "by_writers", 7), (i + 0.15, "by_digits", 2.5):
            bounds = [100 * bound for bound in row["all"][key]]
            axes.plot(bounds, [place] * 2, linewidth=width, color=look["color"], solid_capstyle="butt")
            dot = {"color": look["color"], "markerfacecolor": look["markerfacecolor"], "markersize": 8}
            axes.plot(100 * row["all"]["error"], place, "o", markeredgewidth=1.5, **dot)
    axes.axvline(PAPER_ERROR, color=plots.INK, linestyle=":")
    axes.plot([], [], linewidth=7, color=plots.GREY, label="writers drawn")
    axes.plot([], [], linewidth=2.5, color=plots.GREY, label="digits drawn (Wilson)")
    axes.set_yticks(range(len(content["variants"])), [TITLES[name] for name in content["variants"]])
    axes.set(xlabel="test error (%)", xlim=(0.25, None))
    axes.invert_yaxis()
    figure.legend(loc="outside lower left", ncols=2)
    plots.save(figure, path)


EXPERIMENT = Experiment(tables=tables, summarize=summarize, draw=draw, notice=seeds.notice)
