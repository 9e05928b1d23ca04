"""The data sets as tensors: MNIST, each of its files verified, and scikit-learn's small digits in MNIST's form."""

import gzip
import hashlib
import http.client
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils import UserError, whole_files

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
        with suppress(OSError), whole_files(folder / name) as temporary:  # where it cannot be kept, it is not needed
            (temporary / name).write_bytes(content)
    return content


def download(archive: Path, md5: str):
    """Fetch one of MNIST's archives from torchvision's mirrors; raises DownloadError after the last of them fails."""
    try:
        from torchvision.datasets import MNIST as TorchvisionMNIST
        from torchvision.datasets.utils import download_url
    except (ImportError, RuntimeError) as error:
        raise UserError(f"torchvision does not go with torch ({error}); install both anew, in one command") from None

    print(f"fetching {archive.name} ...")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        for mirror in TorchvisionMNIST.mirrors:
            try:
                with whole_files(archive) as folder:
                    download_url(mirror + archive.name, str(folder), archive.name, md5)
                return
            except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
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
