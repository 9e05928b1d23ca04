"""A page to draw on: the trained networks in one file that any browser opens, without network or server.

python -m tools.page    Record/demo.html, of your own runs, or of the networks shipped
"""

import base64
import json
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/page.py`

import utils
from model import TABLE_I
from tools import options
from tools.strokes import DIGITS, NUMBERS, samples
from training import checkpoint
from training.checkpoint import Checkpoint
from utils import UserError, shown

WEB = Path(__file__).with_name("web")
SCRIPTS = "network", "preparation", "line", "layers", "sliders", "pen", "page"


def main():
    args = options.parser(__doc__, "Record/demo.html").parse_args()
    path = options.output_path(args, "demo.html")
    page = make_page(*networks(args))
    with utils.whole_files(path) as folder:
        (folder / path.name).write_text(page, encoding="utf-8", newline="\n")
    print(f"{shown(path)}, {len(page.encode()):,} bytes: open it in a browser")


def networks(args: Namespace) -> tuple[Checkpoint, Checkpoint | None]:
    """The checkpoints for digits and for numbers; None where there is none for numbers."""
    recipes = ("numbers",) if args.checkpoint else ("numbers", "default")
    of_numbers, *of_digits = options.trained_networks(recipes, args.reference)
    trained = checkpoint.load(args.checkpoint or of_digits[0])
    return trained, checkpoint.load(of_numbers) if of_numbers.exists() else None


def make_page(trained: Checkpoint, numbers: Checkpoint | None = None) -> str:
    """The page, as HTML, with the network of a checkpoint, and that of another one that reads numbers.

    Raises UserError for another network than the default one, whose activation alone may be "relu".
    """
    arguments = trained.recipe.model_arguments
    activation = arguments.get("activation", "squash")
    if arguments.keys() - {"activation"} or activation not in ("squash", "relu"):
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise UserError(f"the page shows the default network only, also with activation='relu'; not LeNet5({given})")
    content = {
        "digits": {**parameters(trained), "samples": samples(DIGITS), "source": about_digits(trained)},
        "numbers": numbers and {**parameters(numbers), "samples": samples(NUMBERS), "source": about_numbers(numbers)},
        "table": TABLE_I,
    }
    style, template = (text_of(name) for name in ("style.css", "page.html"))
    script = "\n".join(text_of(f"{name}.js") for name in SCRIPTS)
    for name, text in ("STYLE", style), ("SCRIPT", script), ("TRAINED", json.dumps(content, separators=(",", ":"))):
        template = template.replace(f"__{name}__", text.strip())
    return template


def text_of(name: str) -> str:
    return (WEB / name).read_text(encoding="utf-8")


def parameters(trained: Checkpoint) -> dict:
    """A network's activation, and its parameters as little-endian float32, in base64."""
    tensors = checkpoint.network(trained).state_dict().items()
    weights = {name: base64.b64encode(tensor.numpy().astype("<f4").tobytes()).decode() for name, tensor in tensors}
    return {"activation": trained.recipe.model_arguments.get("activation", "squash"), "weights": weights}


def about_digits(trained: Checkpoint) -> str:
    """What the page says about its network for digits."""
    tested = {
        "mnist": "MNIST’s 10,000 test digits",
        "digits": "scikit-learn’s 360 test digits, NOT MNIST",
    }[trained.dataset]
    activation = trained.recipe.model_arguments.get("activation")
    relu = ", ReLU in place of the activation of 1998," if activation == "relu" else ""
    return (
        f"The network has 60,850 trained parameters{relu} and classifies {accuracy(trained)} of {tested} correctly. "
        "A drawing is prepared as MNIST’s digits were: its ink is found, cropped, fitted into 20×20 pixels and centred "
        f"by its centre of mass. Below each class stands its logit, above it softmax’s probability. {COMMON}"
    )


def about_numbers(trained: Checkpoint) -> str:
    """What the page says about its network for numbers."""
    return (
        f"The network has 60,935 trained parameters, ReLU and a class “none”, and reads {accuracy(trained)} of 1,000 "
        "lines of test digits without an error. What is written is cut into pieces, one for each digit or for digits "
        "that touch; they are sheared upright, made equally high and set side by side. The network is swept over this "
        f"line: at every second column it sees 32×32 pixels. {COMMON}"
    )


COMMON = (
    "Everything is computed in this page; nothing is sent. The samples are strokes written down as coordinates, "
    "not people’s handwriting."
)


def accuracy(trained: Checkpoint) -> str:
    return f"{trained.history[-1]['test_accuracy']:.2%}".replace("%", "\u00a0%")


if __name__ == "__main__":
    utils.run_script(main)
