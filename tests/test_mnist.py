"""MNIST unpacked and fetched, and the digits in its form."""

import errno
import os
import socket
import sys
import threading

import pytest
import torch

from mnist import find_dataset, load_dataset
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
    (images, labels), (test_images, test_labels) = (load_dataset("digits", None, part) for part in ("train", "test"))
    assert images.shape == (1437, 28, 28) and test_images.shape == (360, 28, 28)
    assert labels.shape == (1437,) and test_labels.shape == (360,)
    assert images.dtype == torch.uint8 and labels.dtype == torch.int64
    assert torch.cat([labels, test_labels]).bincount().min() > 170
    ink = torch.cat([images, test_images]).amax(0) > 0
    assert images.max() == 255 and ink.sum() == ink[4:-4, 4:-4].sum() > 300  # 20x20 in 28x28


@pytest.fixture
def serve(monkeypatch):
    """A mirror that answers each request with these bytes, and then closes the connection, or, given None, never."""
    server, connections = socket.create_server(("127.0.0.1", 0)), []
    torchvision = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(torchvision.MNIST, "mirrors", [f"http://127.0.0.1:{server.getsockname()[1]}/mnist/"])
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")

    def serve(answer):
        def loop():
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return
                if answer is not None:
                    name = connections[-1].recv(65536).split()[1].decode().rpartition("/")[2]
                    connections[-1].sendall(answer(name))
                    connections[-1].close()

        threading.Thread(target=loop, daemon=True).start()

    yield serve
    server.close()


def http(content):
    return b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content


def test_archives_are_unpacked_and_only_the_unpacked_are_needed(tiny_mnist):
    raw = tiny_mnist / "MNIST" / "raw"
    archives = list(raw.iterdir())
    assert find_dataset("auto", tiny_mnist) == "mnist"
    for archive in archives:
        archive.unlink()
    assert len(list(raw.iterdir())) == 4
    assert find_dataset("auto", tiny_mnist) == "mnist"
    images, labels = load_dataset("mnist", tiny_mnist, "train")
    assert images.shape == (600, 28, 28) and labels[:12].tolist() == [*range(10), 0, 1]


def test_archives_are_enough_where_nothing_can_be_written(tiny_mnist, monkeypatch):
    def refuse(*paths):
        raise PermissionError(errno.EACCES, "Permission denied", *paths)

    monkeypatch.setattr(os, "replace", refuse)
    assert find_dataset("mnist", tiny_mnist) == "mnist"
    assert load_dataset("mnist", tiny_mnist, "test")[0].shape == (200, 28, 28)
    assert len(list((tiny_mnist / "MNIST" / "raw").iterdir())) == 4


def test_mnist_is_fetched(tiny_mnist, tmp_path, serve):
    raw, data = tiny_mnist / "MNIST" / "raw", tmp_path / "fetched"
    serve(lambda name: http((raw / name).read_bytes()))
    assert find_dataset("auto", data) == "mnist"
    fetched = {path.name: path.read_bytes() for path in (data / "MNIST" / "raw").iterdir()}
    assert len(fetched) == 8 and all(fetched[path.name] == path.read_bytes() for path in raw.glob("*.gz"))


ANSWERS = {
    "nothing": lambda name: b"",
    "another page": lambda name: http(b"<html>Please log in</html>"),
    "not found": lambda name: b"HTTP/1.0 404 Not Found\r\n\r\n",
    "half": lambda name: http(b"\x1f\x8b" * 100)[:-50],
    "never": None,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_download_that_fails_is_told_and_leaves_nothing(answer, tmp_path, serve, monkeypatch):
    monkeypatch.setattr("mnist.DOWNLOAD_TIMEOUT", 0.5)
    serve(answer)
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz is missing and could not be fetched"):
        find_dataset("mnist", tmp_path)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_torchvision_that_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(UserError, match="torchvision does not go with torch"):
        find_dataset("auto", tmp_path)
