"""Does it read one's own pictures? Test digits as large pictures, prepared and read as ClassifyTask_predict.py does.

python -m experiments.own_pictures            Record/study/own_pictures.json and own_pictures.png
python -m experiments.own_pictures --numbers  Record/study/own_numbers.json: the same of lines of test digits

The preparation was made with digits of the training set alone; the test digits measure it.
"""

import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

import checkpoint
import mnist
import plots
import reader
import utils
from lines import MARGIN, sample_lines
from model import pad
from pictures import prepare, prepare_line, read_grey
from recipes import RECIPES, record_dir
from utils import UserError

COUNT, SEED = 1000, 0
LEAST = 0.98  # of the accuracy on the digits as they are


def main():
    parser = utils.Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", type=Path, default=record_dir(RECIPES["adam"], "mnist") / checkpoint.FILE, metavar="FILE"
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--numbers", action="store_true", help="lines of 1 to 6 digits, read by Record/numbers")
    args = parser.parse_args()
    if args.numbers:
        return measure_numbers(mnist.load_dataset("mnist", args.data_dir, "test"))
    device = utils.pick_device(args.device)
    trained = checkpoint.load(args.checkpoint)
    model = checkpoint.network(trained).to(device)
    dataset = mnist.find_dataset("mnist", args.data_dir)
    images, labels = (tensor[:COUNT] for tensor in mnist.load_dataset(dataset, args.data_dir, "test"))

    files = [picture_file(image.numpy(), np.random.default_rng([SEED, i])) for i, image in enumerate(images)]
    seen = torch.stack([torch.from_numpy(prepared(file)) for file in tqdm(files, unit="picture", disable=None)])
    predicted, plain = (utils.class_scores(model, pad(i).to(device)).argmax(1).cpu() for i in (seen, images))
    right, plain_right = int((predicted == labels).sum()), int((plain == labels).sum())
    result = {
        "command": "python -m experiments.own_pictures",
        "pictures": len(labels),
        "without_ink": int((seen.amax((1, 2)) == 0).sum()),
        "accuracy": right / len(labels),
        "plain_accuracy": plain_right / len(labels),
        "kept": right / plain_right,
        "recipe": trained.recipe.to_json(),
        "dataset": trained.dataset,
        "seed": trained.seed,
        "versions": utils.versions(),
    }
    path = utils.RECORD / "study" / "own_pictures.json"
    with utils.whole_files(path) as folder:
        figure(folder / "own_pictures.png", files, seen.numpy(), labels.numpy(), predicted.numpy(), result)
    utils.save_json(path, result)
    print(f"of {len(labels):,} test digits as pictures {result['accuracy']:.1%} are right, of the plain ones", end=" ")
    print(f"{result['plain_accuracy']:.1%}: {result['kept']:.1%} of it is kept")
    if result["kept"] < LEAST:
        raise UserError(
            f"{path}: less than {LEAST:.0%} of the plain accuracy is kept; the preparation has lost something"
        )


def measure_numbers(test_set: tuple[torch.Tensor, torch.Tensor]):
    """How many lines are read correctly as pictures, beside those read correctly as they are."""
    path = record_dir(reader.RECIPE, "mnist") / checkpoint.FILE
    model = checkpoint.network(checkpoint.load(path))
    right = plain_right = index = 0
    for lines, numbers in tqdm(sample_lines(test_set, COUNT, np.random.default_rng(SEED)), disable=None):
        for line, number in zip(lines.numpy(), numbers):
            line = line[:, : np.flatnonzero(line.any(0))[-1] + 1 + MARGIN]  # without what the widest line needs
            index, text = index + 1, "".join(map(str, number))
            plain_right += reader.read(model, line).number == text
            file = picture_file(line, np.random.default_rng([SEED, index]))
            with contextlib.suppress(ValueError):
                right += reader.read(model, prepare_line(read_grey(io.BytesIO(file)))).number == text
    result = {
        "command": "python -m experiments.own_pictures --numbers",
        "pictures": COUNT,
        "accuracy": right / COUNT,
        "plain_accuracy": plain_right / COUNT,
        "kept": right / plain_right,
        "versions": utils.versions(),
    }
    utils.save_json(utils.RECORD / "study" / "own_numbers.json", result)
    print("of {pictures:,} lines as pictures {accuracy:.1%} are right, of the plain ones".format(**result), end=" ")
    print("{plain_accuracy:.1%}: {kept:.1%} of it is kept".format(**result))


