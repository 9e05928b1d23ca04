"""MNIST unpacked, found and fetched, and the digits in its form."""

import errno
import http.client
import os
import socket
import sys
import urllib.error
from pathlib import Path

import pytest
import torch
from conftest import contents

from digits import mnist as datasets
from digits.mnist import find_dataset, load, load_dataset
from utils import UserError


def test_real_mnist_is_whole(mnist):
    assert find_dataset("mnist", mnist) == find_dataset("auto", mnist) == "mnist"
    for subset, count, first in ("train", 60_000, [5, 0, 4, 1, 9]), ("test", 10_000, [7, 2, 1, 0, 4]):
        images, labels = load_dataset("mnist", mnist, subset)
        assert images.shape == (count, 28, 28) and images.dtype == torch.uint8
        assert labels.shape == (count,) and labels.dtype == torch.int64
        assert labels[:5].tolist() == first and labels.unique().tolist() == list(range(10))
        assert images.min() == 0 and images.max() == 255


def test_the_digits_have_mnists_geometry():
    parts = [load_dataset("digits", None, part) for part in ("train", "test")]
    for (images, labels), count in zip(parts, (1437, 360)):
        assert images.shape == (count, 28, 28) and labels.shape == (count,)
        assert images.dtype == torch.uint8 and images.max() == 255 and labels.dtype == torch.int64
    images, labels = (torch.cat(tensors) for tensors in zip(*parts))
    ink = images.amax(0) > 0
    assert labels.bincount().min() > 170 and ink.sum() == ink[4:-4, 4:-4].sum() > 300  # 20x20 in 28x28


def test_archives_are_unpacked_and_only_the_unpacked_are_needed(tiny_mnist):
    archives = list((tiny_mnist / "MNIST" / "raw").iterdir())
    assert find_dataset("auto", tiny_mnist) == "mnist"
    load("mnist", tiny_mnist)
    for archive in archives:
        archive.unlink()
    assert len(list((tiny_mnist / "MNIST" / "raw").iterdir())) == 4
    assert find_dataset("auto", tiny_mnist) == "mnist"
    data = load("mnist", tiny_mnist)
    assert data.name == "mnist" and len(data.test[1]) == 200
    assert data.train[0].shape == (600, 28, 28) and data.train[1][:12].tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize("folder", ["MNIST", "raw", "."])
def test_files_under_other_names_and_in_other_folders_are_found(folder, tiny_mnist):
    """As other programs and people keep them: with a point in the name, unpacked or not."""
    load("mnist", tiny_mnist)
    for i, path in enumerate(sorted((tiny_mnist / "MNIST" / "raw").iterdir())):
        if i % 4 in (0, 3):  # of one file the unpacked one, of the next the archive
            (tiny_mnist / folder).mkdir(exist_ok=True)
            path.rename(tiny_mnist / folder / path.name.replace("-idx", ".idx"))
        else:
            path.unlink()
    assert find_dataset("auto", tiny_mnist) == "mnist" and len(load("mnist", tiny_mnist).train[1]) == 600


def test_archives_are_enough_where_nothing_can_be_written(tiny_mnist, monkeypatch):
    def refuse(*paths):
        raise PermissionError(errno.EACCES, "Permission denied", *paths)

    monkeypatch.setattr(os, "replace", refuse)
    assert find_dataset("mnist", tiny_mnist) == "mnist"
    assert load_dataset("mnist", tiny_mnist, "test")[0].shape == (200, 28, 28)
    assert len(list((tiny_mnist / "MNIST" / "raw").iterdir())) == 4


def test_all_mirrors_are_tried_and_their_reasons_named(tiny_mnist, tmp_path, monkeypatch):
    errors = {  # what a download may end with, and what is told of it
        http.client.RemoteDisconnected("no answer"): "no answer",
        urllib.error.HTTPError("", 404, "Not Found", None, None): "404",
        http.client.IncompleteRead(b"", 50): "50 more",
        TimeoutError("timed out"): "timed out",
        RuntimeError("File not found or corrupted."): "corrupted",
        ValueError("unknown url type"): "unknown url",
    }
    raw, mirrors, failing = tiny_mnist / "MNIST" / "raw", [f"http://{i}.example/" for i in range(6)], list(errors)
    sums = {f"{name}.gz": md5 for files in datasets.MNIST.values() for name, md5, *_ in files}

    def download(url, folder, name, md5):
        assert socket.getdefaulttimeout() == datasets.DOWNLOAD_TIMEOUT and md5 == sums[name]
        (mirror,) = (i for i, mirror in enumerate(mirrors) if url == mirror + name)
        Path(folder, name).write_bytes((raw / name).read_bytes() if mirror == 6 else b"half")
        if mirror < 6:
            raise failing[mirror]

    torchvision, data = pytest.importorskip("torchvision.datasets"), tmp_path / "fetched"
    monkeypatch.setattr(torchvision.MNIST, "mirrors", mirrors)
    monkeypatch.setattr(torchvision.utils, "download_url", download)
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz is missing and could not be fetched") as told:
        find_dataset("mnist", data)
    assert all(words in str(told.value) for words in errors.values()) and not data.exists()
    mirrors.append("http://6.example/")
    assert find_dataset("auto", data) == "mnist" and socket.getdefaulttimeout() is None
    assert sorted(contents(data).values()) == sorted(contents(tiny_mnist).values())


def test_a_torchvision_that_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(UserError, match="torchvision does not go with torch"):
        find_dataset("auto", tmp_path)
