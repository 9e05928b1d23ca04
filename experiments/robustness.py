"""The paper's figure 13 and its section on invariance and noise: accuracy on test digits that are changed on purpose.

python -m experiments.robustness            Record/study/robustness.json and robustness.png; goes on where it stopped
python -m experiments.robustness --tiny     a rehearsal on the small digits, into Record/tiny

Each network of Record/ reads all 10,000 test digits, rotated, scaled, moved, with thinner or thicker strokes, and with
noise. The paper states limits for its network, trained with distortions: scale up to about a factor of 2, shifts of
about half the height of a character, rotations up to about 30 degrees. It gives no accuracies.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import checkpoint
import mnist
import plots
import utils
from distortions import warp
from experiments.study import COMPARED, Study, arguments, compared
from model import pad
from recipes import record_dir

HEIGHT = 20  # pixels: of a digit of MNIST, in its larger direction


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Clockwise, about the centre."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return affine(images, [[cos, sin, 0], [-sin, cos, 0]])


def enlarge(images: Tensor, factor: float) -> Tensor:
    return affine(images, [[1 / factor, 0, 0], [0, 1 / factor, 0]])


def move(images: Tensor, pixels: float) -> Tensor:
    """To the right. What leaves the picture is lost."""
    return affine(images, [[1, 0, -pixels], [0, 1, 0]])


def affine(images: Tensor, where_from: list[list[float]]) -> Tensor:
    return warp(images, torch.tensor(where_from).expand(len(images), 2, 3))


def thicken(images: Tensor, pixels: float) -> Tensor:
    """Strokes thicker by 2 `pixels`, or thinner where that is negative: the greatest (least) grey level of the
    neighbours at most a pixel away, again and again; a part of the last time."""
    grey = images.float().unsqueeze(1)
    sign = 1 if pixels > 0 else -1
    left = abs(pixels)
    while left > 0:
        neighbours = torch.stack([F.max_pool2d(sign * grey, size, 1, padding) for size, padding in CROSS]).amax(0)
        grey = grey + min(left, 1) * (sign * neighbours - grey)
        left -= 1
    return grey.squeeze(1).round().to(torch.uint8)


CROSS = (((1, 3), (0, 1)), ((3, 1), (1, 0)))  # the neighbours left and right, and those above and below


def add_noise(images: Tensor, share: float) -> Tensor:
    """This share of the pixels, drawn at random, black or white."""
    random = np.random.default_rng(0)
    chosen = torch.from_numpy(random.random(images.shape, np.float32) < share)
    noise = torch.from_numpy(255 * random.integers(0, 2, images.shape, np.uint8))
    return torch.where(chosen, noise, images)


# By name: what changes the pictures, the amounts, their unit, and the paper's limits.
CHANGES: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, ...], str, tuple[float, ...]]] = {
    "rotation": (rotate, tuple(range(-60, 61, 10)), "degrees clockwise", (-30, 30)),
    "scale": (enlarge, (0.4, 0.5, 0.6, 0.7, 0.85, 1, 1.2, 1.4, 1.6, 1.8, 2), "factor", (0.5, 2)),
    "translation": (move, tuple(range(0, 15, 2)), "pixels to the right", (HEIGHT / 2,)),
    "stroke width": (thicken, (-1.5, -1, -0.75, -0.5, -0.25, 0, 0.5, 1, 1.5, 2, 2.5), "pixels added on each side", ()),
    "noise": (add_noise, (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4), "share of the pixels replaced", ()),
}


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a rehearsal on the small digits, into Record/tiny")
    args = parser.parse_args()
    dataset = mnist.find_dataset("digits" if args.tiny else "mnist", args.data_dir)
    path = utils.RECORD / ("tiny" if args.tiny else "study") / "robustness.json"
    files = {name: record_dir(compared(name), "mnist") / checkpoint.FILE for name in COMPARED}
    files = {name: file for name, file in files.items() if file.exists() or not args.tiny}
    digests = {name: checkpoint.digest(checkpoint.load(file).reported, {}) for name, file in files.items()}
    study = Study(path, "python -m experiments.robustness" + " --tiny" * args.tiny, weights=digests)
    tasks = [
        {"network": name, "change": change, "amount": amount}
        for change, (_, amounts, *_) in CHANGES.items()
        for amount in amounts
        for name in files
    ]
    study.finish(tasks, functools.partial(measure, dataset, args.data_dir, files), args.jobs)
    draw(path.with_suffix(".png"), study.runs)
    print(*tables(study.content()).values())


def measure(dataset: str, data_dir: Path, files: dict[str, Path], task: dict) -> dict:
    """The accuracy of a network on the changed test digits."""
    images, labels = mnist.load_dataset(dataset, data_dir, "test")
    change, *_ = CHANGES[task["change"]]
    changed = change(pad(images), task["amount"])
    network = checkpoint.network(checkpoint.load(files[task["network"]]))
    right = utils.class_scores(network, changed).argmax(1) == labels
    return {"accuracy": int(right.sum()) / len(labels)}


def tables(content: dict) -> dict[str, str]:
    """What docs/study.md shows, in Markdown: accuracies in %, at the paper's limits and the ends of the rest."""
    runs = content["runs"]
    names = list(dict.fromkeys(run["network"] for run in runs))
    lines = [f"| test digits | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    shown = {"scale 1": ("scale", 1)}
    for change, (_, amounts, unit, limits) in CHANGES.items():
        for amount in limits or (min(amounts), max(amounts)):
            if amount or limits:
                shown[f"{change}, {unit}: {amount:g}"] = (change, amount)
    for title, (change, amount) in shown.items():
        found = [
            next(r["accuracy"] for r in runs if (r["network"], r["change"], r["amount"]) == (name, change, amount))
            for name in names
        ]
        title = "as they are" if title == "scale 1" else title
        lines.append(f"| {title} | {' | '.join(f'{100 * accuracy:.1f}' for accuracy in found)} |")
    return {"accuracy": "\n".join(lines)}


@plots.style()
def draw(path: Path, runs: list[dict]):
    subtitle = "a network of each recipe, seed 0; dotted lines: the limits that the paper states"
    figure = plots.new_figure("Test digits changed on purpose", subtitle, height=7.6)
    panels = figure.subplots(3, 2).flat
    styles = zip(
        dict.fromkeys(run["network"] for run in runs),
        (plots.BLUE, plots.SKY, plots.GREEN, plots.VERMILLION, plots.ORANGE),
        ("-", "--", "-", "--", "-"),
    )
    styles = {name: {"color": colour, "linestyle": line} for name, colour, line in styles}
    for axes, (change, (_, _, unit, limits)) in zip(panels, CHANGES.items()):
        for name, look in styles.items():
            own = [run for run in runs if (run["network"], run["change"]) == (name, change)]
            own.sort(key=lambda run: run["amount"])
            axes.plot([run["amount"] for run in own], [100 * run["accuracy"] for run in own], label=name, **look)
        for limit in limits:
            axes.axvline(limit, color=plots.GREY, linestyle=":", linewidth=1)
        axes.set(title=change, xlabel=unit, ylabel="accuracy (%)", ylim=(0, 101))
    handles, labels = panels[0].get_legend_handles_labels()
    panels[len(CHANGES)].set_axis_off()
    panels[len(CHANGES)].legend(handles, labels, loc="center")
    plots.save(figure, path)


if __name__ == "__main__":
    utils.run_script(main)
