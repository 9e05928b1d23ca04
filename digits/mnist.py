"""The data sets as tensors: MNIST, each of its files verified, and scikit-learn's small digits in MNIST's form."""

import gzip
import hashlib
import http.client
import os
import shutil
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils import UserError, shown, whole_files

Digits = tuple[Tensor, Tensor]  # images uint8 (N, 28, 28), ink 255, and labels int64 (N,)


class Data(NamedTuple):
    """A data set, on the device that trains."""

    name: str  # "mnist" or "digits"
    train: Digits
    test: Digits


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
FOLDERS = ("MNIST/raw", "MNIST", "raw", ".")  # below the data folder, where people have the files; the first is ours
DOWNLOAD_TIMEOUT = 15  # seconds without a byte


def on_disk(data_dir: Path, name: str) -> list[Path]:
    """What is there of one of MNIST's files, unpacked or as an archive, under the names and in the folders in use."""
    names = [f"{stem}{end}" for stem in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]
    return [path for folder in FOLDERS for each in names if os.path.lexists(path := data_dir / folder / each)]


def read_verified(path: Path, md5: str, size: int) -> bytes | None:
    """The content of a file of at most `size` bytes, or None if its MD5 sum is another or it is no file."""
    if not path.is_file() or path.stat().st_size > size:
        return None
    content = path.read_bytes()
    return content if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5 else None


def mnist_content(data_dir: Path, name: str, archive_md5: str, md5: str, size: int) -> bytes:
    """The content of one of MNIST's four files, verified; unpacked from its archive, or downloaded, where need be."""
    found = on_disk(data_dir, name)
    if not found:
        found = [data_dir / FOLDERS[0] / f"{name}.gz"]
        download(found[0], archive_md5)
    for path in found:
        packed = path.suffix == ".gz"
        content = read_verified(path, archive_md5 if packed else md5, size)
        if content is not None and packed:
            content = gzip.decompress(content)
            unpacked = path.with_suffix("")
            with suppress(OSError), whole_files(unpacked) as folder:  # where it cannot be kept, it is not needed
                (folder / unpacked.name).write_bytes(content)
        if content is not None:
            return content
    raise UserError(f"{shown(found[-1])} is damaged or not MNIST's; delete it, and it is fetched again")


def download(archive: Path, md5: str):
    """Fetch one of MNIST's archives from torchvision's mirrors; raises DownloadError after the last of them fails."""
    try:
        from torchvision.datasets import MNIST as TorchvisionMNIST
        from torchvision.datasets.utils import download_url
    except (ImportError, RuntimeError) as error:
        raise UserError(f"torchvision does not go with torch ({error}); install both anew, in one command") from None

    print(f"fetching {archive.name} ...")
    before, reasons = socket.getdefaulttimeout(), []
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        for mirror in TorchvisionMNIST.mirrors:
            try:
                with tempfile.TemporaryDirectory() as fetched:  # the data folder is made for what is there
                    download_url(mirror + archive.name, fetched, archive.name, md5)
                    with whole_files(archive) as folder:
                        shutil.copy(Path(fetched, archive.name), folder)
                return
            except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
                if str(error) not in reasons:
                    reasons.append(str(error))
    finally:
        socket.setdefaulttimeout(before)
    raise DownloadError(
        f"{shown(archive)} is missing and could not be fetched ({'; '.join(reasons)}); put MNIST's four .gz files into "
        f"{shown(archive.parent)}"
    )


class DownloadError(UserError):
    """MNIST is not on disk and cannot be fetched."""


def find_dataset(choice: str, data_dir: Path) -> str:
    """The data set that --dataset means, "mnist" or "digits", fetched where need be.

    auto falls back to digits only if nothing of MNIST is on disk and it cannot be fetched, and says so. Raises
    DownloadError if MNIST is incomplete.
    """
    if choice == "digits":
        return "digits"
    files = [file for files in MNIST.values() for file in files]
    missing = [file for file in files if not on_disk(data_dir, file[0])]
    try:
        for name, archive_md5, *_ in missing:
            download(data_dir / FOLDERS[0] / f"{name}.gz", archive_md5)
    except DownloadError as error:
        if choice == "mnist" or len(missing) < len(files):
            raise
        print(f"WARNING: {error}", file=sys.stderr)
        print("WARNING: going on with scikit-learn's 1,797 small digits INSTEAD OF MNIST.", file=sys.stderr)
        return "digits"
    return "mnist"


def load(name: str, data_dir: Path, device: torch.device | str = "cpu") -> Data:
    """The data set "mnist" or "digits" on a device. Raises UserError if a file of MNIST's is missing or damaged."""
    train, test = (
        tuple(tensor.to(device) for tensor in load_dataset(name, data_dir, subset)) for subset in ("train", "test")
    )
    return Data(name, train, test)


def load_dataset(name: str, data_dir: Path, subset: str) -> Digits:
    """The images and labels of "mnist" or "digits", subset "train" or "test", verified. Raises UserError as `load`."""
    if name == "mnist":
        images, labels = (mnist_content(data_dir, *file) for file in MNIST[subset])
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
