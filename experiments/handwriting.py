"""How well people's own images are read: a folder of them, by kind, by reader and by half of the hands.

python -m experiments handwriting --images DIR      else the folder that the variable REAL_IMAGES names

DIR/index.csv has a row for each image: file and label; and if they are known kind ("digit" or "number"), hand (who
wrote it) and cause (what is hard about it). A folder cheques/ in it may have an index of its own. The images are no
part of this project, and no network is trained on them. The preparation was made with images in view; the two halves
of the hands show how far it depends on them. A refusal counts as wrong. The networks are those of the reference.

The images that were misread are drawn into Record/study/handwriting.png. What the project ships has counts alone.
"""

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import ClassifyTask_predict
from digits.pieces import find_lines, placed
from digits.preprocessing import read_grey
from experiments import results
from experiments.runner import Context, Experiment
from figures import plots
from model import LeNet5
from reading.segmentation import classify
from reading.vote import SURE
from training import checkpoint, provenance
from training.recipes import RECIPES, record_dir
from utils import UserError, shown

HALVES = ("one half", "other half")  # of the hands
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
AIMS = {"digit": 0.98, "number": 0.98, "cheque": 0.93}  # the share that is to be right of the answers that are sure
SCRIPT = "the script"
PARTS = 16  # of the images: after each the counts are on disk


class Row(NamedTuple):
    file: str
    kind: str
    label: str
    half: str
    cause: str


def network_files() -> list[Path]:
    return [record_dir(RECIPES[name], "mnist", True) / checkpoint.FILE for name in ("best", "numbers")]


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    """Parts of these images, read by these networks; none where no images are named: the reference does without."""
    if not context.images:
        return []
    list(rows_of(context.images))  # what is wrong with the index is told before anything else
    weights = " ".join(checkpoint.digest(checkpoint.load(file).tested, {}) for file in network_files())
    parts = range(1 if context.tiny else PARTS)
    return [{"images": context.images.name, "weights": weights, "part": part} for part in parts]


def rows_of(path: Path) -> Iterator[Row]:
    """All images. Where no hand is named, each image is by another one; every second hand is in a half."""
    hands = {}
    for folder in ("", "cheques"):
        if folder and not (path / folder / "index.csv").is_file():
            continue
        for row in rows_in(path / folder):
            file, label = f"{folder}/{row['file']}".lstrip("/"), row["label"]
            kind = "cheque" if folder else row.get("kind") or ("digit" if len(label) == 1 else "number")
            half = hands.setdefault((folder, row.get("hand") or file), len(hands) % 2)
            yield Row(file, kind, label, HALVES[half], row.get("cause") or "")


