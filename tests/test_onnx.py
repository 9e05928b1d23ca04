"""The ONNX file: grey levels in, PyTorch's scores out, for any number of images; and what is missing is named."""

import sys

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import reference

import checkpoint
import reader
from model import LeNet5, pad, scale
from tools import export_onnx
from utils import class_scores


def test_one_file_with_all_in_it(run_main, tmp_path):
    assert "360 test digits: the same predictions" in run_main(export_onnx.main).succeeded().out
    assert {path.name for path in (tmp_path / "Record").iterdir()} == {"LeNet5.onnx", checkpoint.FILE}
    session = onnxruntime.InferenceSession(str(tmp_path / "Record" / "LeNet5.onnx"))
    for put, name, kind, shape in (
        (session.get_inputs(), "images", "tensor(uint8)", [28, 28]),
        (session.get_outputs(), "scores", "tensor(float)", [10]),
    ):
        assert [(one.name, one.type, one.shape[1:]) for one in put] == [(name, kind, shape)]


SIMPLE = {"subsampling": "average", "connection": "full", "activation": "sigmoid"}


@pytest.mark.parametrize("arguments", [None, {"output": "rbf"}, SIMPLE])
def test_scores_are_those_of_pytorch(tmp_path, arguments):
    torch.manual_seed(0)
    model = checkpoint.network(reference()) if arguments is None else LeNet5(**arguments).eval()
    export_onnx.export(export_onnx.Exported(model), tmp_path / "file.onnx")
    for count in (1, 3, 1000):
        images = torch.randint(256, (count, 28, 28), dtype=torch.uint8)
        scores = export_onnx.run(tmp_path / "file.onnx", images.numpy())
        np.testing.assert_allclose(scores, class_scores(model, pad(images)), rtol=1e-5, atol=1e-4)


def test_lines_of_any_width(tmp_path):
    torch.manual_seed(0)
    model = LeNet5(**reader.RECIPE.network).eval()
    export_onnx.export(export_onnx.Swept(model), tmp_path / "file.onnx", "lines", torch.zeros(2, 32, 60).byte())
    for count, width in ((1, 34), (3, 35), (2, 300)):
        lines = torch.randint(256, (count, 32, width), dtype=torch.uint8)
        with torch.inference_mode():
            expected = reader.sweep(model, scale(lines))
        scores = export_onnx.run(tmp_path / "file.onnx", lines.numpy(), "lines")
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)


def test_a_difference_is_an_error_and_nothing_is_written(run_main, monkeypatch, tmp_path):
    run = export_onnx.run
    monkeypatch.setattr(export_onnx, "run", lambda path, images: run(path, images) + 0.001)
    run_main(export_onnx.main).refused("differ", "nothing was written")
    assert [path.name for path in (tmp_path / "Record").iterdir()] == [checkpoint.FILE]


def test_missing_packages_are_named(run_main, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    run_main(export_onnx.main).refused("onnxruntime", "pip install")
