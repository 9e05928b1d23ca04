"""The trained network for other programs: an ONNX file that takes grey levels and gives logits.

python -m tools.export_onnx             Record/LeNet5.onnx, checked against PyTorch; needs onnx and onnxruntime
python -m tools.export_onnx --checkpoint Record/numbers/LeNet5.safetensors      Record/LeNet5-numbers.onnx

Input "images": uint8 (N, 28, 28), 0 background to 255 ink, any N. Output "logits": float32 (N, 10), higher means more
likely. For numbers the input is "lines", uint8 (N, 32, W) with any W from 34 on, and the logits are those of every
place, (N, T, 11): see sweep in reading/sweep.py. find_lines and evened in digits/pieces.py make such a line.
"""

import copy
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/export_onnx.py`

import utils  # isort: skip; first, so that Ctrl-C shows no traceback of imports

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from digits import mnist
from digits.lines import sample_lines
from model import LeNet5, Subsampling, TableConvolution, normalize, pad
from reading.sweep import sweep
from tools import options
from training import checkpoint
from utils import UserError, shown

LINES = 500  # that the network for numbers is checked on
TOLERANCE = 1e-4  # between onnxruntime's logits and PyTorch's


def main():
    parser = options.parser(__doc__, "Record/LeNet5.onnx, or Record/LeNet5-numbers.onnx")
    args = parser.share("--data-dir").parse_args()
    require_packages()
    trained = checkpoint.load(args.checkpoint or options.trained_networks(("default",), args.reference)[0])
    on_disk = all(mnist.on_disk(args.data_dir, name) for name, *_ in mnist.MNIST["test"])
    dataset = "mnist" if on_disk else "digits"
    test_set = mnist.load_dataset(dataset, args.data_dir, "test")
    write, name = (write_swept, "-numbers") if trained.recipe.reads_numbers else (write_classifier, "")
    path = options.output_path(args, f"LeNet5{name}.onnx")
    with utils.whole_files(path) as folder:
        agreement = write(folder / path.name, checkpoint.network(trained), test_set)
        size = (folder / path.name).stat().st_size
    where = "MNIST's" if dataset == "mnist" else "scikit-learn's (MNIST is not on disk)"
    print(f"{shown(path)}, {size:,} bytes, checked on {where} test digits: {agreement}")


def write_classifier(path: Path, model: LeNet5, test_set: mnist.Digits) -> str:
    """Write the network for single digits; how it compares with PyTorch's on these."""
    images, labels = test_set
    export(Exported(model), path)
    logits = run(path, images.numpy())
    difference = compare(logits, utils.class_logits(model, pad(images)).numpy())
    accuracy = (logits.argmax(1) == labels.numpy()).mean()
    what = f"the same predictions of all {len(labels):,}"
    return f"{what},\nlogits within {difference:.1e} of PyTorch's, accuracy {accuracy:.2%}"


def write_swept(path: Path, model: LeNet5, test_set: mnist.Digits) -> str:
    """Write the network that is swept over lines; how it compares with PyTorch's on lines of these digits."""
    export(Swept(model), path, "lines", torch.zeros(2, 32, 60, dtype=torch.uint8))
    differences = []
    for lines, _ in sample_lines(test_set, LINES, np.random.default_rng(0)):
        with torch.inference_mode():
            expected = sweep(model, normalize(lines)).numpy()
        differences.append(compare(run(path, lines.numpy(), "lines"), expected))
    return f"on {LINES} lines,\nlogits within {max(differences):.1e} of PyTorch's"


def require_packages():
    """Raise UserError that names what is to be installed."""
    missing = []
    for name in ("onnx", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed; pip install {' '.join(missing)}")


class Exported(nn.Module):
    """LeNet5 from grey levels on: uint8 (N, 28, 28) -> logits (N, 10)."""

    def __init__(self, model: LeNet5):
        super().__init__()
        self.model = of_known_layers(model)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(normalize(pad(images)))


class Swept(Exported):
    """LeNet5 swept over lines: uint8 (N, 32, W) -> logits (N, T, 11)."""

    def forward(self, lines: Tensor) -> Tensor:
        return sweep(self.model, normalize(lines))


def of_known_layers(model: LeNet5) -> LeNet5:
    """A copy of the network made of layers that ONNX knows."""
    known = copy.deepcopy(model)
    for name, layer in model.named_children():
        if isinstance(layer, TableConvolution):
            setattr(known, name, full_convolution(layer))
        elif isinstance(layer, Subsampling):
            setattr(known, name, Averaging(layer))
    return known


def full_convolution(layer: TableConvolution) -> nn.Conv2d:
    """The same convolution with kernels of zeros where the table has no connection."""
    maps, in_maps, *size = layer.shape
    convolution = nn.Conv2d(in_maps, maps, size)
    with torch.no_grad():
        convolution.weight.zero_()[tuple(layer.connections)] = layer.weight
        convolution.bias.copy_(layer.bias)
    return convolution


class Averaging(nn.Module):
    """The same subsampling with four times the coefficient on averages in place of sums."""

    def __init__(self, layer: Subsampling):
        super().__init__()
        self.coefficient = nn.Parameter(4 * layer.coefficient.detach().view(-1, 1, 1))
        self.bias = nn.Parameter(layer.bias.detach().view(-1, 1, 1))
        self.squash = layer.squash

    def forward(self, maps: Tensor, stride: int | tuple[int, int] = 2) -> Tensor:
        return self.squash(self.coefficient * F.avg_pool2d(maps, 2, stride) + self.bias)


def export(exported: Exported, path: Path, name: str = "images", example: Tensor | None = None):
    """Write a network as one ONNX file, checked by onnx; its input has this name, and any N; lines have any W, too."""
    import onnx

    example = torch.zeros(2, 28, 28, dtype=torch.uint8) if example is None else example
    axes = {"images": {name: {0: "N"}}, "lines": {name: {0: "N", 2: "W"}, "logits": {0: "N", 1: "T"}}}[name]
    names = {"input_names": [name], "output_names": ["logits"], "dynamic_axes": axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter will be replaced by a newer one
        torch.onnx.export(exported.eval(), (example,), str(path), dynamo=False, opset_version=17, **names)
    onnx.checker.check_model(str(path), full_check=True)


def run(path: Path, images: np.ndarray, name: str = "images") -> np.ndarray:
    """The logits that an ONNX file gives images uint8 (N, 28, 28), or lines (N, 32, W)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = np.array_split(images, max(1, len(images) // 1000))
    return np.concatenate([session.run(["logits"], {name: part})[0] for part in parts])


def compare(logits: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of logits (N, ..., C); raises UserError if it is too large, or if a prediction differs."""
    difference = float(np.abs(logits - expected).max())
    if not difference < TOLERANCE or (logits.argmax(-1) != expected.argmax(-1)).any():
        raise UserError(
            f"onnxruntime's logits differ from PyTorch's by {difference:.1e}; nothing was written; try other versions"
        )
    return difference


if __name__ == "__main__":
    utils.run_script(main)
