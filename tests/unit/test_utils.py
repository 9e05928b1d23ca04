"""What the scripts share: one-line errors, the device, evaluation, whole files, and what these say of their making."""

import errno
import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import ROOT, contents, run_here

import utils
from model import LeNet5, normalize, pad
from training import provenance
from utils import UserError


def fail(error):
    raise error


ERRORS = [
    (OSError(errno.ENOSPC, "No space left on device", "Record/a"), 2, "Record/a: No space left"),
    (OSError(errno.EISDIR, "Is a directory", ".a.tmp", None, "Record/a"), 2, "Record/a: Is a directory"),
    *((UserError("this is\nwrong"), 2, "this is wrong"), (OSError("encoder error"), 2, "encoder error")),
    *((MemoryError(), 2, "out of memory"), (RuntimeError("can't allocate memory"), 2, "out of memory")),
    *((KeyboardInterrupt(), 130, ": stopped\n"), (SystemExit(143), 143, ": stopped\n")),
]


@pytest.mark.parametrize(("error", "status", "words"), ERRORS, ids=[repr(error[0]) for error in ERRORS])
def test_an_error_is_one_line_and_a_status(error, status, words, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["/some/where/ClassifyTask_train.py"])
    with pytest.raises(SystemExit) as stop:
        utils.run_script(lambda: fail(error))
    out, err = capfd.readouterr()
    assert stop.value.code == status and out == ""
    assert err.startswith("ClassifyTask_train.py: ") and err.count("\n") == 1 and words in err
    with pytest.raises(RuntimeError, match="shapes"):  # nobody's mistake, and not hidden
        utils.run_script(lambda: fail(RuntimeError("shapes cannot be multiplied")))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_comes_where_exceptions_are_ignored_is_not_lost(number, status):
    def main():
        type("Rude", (), {"__del__": lambda self: signal.raise_signal(number)})()  # Python ignores what is raised there
        for _ in range(100):
            time.sleep(0.05)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would ignore Ctrl-C
    try:
        assert run_here(main, "script.py").said("stopped").status == status
    finally:
        signal.signal(signal.SIGINT, before)


def test_auto_is_a_gpu_that_can_compute_or_the_cpu(monkeypatch, capfd):
    """On a GPU results repeat, or the setting that hinders is named."""
    assert utils.pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert utils.pick_device("auto").type == "cpu" and capfd.readouterr().err == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(utils, "why_unusable", lambda name: "no kernel image")
    assert utils.pick_device("auto").type == "cpu"
    assert capfd.readouterr().err == "WARNING: the GPU cannot be used (no kernel image); going on with the CPU\n"
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


BODIES = {  # what goes wrong while files are written, and the name that an OSError has then
    "a stop": (lambda folder: KeyboardInterrupt(), None),
    "a mistake": (lambda folder: UserError("no"), None),
    "no name": (lambda folder: OSError(errno.ENOSPC, "full"), "a.json"),
    "no number": (lambda folder: OSError("encoder error"), None),  # a name would hide what it says
    "a temporary name": (lambda folder: OSError(errno.ENOSPC, "full", str(folder / "a.json")), "a.json"),
    "another file": (lambda folder: OSError(errno.EIO, "cannot be read", "digits.csv"), "digits.csv"),
}


@pytest.mark.parametrize(("error", "named"), BODIES.values(), ids=BODIES)
def test_what_goes_wrong_leaves_the_files_as_they_were(error, named, own_folders):
    Path("a.json").write_bytes(b"old")
    with pytest.raises(BaseException) as caught, utils.whole_files(Path("a.json")) as folder:  # noqa: B017
        (folder / "a.json").write_bytes(b"new")
        raise error(folder)
    assert getattr(caught.value, "filename", None) == named and type(caught.value) is type(error(folder))
    assert contents(own_folders) == {own_folders / "a.json": b"old"} and os.listdir() == ["a.json"]
    assert utils.shown(own_folders / "a.json") == "a.json"  # as the user can open it
    assert utils.shown(own_folders.parent / "a.json") == str(own_folders.parent / "a.json")


