"""What the scripts share: errors in one line, the device, the data sets as tensors, checkpoints, evaluation."""

import argparse
import gzip
import hashlib
import json
import math
import os
import pickle
import platform
import signal
import socket
import sys
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model import LeNet5, pad, scale

RECORD = Path("Record")


class UserError(Exception):
    """A mistake of the user or a broken file, told in one line: what is wrong, where, and what to do."""


# ---------------------------------------------------------------------------------------------- command line


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str):
        raise UserError(f"{message}; --help lists the options")


def positive(kind: type) -> Callable[[str], float]:
    """An argparse type: a finite number above 0."""

    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < 1e9:
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse


def seed(text: str) -> int:
    """An argparse type: what torch takes as a seed, a whole number from 0 below 2**63."""
    if not 0 <= (value := int(text)) < 2**63:
        raise ValueError
    return value


def run_script(main: Callable[[], int | None]):
    """Run main and exit: with status 2 and one line for a mistake or a broken file, 130 for Ctrl-C, 143 for SIGTERM."""

    def terminate(signum, frame):
        raise SystemExit(128 + signum)

    def complain(message: str) -> None:
        print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)

    signal.signal(signal.SIGTERM, terminate)
    try:
        status = main()
    except UserError as error:
        complain(str(error))
        status = 2
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        complain(
            f"cannot read or write{where}: {error.strerror or error}; check the path, the rights and the free space"
        )
        status = 2
    except (KeyboardInterrupt, SystemExit) as stop:
        status = 130 if isinstance(stop, KeyboardInterrupt) else stop.code
        if status in (130, 143):
            complain("stopped; what was finished before is on disk, and --resume goes on from there")
    sys.exit(status)


def pick_device(name: str) -> torch.device:
    """The device that --device names, made ready for repeatable float32 arithmetic; auto is CUDA if there is any."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    try:
        device = torch.device(name)
        torch.ones(1, device=device).add_(1).cpu()
    except Exception as error:  # each backend has its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--device {name} cannot be used here ({reason}); leave it out, or take cpu") from None
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return device


def versions() -> dict[str, str]:
    """What a figure was made with, for the files that hold figures."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def record_dir(recipe: str, dataset: str) -> Path:
    """Where a run's files are kept: Record itself for the default recipe on MNIST, else a folder of its own below."""
    return RECORD.joinpath(*(name for name in (recipe, dataset) if name not in ("adam", "mnist")))


@contextmanager
def whole_file(path: Path):
    """A temporary path in path's folder to write to; it takes path's place at the end, or is gone if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_json(path: Path, content: dict):
    """Write a file of figures, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------- data sets

# For each set: the file of the images and of the labels with the MD5 sums of archive and content, and how many.
MNIST = {
    "train": (
        ("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb", 47_040_016),
        ("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624", 60_008),
    ),
    "test": (
        ("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea", 7_840_016),
        ("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637", 10_008),
    ),
}  # fmt: skip
DOWNLOAD_TIMEOUT = 15  # seconds without a byte


def read_verified(path: Path, md5: str, size: int) -> bytes | None:
    """The content of a file of at most `size` bytes, or None if its MD5 sum is another or it is no file."""
    if not path.is_file() or path.stat().st_size > size:
        return None
    content = path.read_bytes()
    return content if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5 else None


def mnist_content(folder: Path, name: str, archive_md5: str, md5: str, size: int) -> bytes:
    """The content of one of MNIST's four files, verified; unpacked from its archive, or downloaded, where need be."""
    content = read_verified(folder / name, md5, size)
    if content is None:
        archive = folder / f"{name}.gz"
        if not os.path.lexists(archive):
            if os.path.lexists(folder / name):
                raise UserError(f"{folder / name} is damaged or not MNIST's; delete it, and it is fetched again")
            download(archive, archive_md5)
        packed = read_verified(archive, archive_md5, size)
        if packed is None:
            raise UserError(f"{archive} is damaged or not MNIST's; delete it, and it is fetched again")
        content = gzip.decompress(packed)
        with whole_file(folder / name) as temporary:
            temporary.write_bytes(content)
    return content


