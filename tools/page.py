"""A page to draw on: the trained network in one file that any browser opens, without network or server.

python -m tools.page                    Record/demo.html, of your own runs, or of the networks shipped
python -m tools.page --screenshot       and Record/demo.png, a picture of it; needs selenium and Chromium
"""

import base64
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/page.py`

import numpy as np
import torch

import utils
from digits import mnist
from digits.preprocessing import prepare
from model import TABLE_I, LeNet5, pad
from tools import options
from tools.browser import chromium, draw_stroke, resize
from training import checkpoint
from training.checkpoint import Checkpoint
from utils import UserError, shown

TEMPLATE = Path(__file__).with_suffix(".html")
FIRST = 3  # the sample that the page opens with

# What the screenshot shows, 1998, as a pen writes it: x and y of each stroke from 0 to 1 of the strip's sides.
ONE = ((0.38, 0.17), (0.36, 0.50), (0.345, 0.84))
NINE = (
    (0.475, 0.30), (0.465, 0.22), (0.445, 0.22), (0.425, 0.32), (0.42, 0.42), (0.435, 0.49), (0.455, 0.44),
    (0.475, 0.30), (0.47, 0.50), (0.455, 0.84),
)  # fmt: skip
EIGHT = (
    (0.68, 0.24), (0.66, 0.17), (0.64, 0.21), (0.635, 0.33), (0.655, 0.46), (0.67, 0.60), (0.67, 0.75), (0.65, 0.84),
    (0.63, 0.78), (0.625, 0.65), (0.65, 0.47), (0.675, 0.34), (0.68, 0.25),
)  # fmt: skip
NUMBER = (ONE, NINE, tuple((x + 0.1, y + 0.02) for x, y in NINE), EIGHT)

# A two: x and y from 0 to 1 of the drawing's side.
TWO = (
    (0.30, 0.33), (0.33, 0.25), (0.40, 0.19), (0.49, 0.17), (0.58, 0.18), (0.65, 0.23), (0.68, 0.30), (0.67, 0.38),
    (0.62, 0.46), (0.54, 0.55), (0.45, 0.64), (0.36, 0.73), (0.29, 0.80), (0.36, 0.79), (0.46, 0.80), (0.58, 0.81),
    (0.72, 0.79),
)  # fmt: skip


def main():
    parser = options.parser(__doc__, "Record/demo.html")
    parser.add_argument("--screenshot", action="store_true", help="take a picture of the page, too")
    args = parser.parse_args()
    path = options.output_path(args, "demo.html")
    picture = path.with_suffix(".png")
    if args.screenshot and picture == path:
        raise UserError(f"{shown(path)} would be both the page and its picture; name an .html file with --output")
    recipes = ("numbers",) if args.checkpoint else ("numbers", "default")
    of_numbers, *of_digits = options.trained_networks(recipes, args.reference)
    trained = checkpoint.load(args.checkpoint or of_digits[0])
    page = make_page(trained, checkpoint.load(of_numbers) if of_numbers.exists() else None)
    with utils.whole_files(path) as folder:
        (folder / path.name).write_text(page, encoding="utf-8", newline="\n")
    print(f"{shown(path)}, {len(page.encode()):,} bytes: open it in a browser")
    if args.screenshot:
        with utils.whole_files(picture) as folder, chromium() as driver:
            take_screenshot(driver, path, folder / picture.name)
        print(shown(picture))


def make_page(trained: Checkpoint, numbers: Checkpoint | None = None) -> str:
    """The page, as HTML, with the network of a checkpoint, and that of another one that reads numbers.

    Raises UserError for another network than the default one, whose activation alone may be "relu".
    """
    arguments = trained.recipe.model_arguments
    activation = arguments.get("activation", "squash")
    if arguments.keys() - {"activation"} or activation not in ("squash", "relu"):
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise UserError(f"the page shows the default network only, also with activation='relu'; not LeNet5({given})")
    network = checkpoint.network(trained)
    content = {
        "activation": activation,
        "weights": weights(network),
        "numbers": numbers and {"activation": "relu", "weights": weights(checkpoint.network(numbers))},
        "table": TABLE_I,
        "samples": [encode(image) for image in sample_digits(network)],
        "first": FIRST,
        "source": source(trained),
    }
    return TEMPLATE.read_text(encoding="utf-8").replace("__TRAINED__", json.dumps(content))


def weights(network: LeNet5) -> dict[str, str]:
    return {name: encode(tensor.numpy().astype("<f4")) for name, tensor in network.state_dict().items()}


def encode(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def sample_digits(network: LeNet5) -> list[np.ndarray]:
    """One of scikit-learn's test digits for each class, the first classified correctly: uint8 (28, 28).

    Of a class with none that is, it is the first digit.
    """
    images, labels = mnist.load_dataset("digits", utils.DATA, "test")  # (360, 28, 28), (360,)
    first, correct = {}, {}
    for image, label in zip(images.numpy(), labels.tolist()):
        if label not in correct:
            first.setdefault(label, image)
            prepared = torch.from_numpy(prepare(image))[None]
            if utils.class_logits(network, pad(prepared)).argmax() == label:
                correct[label] = image
    return [(first | correct)[label] for label in range(10)]


def source(trained: Checkpoint) -> str:
    """What the page says about its network."""
    share = f"{trained.history[-1]['test_accuracy']:.2%}".replace("%", "\u00a0%")
    tested = {
        "mnist": "MNIST’s 10,000 test digits",
        "digits": "scikit-learn’s 360 test digits, NOT MNIST",
    }[trained.dataset]
    activation = trained.recipe.model_arguments.get("activation")
    relu = ", ReLU in place of the activation of 1998," if activation == "relu" else ""
    return (
        f"The network has 60,850 trained parameters{relu} and classifies {share} of {tested} correctly. A drawing is "
        "prepared as MNIST’s digits were: its ink is found, cropped, fitted into 20×20 pixels and centred by its "
        "centre of mass. Below each class stands its logit, above it softmax’s probability. Everything is computed in "
        "this page; nothing is sent. The sample digits are scikit-learn’s."
    )


def take_screenshot(driver, page: Path, path: Path):
    """A number written on the page, or a two where it reads no numbers, as a PNG file."""
    resize(driver, 1280, 900, scale=1.5)
    driver.get(page.resolve().as_uri())
    views = driver.find_element("id", "of-number")
    if views.is_displayed():
        views.click()
    for stroke in NUMBER if views.is_displayed() else [TWO]:
        draw_stroke(driver, stroke)
    path.write_bytes(driver.get_screenshot_as_png())


if __name__ == "__main__":
    utils.run_script(main)
