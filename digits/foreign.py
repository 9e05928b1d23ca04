"""Digits that are not MNIST's: test sets of other people, other pens and other scanners, as tensors.

    images, labels = load("usps", Path("data"))  # uint8 (N, H, W), ink 255; int64 (N,)

None of them is downloaded here: data/README.md names the files and where they are published. They are for testing
alone; nothing is trained on them, and nothing is chosen on them.
"""

import gzip
import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from digits.mnist import Digits
from utils import UserError, shown

UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases"


def parse_usps(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """A line for each digit: its label, and 16x16 grey levels from -1, paper, to 1, ink."""
    rows = np.array(content.split(), float).reshape(-1, 257)
    return np.rint((rows[:, 1:] + 1) * 127.5).reshape(-1, 16, 16), rows[:, 0]


def parse_optdigits(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """A head, for each digit 32 lines of 32 characters, 1 for ink, and one with its label, and the word EOF."""
    rows = np.array(content.partition(b"lastparag = 0")[2].split()[:-1]).reshape(-1, 33)
    pixels = np.frombuffer(b"".join(rows[:, :-1].flat), np.uint8).reshape(-1, 32, 32)
    return (pixels == ord("1")) * 255, rows[:, -1]


def parse_semeion(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """A line for each digit: 16x16 pixels, 1 for ink, and ten columns, 1 in that of its label."""
    rows = np.array(content.split(), float).reshape(-1, 266)
    return rows[:, :256].reshape(-1, 16, 16) * 255, rows[:, 256:].argmax(1)


class Source(NamedTuple):
    """A file of digits."""

    title: str
    file: str  # in the data folder; as a .gz, too
    place: str  # where it is published
    parse: Callable[[bytes], tuple[np.ndarray, np.ndarray]]  # its content -> grey levels (N, H, W), labels (N,)
    digest: str  # MD5 of the digits in it: pixels, then labels, a byte each. Copies differ in blanks and line ends


SOURCES = {
    "usps": Source(
        "USPS",
        "elsewhere/zip.test",
        "https://hastie.su.domains/ElemStatLearn/datasets/zip.test.gz",
        parse_usps,
        "6d938a1a162f5d68f37f0141aefd4dd2",
    ),
    "optdigits": Source(
        "optdigits",
        "elsewhere/optdigits-orig.windep",
        f"{UCI}/optdigits/optdigits-orig.windep.Z",
        parse_optdigits,
        "ffe52b4cd2c7d9a1715fa49d75434e30",
    ),
    "semeion": Source(
        "Semeion",
        "elsewhere/semeion.data",
        f"{UCI}/semeion/semeion.data",
        parse_semeion,
        "c393982d0e9a5e83897c62d4143afd45",
    ),
}
# What torchvision may have fetched into the data folder: the set's title, a file of it, the number of digits.
TORCHVISION = {
    "torchvision-usps": ("USPS, torchvision's file", "usps.t.bz2", 2_007),
    "qmnist": ("QMNIST's other test digits", "QMNIST/raw/qmnist-test-images-idx3-ubyte", 50_000),
    "emnist": ("EMNIST digits, test set", "EMNIST/raw/emnist-digits-test-images-idx3-ubyte", 40_000),
}
TITLES = {name: source.title for name, source in SOURCES.items()} | {name: row[0] for name, row in TORCHVISION.items()}


def find(name: str, data_dir: Path) -> Path | None:
    """The file of a set, if it is in the data folder."""
    if name in TORCHVISION:
        paths = [data_dir / TORCHVISION[name][1]]
    else:
        paths = [data_dir / f"{SOURCES[name].file}{end}" for end in ("", ".gz")]
    return next((path for path in paths if path.exists()), None)


def load(name: str, data_dir: Path) -> Digits:
    """The images, uint8 (N, H, W), ink 255, and labels, int64 (N,), of a set that is in the data folder.

    Raises UserError if its file is damaged or another one.
    """
    path = find(name, data_dir)
    try:
        if name in TORCHVISION:
            images, labels = load_torchvision(name, data_dir)
        else:
            images, labels = parse_file(SOURCES[name], path)
    except (EOFError, ValueError, gzip.BadGzipFile, zlib.error):
        where = SOURCES[name].place if name in SOURCES else "torchvision"
        raise UserError(f"{shown(path)} is damaged or holds other digits; fetch it anew from {where}") from None
    return torch.from_numpy(images), torch.from_numpy(labels)


def parse_file(source: Source, path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = path.read_bytes()
    pixels, labels = source.parse(gzip.decompress(content) if path.suffix == ".gz" else content)
    images, labels = pixels.astype(np.uint8), labels.astype(np.int64)
    if digest(images, labels) != source.digest:
        raise ValueError("other digits")
    return images, labels


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    return hashlib.md5(images.tobytes() + labels.astype(np.uint8).tobytes(), usedforsecurity=False).hexdigest()


def load_torchvision(name: str, data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same from the files that torchvision's own classes have fetched. Raises ValueError if they are damaged."""
    try:
        from torchvision import datasets

        if name == "torchvision-usps":
            found = datasets.USPS(data_dir, train=False)
        elif name == "qmnist":
            found = datasets.QMNIST(data_dir, what="test50k")  # the first 10,000 are MNIST's
        else:
            found = datasets.EMNIST(data_dir, split="digits", train=False)
        images, labels = np.asarray(found.data), np.asarray(found.targets, np.int64)
    except Exception as error:  # its readers raise whatever the bytes lead to
        raise ValueError(f"torchvision cannot read it: {error}") from None
    labels = labels[:, 0] if labels.ndim == 2 else labels  # QMNIST tells the writer, too
    if len(images) != TORCHVISION[name][2] or labels.shape != images.shape[:1] or not np.isin(labels, range(10)).all():
        raise ValueError("other digits")
    if name == "emnist":
        images = images.transpose(0, 2, 1)  # EMNIST's files have rows and columns exchanged
    return images.copy(), labels
