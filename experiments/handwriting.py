"""How well the predict script reads what people wrote: their images, by kind and by half of the writers.

REAL_IMAGES names a folder with index.csv (columns file, kind, label, hand) and, if there are any, cheques/ with its own
(file, label). The images are no part of this project, and nothing is trained on them. But the preparation was made with
all of them in view, so that these shares are a little high; the halves show how far they depend on the hands. A refusal
counts as wrong. The networks are those of the reference.
"""

import csv
import math
import os
from collections.abc import Iterator
from pathlib import Path

import ClassifyTask_predict
from digits.preprocessing import read_grey
from experiments import results
from experiments.runner import Context, Experiment
from training import checkpoint, provenance
from training.recipes import RECIPES, record_dir
from utils import UserError, shown

SURES = ("sure", "sure_right")
SURE = 0.9  # a probability from which on an answer is called sure
HALVES = ("one half", "other half")  # of the hands


def images_folder() -> Path:
    """The folder of images that the environment names."""
    if not (name := os.environ.get("REAL_IMAGES")):
        raise UserError("REAL_IMAGES is not set; let it name a folder of images with an index.csv (file, kind, label)")
    if not (path := Path(name)).joinpath("index.csv").is_file():
        raise UserError(f"{shown(path)} has no index.csv; let REAL_IMAGES name a folder with one (file, kind, label)")
    return path


def network_files() -> list[Path]:
    return [record_dir(RECIPES[name], "mnist", True) / checkpoint.FILE for name in ("best", "numbers")]


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    """One, for these images and networks."""
    weights = " ".join(checkpoint.digest(checkpoint.load(file).tested, {}) for file in network_files())
    return [{"images": images_folder().name, "weights": weights}]


def rows_of(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """File, kind, label and half of every image. Of cheques, each by another hand, every second is in a half."""
    hands = {}
    for row in rows_in(path):
        half = hands.setdefault(row.get("hand") or row["file"], len(hands) % 2)
        yield row["file"], row["kind"], row["label"], HALVES[half]
    if (path / "cheques" / "index.csv").is_file():
        for i, row in enumerate(rows_in(path / "cheques")):
            yield f"cheques/{row['file']}", "cheque", row["label"], HALVES[i % 2]


def rows_in(path: Path) -> list[dict]:
    with (path / "index.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def measure(context: Context, task: dict) -> dict:
    """The images of each kind and half: how many are right, refused, sure, and sure and right; and what was misread."""
    networks = [checkpoint.load_network(file) for file in network_files()]
    path, counts, misread = images_folder(), {}, []
    for file, kind, label, half in list(rows_of(path))[:: 40 if context.tiny else 1]:
        own = counts.setdefault(kind, {}).setdefault(half, dict.fromkeys(("images", "right", "refused", *SURES), 0))
        try:
            answer = ClassifyTask_predict.read(read_grey(path / file), *networks)
            number, probability = answer.number, answer.probability
        except ValueError:
            number, probability = "", 0
            own["refused"] += 1
        right, sure = number == label, probability >= SURE
        for key, value in {"images": 1, "right": right, "sure": sure, "sure_right": sure and right}.items():
            own[key] += int(value)
        if not right:
            misread.append({"file": file, "label": label, "read": number, "probability": round(probability, 3)})
    return {"kinds": counts, "misread": misread, "versions": provenance.versions()}


def summarize(context: Context, runs: list[dict]) -> dict:
    return {key: runs[-1][key] for key in ("kinds",) if runs}


def tables(content: dict) -> dict[str, str]:
    """Shares in %, with the 95 % interval of Wilson, over all hands and over each half of them."""
    rows = []
    for kind, halves in content["kinds"].items():
        for title, own in {"all": list(halves.values()), **{half: [found] for half, found in halves.items()}}.items():
            count = {key: sum(half[key] for half in own) for key in ("images", "right", "refused", *SURES)}
            low, high = wilson(count["right"], count["images"])
            right = f"{100 * count['right'] / count['images']:.1f} ({100 * low:.0f} to {100 * high:.0f})"
            sure = f"{100 * count['sure'] / count['images']:.0f}"
            right_of_sure = f"{100 * count['sure_right'] / max(count['sure'], 1):.1f}"
            rows.append([f"{kind}s", title, count["images"], right, count["refused"], sure, right_of_sure])
    header = ["images of", "hands", "images", "right, %", "refused", f"sure ({SURE}), %", "of these right, %"]
    return {"results": results.markdown(header, rows, labels=2)}


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a share."""
    share, middle = right / count, (right + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * math.sqrt(count * share * (1 - share) + z * z / 4)
    return middle - half, middle + half


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    data=False,
    seconds=60,
)
