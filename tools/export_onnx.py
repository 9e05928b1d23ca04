"""The trained network for other programs: an ONNX file that takes grey levels and gives class scores.

python -m tools.export_onnx             Record/LeNet5.onnx, checked against PyTorch; needs onnx and onnxruntime
python -m tools.export_onnx --checkpoint Record/numbers/LeNet5.safetensors      Record/LeNet5-numbers.onnx

Input "images": uint8 (N, 28, 28), 0 background to 255 ink, any N. Output "scores": float32 (N, 10), higher means more
likely. For numbers the input is "lines", uint8 (N, 32, W) with any W from 34 on, and the scores are those of every
place, (N, T, 11): see reader.sweep. pictures.prepare_line makes such a line.
"""

import copy
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import checkpoint
import mnist
import reader
import utils
from lines import sample_lines
from model import BACKGROUND, LeNet5, Subsampling, TableConvolution, pad, scale
from utils import UserError

TOLERANCE = 1e-4  # between onnxruntime's scores and PyTorch's


def main():
    parser = utils.Parser(description=__doc__.splitlines()[0])
    default = utils.RECORD / checkpoint.FILE
    parser.add_argument("--checkpoint", type=Path, default=default, metavar="FILE", help=f"default: {default}")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    args = parser.parse_args()
    require_packages()
    trained = checkpoint.load(args.checkpoint)
    model = checkpoint.network(trained)
    dataset = "mnist" if on_disk(args.data_dir) else "digits"
    images, labels = mnist.load_dataset(dataset, args.data_dir, "test")  # (N, 28, 28), (N,)
    if trained.recipe.loss == "ctc":
        return export_numbers(model, images, labels)
    path = utils.RECORD / "LeNet5.onnx"
    with utils.whole_files(path) as folder:
        export(Exported(model), folder / path.name)
        scores = run(folder / path.name, images.numpy())
        difference = compare(scores, utils.class_scores(model, pad(images)).numpy())
        size = (folder / path.name).stat().st_size
    where = "MNIST's" if dataset == "mnist" else "scikit-learn's (MNIST is not on disk)"
    print(f"{path}, {size:,} bytes, checked on {where} {len(labels):,} test digits: the same predictions,")
    accuracy = (scores.argmax(1) == labels.numpy()).mean()
    print(f"scores within {difference:.1e} of PyTorch's, accuracy {accuracy:.2%}")


def export_numbers(model: LeNet5, images: Tensor, labels: Tensor):
    """Write the network that is swept over lines, checked on lines of these digits."""
    path = utils.RECORD / "LeNet5-numbers.onnx"
    with utils.whole_files(path) as folder:
        export(Swept(model), folder / path.name, "lines", torch.zeros(2, 32, 60, dtype=torch.uint8))
        differences = []
        for lines, _ in sample_lines((images, labels), 500, np.random.default_rng(0)):
            with torch.inference_mode():
                expected = reader.sweep(model, scale(lines)).numpy()
            differences.append(compare(run(folder / path.name, lines.numpy(), "lines"), expected))
        size = (folder / path.name).stat().st_size
    print(f"{path}, {size:,} bytes, checked on 500 lines: scores within {max(differences):.1e} of PyTorch's")


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


def on_disk(data_dir: Path) -> bool:
    """Whether MNIST's test set need not be fetched."""
    raw = data_dir / "MNIST" / "raw"
    return all(any((raw / f"{name}{end}").is_file() for end in ("", ".gz")) for name, *_ in mnist.MNIST["test"])


class Exported(nn.Module):
    """LeNet5 from grey levels on: uint8 (N, 28, 28) -> scores (N, 10)."""

    def __init__(self, model: LeNet5):
        super().__init__()
        self.model = of_known_layers(model)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(F.pad(scale(images), (2, 2, 2, 2), value=BACKGROUND))


class Swept(Exported):
    """LeNet5 swept over lines: uint8 (N, 32, W) -> scores (N, T, 11)."""

    def forward(self, lines: Tensor) -> Tensor:
        return reader.sweep(self.model, scale(lines))


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
    axes = {"images": {name: {0: "N"}}, "lines": {name: {0: "N", 2: "W"}, "scores": {0: "N", 1: "T"}}}[name]
    names = {"input_names": [name], "output_names": ["scores"], "dynamic_axes": axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter will be replaced by a newer one
        torch.onnx.export(exported.eval(), (example,), str(path), dynamo=False, opset_version=17, **names)
    onnx.checker.check_model(str(path), full_check=True)


def run(path: Path, images: np.ndarray, name: str = "images") -> np.ndarray:
    """The scores that an ONNX file gives images uint8 (N, 28, 28), or lines (N, 32, W)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = np.array_split(images, max(1, len(images) // 1000))
    return np.concatenate([session.run(["scores"], {name: part})[0] for part in parts])


def compare(scores: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of scores (N, ..., C); raises UserError if it is too large, or if a prediction differs."""
    difference = float(np.abs(scores - expected).max())
    if not difference < TOLERANCE or (scores.argmax(-1) != expected.argmax(-1)).any():
        raise UserError(
            f"onnxruntime's scores differ from PyTorch's by {difference:.1e}; nothing was written; try other versions"
        )
    return difference


if __name__ == "__main__":
    utils.run_script(main)