def rows_in(folder: Path) -> list[dict]:
    """The rows of a folder's index. Raises UserError if there is none, or if it lacks a column."""
    try:
        with (folder / "index.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise UserError(f"{shown(folder)} has no index.csv that can be read; write one: file,label") from None
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise UserError(f"{shown(folder / 'index.csv')} has no columns file and label; write one row for each image")
    return rows


# ---------------------------------------------------------------------------------------------- the readers

Answer = tuple[str, float]  # the number, and its probability


def readers() -> dict[str, Callable[[np.ndarray], Answer]]:
    """The ways to read an image (H, W). Each raises ValueError if it cannot."""
    digits, numbers = (checkpoint.load_network(file) for file in network_files())
    return {
        SCRIPT: lambda grey: first_line(grey, digits, numbers),
        "the sweep alone": lambda grey: first_line(grey, None, numbers),
        "cut at the gaps, then classified": lambda grey: cut_then_classify(grey, digits),
    }


def first_line(grey: np.ndarray, digits: LeNet5 | None, numbers: LeNet5) -> Answer:
    """What the predict script says; of several lines all, which is then wrong."""
    answers = ClassifyTask_predict.read(grey, digits, numbers)
    return " ".join(answer.number for answer in answers), min(answer.probability for answer in answers)


def cut_then_classify(grey: np.ndarray, model: LeNet5) -> Answer:
    """The baseline: each piece is taken for one digit."""
    values, digits = torch.cat([classify(placed(line.pieces), model) for line in find_lines(grey)]).max(1)
    return "".join(map(str, digits.tolist())), float(values.prod())


def measure(context: Context, task: dict) -> dict:
    """Counts for each reader, kind and half; the script's by cause; and what it misread, which is not to be shipped."""
    counts, causes, misread = {}, {}, []
    ways = readers()
    for row in list(rows_of(context.images))[task["part"] :: PARTS]:
        try:
            grey = read_grey(context.images / row.file)
        except ValueError as error:
            raise UserError(f"{shown(context.images / row.file)} {error}") from None
        for name, reader in ways.items():
            try:
                number, probability = reader(grey)
            except ValueError:
                number, probability = "", 0.0
            right = number == row.label
            own = counts.setdefault(name, {}).setdefault(row.kind, {}).setdefault(row.half, Counter())
            own.update(images=1, right=int(right), refused=int(not number))
            for threshold in THRESHOLDS:
                sure = probability >= threshold
                own.update({f"sure from {threshold}": int(sure), f"right from {threshold}": int(sure and right)})
            if name == SCRIPT:
                causes.setdefault(row.cause, Counter()).update(images=1, right=int(right))
                misread += [] if right else [{"file": row.file, "label": row.label, "read": number}]
    shipped = {} if context.reference else {"misread": misread}
    return {"readers": counts, "causes": causes, **shipped, "versions": provenance.versions()}


def summarize(context: Context, runs: list[dict]) -> dict:
    """The counts of all parts that belong to the images and networks of the latest."""
    found = {"readers": {}, "causes": {}}
    for run in runs:
        if all(run[key] == runs[-1][key] for key in ("images", "weights")):
            add(found["readers"], run["readers"])
            add(found["causes"], run["causes"])
    return found if runs else {}


def add(total: dict, counts: dict):
    """Add nested counts to others, in place."""
    for key, value in counts.items():
        if isinstance(value, dict):
            add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value


# ---------------------------------------------------------------------------------------------- tables, figure


def tables(content: dict) -> dict[str, str]:
    return {"results": results_table(content), "thresholds": thresholds_table(content), "causes": causes_table(content)}


def results_table(content: dict) -> str:
    """Shares in %, with the 95 % interval of Wilson: of each kind by each reader, and the script's on each half."""
    rows = []
    for name, kinds in content["readers"].items():
        for kind, halves in kinds.items():
            groups = {"all": list(halves.values())}
            if name == SCRIPT and len(halves) > 1:
                groups |= {half: [found] for half, found in halves.items()}
            for hands, own in groups.items():
                total = sum(map(Counter, own), Counter({"images": 0}))
                low, high = wilson(total["right"], total["images"])
                sure, right = total[f"sure from {SURE}"], total[f"right from {SURE}"]
                share = f"{100 * total['right'] / total['images']:.1f} ({100 * low:.0f} to {100 * high:.0f})"
                cells = [f"{100 * sure / total['images']:.0f}", f"{100 * right / max(sure, 1):.1f}"]
                rows.append([f"{kind}s", name, hands, total["images"], share, total["refused"], *cells])
    rows.sort(key=lambda row: [f"{kind}s" for kind in AIMS].index(row[0]))
    header = [
        "images of",
        "read by",
        "hands",
        "images",
        "right, %",
        "refused",
        f"sure ({SURE}), %",
        "of these right, %",
    ]
    return results.markdown(header, rows, labels=3)


def thresholds_table(content: dict) -> str:
    """The lowest threshold at which enough of the sure answers are right on one half of the hands, and what it gives on
    the other half.
    """
    rows = []
    for kind, halves in content["readers"][SCRIPT].items():
        for chosen, judged in zip(halves, reversed(list(halves))) if len(halves) > 1 else []:
            enough = [t for t in THRESHOLDS if sure_share(halves[chosen], t) >= AIMS[kind]]
            if enough:
                sure = 100 * halves[judged].get(f"sure from {enough[0]}", 0) / halves[judged]["images"]
                cells = [enough[0], f"{sure:.0f}", f"{100 * sure_share(halves[judged], enough[0]):.1f}"]
            else:
                cells = ["none", "", ""]
            rows.append([f"{kind}s", f"{100 * AIMS[kind]:.0f}", chosen, *cells])
    header = ["images of", "aim, %", "chosen on", "threshold", "on the other: sure, %", "of these right, %"]
    return results.markdown(header, rows, labels=3)


def sure_share(found: dict, threshold: float) -> float:
    """The share of the answers that are sure from a threshold on that are right."""
    return found.get(f"right from {threshold}", 0) / max(found.get(f"sure from {threshold}", 0), 1)


def causes_table(content: dict) -> str:
    rows = [
        [cause or "none named", found["images"], f"{100 * found['right'] / found['images']:.1f}"]
        for cause, found in sorted(content["causes"].items())
    ]
    return results.markdown(["cause", "images", "right, %"], rows)


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a share."""
    share, middle = right / count, (right + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * math.sqrt(count * share * (1 - share) + z * z / 4)
    return max(middle - half, 0.0), min(middle + half, 1.0)


SHOWN, ACROSS = 48, 6  # images in the figure, and in a row of it


@plots.style()
def draw(context: Context, content: dict, path: Path):
    """The first images that were misread; not of the reference, which shows nobody's images."""
    misread = [row for run in content["runs"] for row in run.get("misread", [])][:SHOWN]
    if context.reference or not misread:
        return
    rows = -(-len(misread) // ACROSS)
    figure = plots.new_figure("Images that were misread", "label → what was read", height=1 + 1.2 * rows)
    axes = figure.subplots(rows, ACROSS, squeeze=False).flat
    for axis in axes:
        axis.axis("off")
    for axis, row in zip(axes, misread):
        axis.imshow(read_grey(context.images / row["file"]), cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{row['label']} → {row['read'] or 'refused'}", size=11, loc="center")
    plots.save(figure, path)


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    draw=draw,
    data=False,
    images=True,
    seconds=60,
)