def download(archive: Path, md5: str):
    """Fetch one of MNIST's archives from torchvision's mirrors; raises DownloadError after the last of them fails."""
    from torchvision.datasets import MNIST as TorchvisionMNIST
    from torchvision.datasets.utils import download_url

    print(f"fetching {archive.name} ...", file=sys.stderr)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        for mirror in TorchvisionMNIST.mirrors:
            try:
                with whole_file(archive) as temporary:
                    download_url(mirror + archive.name, str(temporary.parent), temporary.name, md5)
                return
            except (OSError, RuntimeError, ValueError) as error:
                reason = error
    finally:
        socket.setdefaulttimeout(before)
    raise DownloadError(
        f"{archive} is missing and could not be fetched ({reason}); put MNIST's four .gz files into {archive.parent}"
    )


class DownloadError(UserError):
    """MNIST is not on disk and cannot be fetched."""


def find_dataset(choice: str, data_dir: Path) -> str:
    """The data set that --dataset means, "mnist" or "digits": auto falls back to digits only if nothing of MNIST is
    on disk and it cannot be fetched, and says so. Raises UserError if MNIST is incomplete or damaged."""
    if choice == "digits":
        return "digits"
    folder = data_dir / "MNIST" / "raw"
    files = [file for files in MNIST.values() for file in files]
    absent = not any(os.path.lexists(folder / f"{name}{end}") for name, *_ in files for end in ("", ".gz"))
    try:
        for file in files:
            mnist_content(folder, *file)
    except DownloadError as error:
        if choice == "mnist" or not absent:
            raise
        print(f"WARNING: {error}", file=sys.stderr)
        print("WARNING: going on with scikit-learn's 1,797 small digits INSTEAD OF MNIST.", file=sys.stderr)
        return "digits"
    return "mnist"


