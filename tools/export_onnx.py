"""The trained network for other programs: an ONNX file that takes grey levels and gives class scores.

python -m tools.export_onnx             Record/LeNet5.onnx, checked against PyTorch; needs onnx and onnxruntime

Input "images": uint8 (N, 28, 28), 0 background to 255 ink, any N. Output "scores": float32 (N, 10), higher means more
likely.
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
import utils
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
    model = checkpoint.network(checkpoint.load(args.checkpoint))
    dataset = "mnist" if on_disk(args.data_dir) else "digits"
    images, labels = mnist.load_dataset(dataset, args.data_dir, "test")  # (N, 28, 28), (N,)
    path = utils.RECORD / "LeNet5.onnx"
    with utils.whole_files(path) as folder:
        export(model, folder / path.name)
        scores = run(folder / path.name, images.numpy())
        difference = compare(scores, utils.class_scores(model, pad(images)).numpy())
        size = (folder / path.name).stat().st_size
    where = "MNIST's" if dataset == "mnist" else "scikit-learn's (MNIST is not on disk)"
    print(f"{path}, {size:,} bytes, checked on {where} {len(labels):,} test digits: the same predictions,")
    accuracy = (scores.argmax(1) == labels.numpy()).mean()
    print(f"scores within {difference:.1e} of PyTorch's, accuracy {accuracy:.2%}")


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
    """LeNet5 from grey levels on, with layers that ONNX knows: uint8 (N, 28, 28) -> scores (N, 10)."""

    def __init__(self, model: LeNet5):
        super().__init__()
        self.model = copy.deepcopy(model)
        for name, layer in model.named_children():
            if isinstance(layer, TableConvolution):
                setattr(self.model, name, full_convolution(layer))
            elif isinstance(layer, Subsampling):
                setattr(self.model, name, Averaging(layer))

    def forward(self, images: Tensor) -> Tensor:
        return self.model(F.pad(scale(images), (2, 2, 2, 2), value=BACKGROUND))


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

    def forward(self, maps: Tensor) -> Tensor:
        return self.squash(self.coefficient * F.avg_pool2d(maps, 2) + self.bias)


def export(model: LeNet5, path: Path):
    """Write a network as one ONNX file, checked by onnx."""
    import onnx

    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    names = {"input_names": ["images"], "output_names": ["scores"], "dynamic_axes": {"images": {0: "N"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter will be replaced by a newer one
        torch.onnx.export(Exported(model).eval(), (images,), str(path), dynamo=False, opset_version=17, **names)
    onnx.checker.check_model(str(path), full_check=True)


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """The scores (N, 10) that an ONNX file gives images uint8 (N, 28, 28)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = np.array_split(images, max(1, len(images) // 1000))
    return np.concatenate([session.run(["scores"], {"images": part})[0] for part in parts])


def compare(scores: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of scores (N, 10); raises UserError if it is too large, or if a prediction differs."""
    difference = float(np.abs(scores - expected).max())
    if not difference < TOLERANCE or (scores.argmax(1) != expected.argmax(1)).any():
        raise UserError(
            f"onnxruntime's scores differ from PyTorch's by {difference:.1e}; nothing was written; try other versions"
        )
    return difference


if __name__ == "__main__":
    utils.run_script(main)