@pytest.mark.skipif(sys.platform == "win32", reason="links are other things there")
def test_a_link_is_written_through(own_folders):
    Path("a.json").symlink_to("elsewhere/b.json")
    with utils.sole_writer(Path("a.json")):
        for content in b"first", b"second":
            with utils.whole_files(Path("a.json")) as folder:
                (folder / "a.json").write_bytes(content)
    assert os.listdir("elsewhere") == ["b.json"] and sorted(os.listdir()) == ["a.json", "elsewhere"]
    assert Path("a.json").is_symlink() and Path("elsewhere/b.json").read_bytes() == b"second"


@pytest.mark.parametrize("refused", [None, 1, 2, 3])
def test_several_files_take_their_places_all_or_none(refused, tmp_path, monkeypatch):
    """On a share without fsync, and while a virus scanner holds a file for a moment."""
    replace, held, places = os.replace, ["for a moment"], []

    def refuse_one(file, place):
        if held:
            raise PermissionError(held.pop())
        places.append(place)
        if len(places) == refused:
            raise OSError(errno.EIO, "Input/output error", file, None, place)
        replace(file, place)

    monkeypatch.setattr(os, "fsync", lambda number: fail(OSError(errno.EINVAL, "Invalid argument")))
    monkeypatch.setattr(os, "replace", refuse_one)
    for name in "ab":
        (tmp_path / name).write_bytes(b"old")
    with pytest.raises(OSError) if refused else nullcontext() as caught, utils.whole_files(tmp_path / "a") as folder:
        for name in "abc":
            (folder / name).write_bytes(b"new")
        assert (tmp_path / "a").read_bytes() == b"old"
    assert not refused or caught.value.filename == places[refused - 1]  # not the temporary one
    expected = dict.fromkeys("ab", b"old") if refused else dict.fromkeys("abc", b"new")
    assert contents(tmp_path) == {tmp_path / name: content for name, content in expected.items()}


def test_logits_are_the_networks_in_batches_of_any_size():
    torch.manual_seed(0)
    model, images = LeNet5(), torch.randint(256, (50, 28, 28), dtype=torch.uint8)
    expected = model(normalize(pad(images)))
    for batch_size in 50, 7:
        torch.testing.assert_close(utils.class_logits(model, pad(images), batch_size), expected.detach())
    labels = (expected.argmax(1) + (torch.arange(50) >= 40)) % 10
    assert utils.accuracy(model, images, labels) == 0.8


SOURCE = '''"""What it is."""
import os

def f(x):
    """What f does, at length."""
    text = """kept # too"""  # why
    return text + str(x)
'''
SAME = [("# why", "# why not"), ("at length", "in short"), ("\n\n", "\n")]  # a comment, a docstring, an empty line
OTHER = [("str(x)", "repr(x)"), ("kept # too", "kept # here"), ("import os", "pass")]


def test_a_digest_is_that_of_the_code_alone(tmp_path):
    def digest(old, new):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"
        path.write_text(SOURCE.replace(old, new))
        return provenance.source_digest(path)

    first = digest("os", "os")
    assert all(digest(*change) == first for change in SAME)
    assert len({first, *(digest(*change) for change in OTHER)}) == 4


def test_a_file_of_figures_keeps_what_made_them(tmp_path):
    provenance.save_json(tmp_path / "a.json", {"accuracy": 0.5, "modules": {"gone.py": "0" * 16}})
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["accuracy"] == 0.5 and content["modules"] == {"gone.py": "0" * 16, **provenance.module_digests()}
    assert content["modules"]["model.py"] == provenance.source_digest(ROOT / "model.py")
    assert "digits/mnist.py" in content["modules"] and not any("tests" in name for name in content["modules"])
    provenance.versions().clear()  # a copy
    assert provenance.versions()["python"] == sys.version.split()[0]
    assert provenance.versions(torch.device("cpu")).keys() == {"python", "torch", "numpy", "numba"}
