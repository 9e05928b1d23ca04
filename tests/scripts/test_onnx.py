"""The ONNX file: grey levels in, PyTorch's logits out, for any number of images; and what is missing is named."""

import sys

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import REFERENCE

from model import LeNet5, normalize, pad
from reading.sweep import sweep
from tools import export_onnx
from training import checkpoint
from training.recipes import RECIPES
from utils import class_logits


def test_one_file_with_all_in_it(run_main, tmp_path):
    result = run_main(export_onnx.main).succeeded()
    assert result.out.startswith("no training run of yours: made of the network shipped") and result.err == ""
    assert "test digits: the same predictions of all 360" in result.out
    run_main(export_onnx.main, "--output", "new/own.onnx").succeeded()
    assert "shipped" not in run_main(export_onnx.main, "--reference").succeeded().out
    paths = [tmp_path / path for path in ("Record/LeNet5.onnx", "new/own.onnx", "Record/reference/LeNet5.onnx")]
    assert set(tmp_path.rglob("*.onnx")) == set(paths) and len({path.read_bytes() for path in paths}) == 1
    session = onnxruntime.InferenceSession(str(paths[0]))
    found = [(put.name, put.type, put.shape[1:]) for put in (*session.get_inputs(), *session.get_outputs())]
    assert found == [("images", "tensor(uint8)", [28, 28]), ("logits", "tensor(float)", [10])]


SIMPLE = {"subsampling": "average", "connection": "full", "activation": "sigmoid"}


@pytest.mark.parametrize("arguments", [{}, {"output": "rbf"}, SIMPLE], ids=["default", "RBF", "simple"])
def test_logits_are_those_of_pytorch(tmp_path, arguments):
    torch.manual_seed(0)
    model = LeNet5(**arguments).eval()
    export_onnx.export(export_onnx.Exported(model), tmp_path / "file.onnx")
    for count in (1, 3, 1000):
        images = torch.randint(256, (count, 28, 28), dtype=torch.uint8)
        logits = export_onnx.run(tmp_path / "file.onnx", images.numpy())
        np.testing.assert_allclose(logits, class_logits(model, pad(images)), rtol=1e-5, atol=1e-4)


def test_lines_of_any_width(run_main, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = LeNet5(**RECIPES["numbers"].model_arguments).eval()
    export_onnx.export(export_onnx.Swept(model), tmp_path / "file.onnx", "lines", torch.zeros(2, 32, 60).byte())
    for count, width in ((1, 34), (3, 35), (2, 300)):
        lines = torch.randint(256, (count, 32, width), dtype=torch.uint8)
        with torch.inference_mode():
            expected = sweep(model, normalize(lines))
        logits = export_onnx.run(tmp_path / "file.onnx", lines.numpy(), "lines")
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-4)
    monkeypatch.setattr(export_onnx, "LINES", 20)
    path = REFERENCE / "numbers" / checkpoint.FILE
    assert "on 20 lines" in run_main(export_onnx.main, "--checkpoint", path).succeeded().out
    assert (tmp_path / "Record" / "LeNet5-numbers.onnx").exists()


def test_a_difference_or_a_missing_package_is_an_error_and_nothing_is_written(run_main, monkeypatch, tmp_path):
    run = export_onnx.run
    monkeypatch.setattr(export_onnx, "run", lambda path, images: run(path, images) + 0.001)
    run_main(export_onnx.main).refused("differ", "nothing was written")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    run_main(export_onnx.main).refused("onnxruntime", "pip install")
    assert [path.name for path in (tmp_path / "Record").iterdir()] == ["reference"]
