"""What the scripts share: one-line errors, the device, whole files, evaluation."""

import errno
import os
import signal
import sys
import time

import pytest
import torch
from conftest import contents, run_here

import utils
from model import LeNet5, pad, scale
from utils import UserError


def fail(error):
    raise error


ERRORS = [
    (UserError("this is\nwrong"), 2, "this is wrong"),
    (OSError(errno.ENOSPC, "No space left on device", "Record/a"), 2, "Record/a: No space left"),
    (OSError(errno.EISDIR, "Is a directory", ".a.tmp", None, "Record/a"), 2, "Record/a: Is a directory"),
    (OSError("encoder error"), 2, "encoder error"),
    (MemoryError(), 2, "out of memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "out of memory"),
    (KeyboardInterrupt(), 130, "--resume"),
    (SystemExit(143), 143, "--resume"),
]


@pytest.mark.parametrize(("error", "status", "words"), ERRORS, ids=[repr(error[0]) for error in ERRORS])
def test_an_error_is_one_line_and_a_status(error, status, words, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["/some/where/ClassifyTask_train.py"])
    with pytest.raises(SystemExit) as stop:
        utils.run_script(lambda: fail(error))
    out, err = capfd.readouterr()
    assert stop.value.code == status and out == ""
    assert err.startswith("ClassifyTask_train.py: ") and err.count("\n") == 1 and words in err


class Rude:
    """An object during whose end a signal comes. Python ignores what is raised there."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_comes_where_exceptions_are_ignored_is_not_lost(number, status):
    def main():
        Rude(number)
        for _ in range(100):
            time.sleep(0.05)

    assert run_here(main, "script.py").said("stopped").status == status


def test_an_error_that_is_nobodys_mistake_is_not_hidden():
    with pytest.raises(RuntimeError, match="shapes"):
        utils.run_script(lambda: fail(RuntimeError("shapes cannot be multiplied")))


def test_auto_is_the_cpu_where_the_gpu_cannot_compute(monkeypatch, capfd):
    assert utils.pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert utils.pick_device("auto").type == "cpu" and capfd.readouterr().err == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(utils, "why_unusable", lambda name: "no kernel image")
    assert utils.pick_device("auto").type == "cpu"
    assert capfd.readouterr().err == "WARNING: the GPU cannot be used (no kernel image); going on with the CPU\n"


def test_on_a_gpu_results_repeat_or_the_setting_that_hinders_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(utils, "why_unusable", lambda name: "")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(UserError, match="CUBLAS_WORKSPACE_CONFIG is ':0:0'.*set it to :4096:8"):
        utils.pick_device("auto")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    try:
        assert utils.pick_device("auto").type == "cuda"
        assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.allow_tf32
    finally:
        torch.use_deterministic_algorithms(False)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), UserError("no")])
def test_files_take_their_places_together_or_not_at_all(error, tmp_path):
    (tmp_path / "a.json").write_bytes(b"old")
    with pytest.raises(type(error)), utils.whole_files(tmp_path / "a.json") as folder:
        (folder / "a.json").write_bytes(b"new")
        raise error
    assert (tmp_path / "a.json").read_bytes() == b"old" and os.listdir(tmp_path) == ["a.json"]
    with utils.whole_files(tmp_path / "a.json") as folder:
        (folder / "a.json").write_bytes(b"new")
        (folder / "b.png").write_bytes(b"figure")
        assert (tmp_path / "a.json").read_bytes() == b"old"
    assert contents(tmp_path) == {tmp_path / "a.json": b"new", tmp_path / "b.png": b"figure"}


def test_scores_are_the_networks_in_batches_of_any_size():
    torch.manual_seed(0)
    model, images = LeNet5(), torch.randint(256, (50, 28, 28), dtype=torch.uint8)
    expected = model(scale(pad(images)))
    for batch_size in 50, 7:
        torch.testing.assert_close(utils.class_scores(model, pad(images), batch_size), expected.detach())
    right = expected.argmax(1)
    labels = torch.cat([right[:40], (right[40:] + 1) % 10])
    assert utils.accuracy(model, images, labels) == 0.8