def load_dataset(name: str, data_dir: Path, subset: str) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 28, 28), ink 255, and labels int64 (N,) of "mnist" or "digits", subset "train" or "test"."""
    if name == "mnist":
        images, labels = (mnist_content(data_dir / "MNIST" / "raw", *file) for file in MNIST[subset])
        images = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
        labels = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
        return torch.from_numpy(images.copy()), torch.from_numpy(labels)
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images / 16 * 255).unsqueeze(1)  # (1797, 1, 8, 8)
    images = F.interpolate(images, size=20, mode="bilinear", align_corners=False).round().squeeze(1)
    images = F.pad(images, (4, 4, 4, 4)).to(torch.uint8)  # MNIST's geometry: 20x20 in 28x28
    part = slice(None, -360) if subset == "train" else slice(-360, None)
    return images[part].clone(), torch.from_numpy(digits.target[part].astype(np.int64))


# ---------------------------------------------------------------------------------------------- checkpoints

FORMAT = 1
LARGEST = 2**24  # bytes that a checkpoint's contents may take; LeNet5's is one MiB
STORAGES = {"FloatStorage": 4, "ByteStorage": 1}  # the tensors a checkpoint holds, and their bytes an element
KEYS = {
    "format": int, "arguments": dict, "model": dict, "last": dict, "optimizer": dict, "epoch": int,
    "random_state": Tensor, "history": list, "recipe": dict, "dataset": str, "seed": int, "versions": dict,
}  # fmt: skip


class Inspection(pickle.Unpickler):
    """Reads a checkpoint's pickle without making anything of it but plain containers, to see that it is harmless.

    torch.load(weights_only=True) alone has let code run (up to 2.5.1) and memory be overwritten (below 2.10). This lets
    pass only tensors that lie inside a storage whose size is that of its file.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.sizes = {info.filename: info.file_size for info in archive.infolist()}
        self.root = root

    def find_class(self, module, name):
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.tensor
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise ValueError(f"it names {module}.{name}")

    def persistent_load(self, storage):
        kind, width, key, _, count = storage
        if kind != "storage" or self.sizes[f"{self.root}/data/{key}"] != width * count:
            raise ValueError("a tensor's size is wrong")
        return count

    @staticmethod
    def tensor(count, offset, shape, stride, requires_grad, hooks, *metadata):
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        if metadata or hooks or min(offset, *shape, *stride, 0) < 0 or math.prod(shape) > count or last >= count:
            raise ValueError("a tensor lies outside its storage")


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint that ClassifyTask_train.py wrote; raises UserError if the file is anything else."""
    advice = "name another with --checkpoint, or train with ClassifyTask_train.py"
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; {advice}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            root = members[0].filename.split("/")[0]
            for member in members:
                parts = member.filename.split("/")
                if parts[0] != root or ".." in parts or "\\" in member.filename or member.compress_type:
                    raise ValueError(f"it holds {member.filename!r}")
            if sum(member.file_size for member in members) > LARGEST or len({m.filename for m in members}) < len(
                members
            ):
                raise ValueError("its contents are too large or doubled")
            Inspection(archive, root).load()
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        check(checkpoint)
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes zipfile, pickle and torch raise
        raise UserError(f"{path} is no checkpoint of this project, or damaged ({error}); {advice}") from None
    return checkpoint


def check(checkpoint: dict):
    """Raise ValueError unless a checkpoint has the keys, types, shapes and finite weights that the format asks for."""
    for key, kind in KEYS.items():
        if not isinstance(checkpoint.get(key), kind):
            raise ValueError(f"{key} is missing or of another type")
    if checkpoint["format"] != FORMAT:
        raise ValueError(f"its format is {checkpoint['format']}, not {FORMAT}")
    if checkpoint["dataset"] not in ("mnist", "digits"):
        raise ValueError("its data set is unknown")
    if len(checkpoint["history"]) != checkpoint["epoch"]:
        raise ValueError("its history is not as long as its epochs")
    for epoch in checkpoint["history"]:
        for key in ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"):
            if not isinstance(epoch[key], (int, float)):
                raise ValueError(f"{key} in its history is no number")
    for weights in ("model", "last"):
        state = LeNet5(**checkpoint["arguments"]).state_dict()
        found = checkpoint[weights]
        if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in found.items()}:
            raise ValueError(f"{weights} is not the network its arguments name")
        if not all(v.dtype == torch.float32 and v.isfinite().all() for v in found.values()):
            raise ValueError(f"{weights} holds numbers that are not finite float32")


def save_checkpoint(path: Path, checkpoint: dict):
    """Write a checkpoint so that at every moment the file at path is whole: the old one or the new one."""
    with whole_file(path) as temporary:
        torch.save(checkpoint, temporary)


def load_model(checkpoint: dict, weights: str = "model") -> LeNet5:
    """The checkpoint's network with its weights "model" (those reported) or "last" (those of the last step)."""
    model = LeNet5(**checkpoint["arguments"])
    model.load_state_dict(checkpoint[weights])
    return model.eval()


# ---------------------------------------------------------------------------------------------- evaluation


@torch.inference_mode()
def class_scores(model: LeNet5, images: Tensor, batch_size: int = 500) -> Tensor:
    """Class scores (N, 10) of padded images uint8 (N, 32, 32) on the model's device."""
    return torch.cat([model(scale(batch)) for batch in images.split(batch_size)])


def accuracy(checkpoint: dict, weights: str, test_set: tuple[Tensor, Tensor]) -> float:
    """The share of a set's digits, images uint8 (N, 28, 28) and labels (N,), that a checkpoint's weights get right."""
    images, labels = test_set
    scores = class_scores(load_model(checkpoint, weights).to(images.device), pad(images))
    return (scores.argmax(1) == labels).double().mean().item()
