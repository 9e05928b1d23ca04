"""What the scripts share: one-line errors, the device, whole files, evaluation."""

import errno
import json
import os
import sys

import pytest
import torch

import utils
from model import LeNet5, pad, scale
from utils import UserError


def test_numbers_on_the_command_line():
    for text, value in ("1", 1), ("20", 20), ("100000", 100_000):
        assert utils.positive(int)(text) == utils.positive(float)(text) == value
    assert [utils.seed(text) for text in ("0", "7", str(2**32 - 1))] == [0, 7, 2**32 - 1]  # what torch takes whole
    refused = [(utils.seed, text) for text in ("-1", str(2**32), "1.5", "x")]
    for text in ("0", "-1", "100001", "nan", "inf", "-inf", "x", "", "1e", "9" * 5000):
        refused += [(utils.positive(int), text), (utils.positive(float), text)]
    for kind, text in refused:
        with pytest.raises(ValueError):
            kind(text)


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


def test_a_script_ends_as_its_main_does():
    for returned in None, 0, 1:
        with pytest.raises(SystemExit) as stop:
            utils.run_script(lambda returned=returned: returned)
        assert stop.value.code == returned
    with pytest.raises(RuntimeError, match="shapes"):  # nobody's mistake, and not hidden
        utils.run_script(lambda: fail(RuntimeError("shapes cannot be multiplied")))


@pytest.mark.parametrize("name", ["", "meta", "gpu", "cuda:99", "cpu:-1", "mkldnn", "opengl", "xla", "privateuseone"])
def test_a_device_that_cannot_be_used_is_refused(name, capfd, recwarn):
    with pytest.raises(UserError, match="--device"):
        utils.pick_device(name)
    assert capfd.readouterr() == ("", "") and not recwarn


def test_auto_is_the_cpu_where_the_gpu_cannot_compute(monkeypatch, capfd):
    assert utils.pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert utils.pick_device("auto").type == "cpu" and capfd.readouterr().err == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(utils, "why_unusable", lambda name: "no kernel image")
    assert utils.pick_device("auto").type == "cpu"
    assert capfd.readouterr().err == "WARNING: the GPU cannot be used (no kernel image); going on with the CPU\n"


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_on_a_gpu_results_repeat_or_the_setting_that_hinders_is_named(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(utils, "why_unusable", lambda name: "")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(UserError, match="CUBLAS_WORKSPACE_CONFIG is ':0:0'.*set it to :4096:8"):
        utils.pick_device(name)
    for workspace in (":16:8", ":4096:8", None):
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace or "")
        if not workspace:
            monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
        try:
            assert utils.pick_device(name).type == "cuda"
            assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.allow_tf32
        finally:
            torch.use_deterministic_algorithms(False)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_on_cuda_the_versions_name_the_gpu(monkeypatch):
    assert utils.versions().keys() == utils.versions(torch.device("cpu")).keys() >= {"python", "torch", "numpy"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    found = utils.versions(torch.device("cuda:1"))
    assert found["gpu"] == "GPU of cuda:1" and "cuda" in found and all(type(value) is str for value in found.values())


def test_files_take_their_places_together(tmp_path):
    path = tmp_path / "new" / "a.json"
    with utils.whole_files(path) as folder:
        (folder / "a.json").write_bytes(b"a")
        (folder / "b.png").write_bytes(b"b")
        assert not path.exists() and folder.parent == path.parent
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {"a.json": b"a", "b.png": b"b"}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), UserError("no")])
def test_files_that_fail_leave_the_old_ones_and_nothing_else(error, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with pytest.raises(type(error)) as raised, utils.whole_files(path) as folder:
        (folder / "a.json").write_bytes(b"new")
        raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.json"]
    assert getattr(raised.value, "filename", str(path)) == str(path)  # not that of the temporary one


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "Record" / "study" / "a.json"
    utils.save_json(path, {"a": [1, "é"]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, "é"]}
    assert path.read_text(encoding="utf-8").endswith("}\n") and os.listdir(path.parent) == ["a.json"]


def test_one_process_writes_at_a_time(tmp_path):
    path = tmp_path / "new" / "a"
    for _ in range(2):
        with utils.sole_writer(path):
            with pytest.raises(UserError, match="another process is writing .*new/a; "), utils.sole_writer(path):
                pass
            with utils.sole_writer(path.with_name("b")), utils.sole_writer(tmp_path / "a"):
                pass  # others are free
    assert os.listdir(path.parent) == []


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    for name in (".a.abc.tmp", ".b.abc.tmp", "mine.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(b"half")
    (tmp_path / ".a.lock").write_bytes(b"")
    (tmp_path / "a").write_bytes(b"whole")
    with utils.sole_writer(tmp_path / "a"):
        pass
    assert sorted(os.listdir(tmp_path)) == [".b.abc.tmp", "a", "mine.tmp"]


def test_scores_are_the_networks_in_batches_of_any_size():
    torch.manual_seed(0)
    model, images = LeNet5(), torch.randint(256, (50, 28, 28), dtype=torch.uint8)
    expected = model(scale(pad(images)))
    for batch_size in (1000, 50, 25, 7):
        torch.testing.assert_close(utils.class_scores(model, pad(images), batch_size), expected.detach())
    right = expected.argmax(1)
    labels = torch.cat([right[:40], (right[40:] + 1) % 10])
    assert utils.accuracy(model, images, labels) == 0.8