def picture_file(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """A digit (28, 28) or a line (32, W) as a large JPEG: any size, place and colour, dark on light or the reverse,
    shaded and noisy."""
    height, width = rng.integers(200, 800, 2)
    if image.shape[0] == image.shape[1]:
        tall = wide = int(min(height, width) * rng.uniform(0.4, 1))
    else:  # a line is as wide as its digits need, which are 25 to 250 pixels high
        unit = rng.uniform(1.25, 12.5)
        tall, wide = int(unit * image.shape[0]), int(unit * image.shape[1])
        height, width = max(height, tall), max(width, wide)
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    ink = np.zeros((height, width, 1))
    large = Image.fromarray(image).resize((wide, tall), Image.Resampling.BICUBIC)
    ink[top : top + tall, left : left + wide, 0] = np.asarray(large) / 255
    dark, light = rng.uniform(0, 100, 3), rng.uniform(150, 255, 3)
    paper, pen = (light, dark) if rng.random() < 0.5 else (dark, light)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    slope, angle = rng.uniform(0, 0.2), rng.uniform(0, 2 * np.pi)
    lighting = 1 + slope * (np.cos(angle) * x + np.sin(angle) * y)
    noise = rng.normal(0, rng.uniform(0, 15), (height, width, 3))
    picture = (paper + ink * (pen - paper)) * lighting[..., None] + noise
    file = io.BytesIO()
    Image.fromarray(np.uint8(picture.clip(0, 255))).save(file, "JPEG", quality=int(rng.integers(40, 95)))
    return file.getvalue()


def prepared(file: bytes) -> np.ndarray:
    """What the network is given of a picture file, uint8 (28, 28); nothing if no ink is found."""
    try:
        return prepare(read_grey(io.BytesIO(file)))
    except ValueError:
        return np.zeros((28, 28), np.uint8)


SHOWN, SIZE = 16, 180  # pictures in the figure, and the pixels of their side


@plots.style()
def figure(path: Path, files: list[bytes], seen: np.ndarray, labels: np.ndarray, predicted: np.ndarray, result: dict):
    """The first pictures, and below each what the network saw of it, with the class predicted."""
    title = "Pictures of digits, and what the network sees of them"
    subtitle = (
        f"{result['pictures']:,} test digits: {result['accuracy']:.1%} read correctly as pictures, "
        f"{result['plain_accuracy']:.1%} as they are in MNIST; the first {SHOWN}"
    )
    axes = plots.canvas(plots.new_figure(title, subtitle, height=5.15))
    for i in range(SHOWN):
        row, column = divmod(i, 8)
        x, y = 28 + column * 202, 160 + row * 440
        picture = np.asarray(Image.open(io.BytesIO(files[i])))
        height, width = (SIZE * side / max(picture.shape) for side in picture.shape[:2])
        plots.draw_picture(axes, picture, "", x + (SIZE - width) / 2, y + SIZE - height, SIZE)
        plots.draw_picture(axes, 255 - seen[i], "", x, y + SIZE + 12, SIZE)
        right = predicted[i] == labels[i]
        text = str(predicted[i]) if right else f"{labels[i]} → {predicted[i]}"
        colour = plots.GREY if right else plots.VERMILLION
        axes.text(x + SIZE / 2, y + 2 * SIZE + 48, text, color=colour, size=10, ha="center")
    plots.save(axes.figure, path)


if __name__ == "__main__":
    utils.run_script(main)
