"""The ONNX file: grey levels in, PyTorch's scores out, for any number of images; and what is missing is named."""

import functools
import sys

import numpy as np
import pytest
import torch
from conftest import reference

import utils
from experiments import export_onnx
from model import LeNet5, pad


@pytest.fixture
def run(run_main):
    return functools.partial(run_main, export_onnx.main)


@pytest.fixture
def onnxruntime():
    pytest.importorskip("onnx")
    return pytest.importorskip("onnxruntime")


def test_one_file_with_all_in_it(run, onnxruntime, tmp_path):
    out = run().succeeded().out
    assert "MNIST is not on disk" in out and "360 test digits" in out
    assert sorted(path.name for path in (tmp_path / "Record").iterdir()) == ["LeNet5.onnx", "LeNet5.pt"]
    path = tmp_path / "Record" / "LeNet5.onnx"
    assert path.stat().st_size < 400_000
    session = onnxruntime.InferenceSession(str(path))
    (images,), (scores,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [28, 28])
    assert (scores.name, scores.type, scores.shape[1:]) == ("scores", "tensor(float)", [10])
    random = np.random.default_rng(0)
    model = utils.load_model(reference())
    for count in (1, 3, 1000):
        batch = random.integers(0, 256, (count, 28, 28), np.uint8)
        expected = utils.class_scores(model, pad(torch.from_numpy(batch))).numpy()
        assert np.abs(session.run(None, {"images": batch})[0] - expected).max() < 1e-4


def test_on_mnist(run, onnxruntime, mnist):
    assert "MNIST's 10,000 test digits: the same predictions" in run("--data-dir", mnist).succeeded().out


@pytest.mark.parametrize(
    "arguments", [{"output": "rbf"}, {"subsampling": "average", "connection": "full", "activation": "sigmoid"}]
)
def test_other_networks(onnxruntime, tmp_path, arguments):
    torch.manual_seed(0)
    model = LeNet5(**arguments).eval()
    export_onnx.export(model, tmp_path / "other.onnx")
    images = torch.randint(256, (7, 28, 28), dtype=torch.uint8)
    expected = utils.class_scores(model, pad(images)).numpy()
    np.testing.assert_allclose(export_onnx.run(tmp_path / "other.onnx", images.numpy()), expected, rtol=1e-5, atol=1e-4)


def test_a_difference_is_an_error_and_nothing_is_written(run, onnxruntime, monkeypatch, tmp_path):
    monkeypatch.setattr(export_onnx, "run", lambda path, images: np.zeros((len(images), 10), np.float32))
    run().refused("differ", "nothing was written")
    assert [path.name for path in (tmp_path / "Record").iterdir()] == ["LeNet5.pt"]


def test_missing_packages_are_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    run().refused("onnxruntime", "pip install")
