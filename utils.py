"""What the scripts share: the command line, errors in one line, the device, files written whole, evaluation."""

import _thread
import argparse
import functools
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model import LeNet5, pad, scale

RECORD = Path("Record")


class UserError(Exception):
    """A mistake of the user or a broken file, told in one line: what is wrong, where, and what to do."""


# ---------------------------------------------------------------------------------------------- command line


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str):
        raise UserError(f"{message}; --help lists the options")


def positive(kind: type, most: int = 100_000) -> Callable[[str], float]:
    """An argparse type: a number above 0."""

    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value <= most:
            raise ValueError
        return value

    parse.__name__ = f"{kind.__name__}, above 0 and at most {most:,}:"
    return parse


def seed(text: str) -> int:
    """An argparse type: a whole number from 0 below 2**32: of a longer seed PyTorch's generator drops the rest."""
    if not 0 <= (value := int(text)) < 2**32:
        raise ValueError
    return value


seed.__name__ = "seed, a whole number from 0 below 2**32:"


def run_script(main: Callable[[], int | None]):
    """Run main and exit: with status 2 and one line for a mistake or a broken file, 130 for Ctrl-C, 143 for SIGTERM."""

    def terminate(signum, frame):
        raise SystemExit(128 + signum)

    def raise_again(ignored):
        """Python drops an exception that is raised in a __del__ or the like. If a signal raised it, send it again."""
        if again := {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}.get(ignored.exc_type):
            timer = threading.Timer(0.1, _thread.interrupt_main, [again])
            timer.daemon = True  # a script that has ended meanwhile does not wait for it
            timer.start()
        else:
            hook(ignored)

    def complain(message: str) -> int:
        print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)
        return 2

    signal.signal(signal.SIGTERM, terminate)
    hook, sys.unraisablehook = sys.unraisablehook, raise_again
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)  # a log shows each line at once
    try:
        status = main()
    except UserError as error:
        status = complain(str(error))
    except OSError as error:
        what = f"{error.filename2 or error.filename or 'a file'}: {error.strerror or error}"
        status = complain(f"cannot read or write {what}; check the path, the rights and the free space")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        status = complain("out of memory; take another --device, or train with a smaller --batch-size")
    except (KeyboardInterrupt, SystemExit) as stop:
        status = 130 if isinstance(stop, KeyboardInterrupt) else stop.code
        if status in (130, 143):
            complain("stopped; what was finished before is on disk, and a training goes on from there with --resume")
    finally:
        sys.unraisablehook = hook
    try:
        sys.stdout.flush()
    except OSError:  # a full disk, or nobody reads any more: said above, and not to be said again at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def pick_device(name: str) -> torch.device:
    """The device that --device names, made ready for repeatable float32 arithmetic.

    auto is CUDA, if there is a GPU that this PyTorch can use, else the CPU. Raises UserError if the device cannot be
    used, or if CUBLAS_WORKSPACE_CONFIG is set to a value with which products on CUDA do not repeat.
    """
    workspace = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and (reason := why_unusable(name)):
            print(f"WARNING: the GPU cannot be used ({reason}); going on with the CPU", file=sys.stderr)
            name = "cpu"
    elif reason := why_unusable(name):
        raise UserError(f"--device {name} cannot be used here ({reason}); leave it out, or take cpu")
    device = torch.device(name)
    if device.type == "cuda":
        if workspace not in (":4096:8", ":16:8"):
            raise UserError(
                f"CUBLAS_WORKSPACE_CONFIG is {workspace!r}, with which results do not repeat; set it to :4096:8"
            )
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions have another name for it, too
            torch.backends.cudnn.allow_tf32 = False  # for products it is off already
    return device


def why_unusable(name: str) -> str:
    """Why a computation on this device fails, in one line; empty if it does not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.ones(1, device=torch.device(name)).add_(1).cpu()
    except Exception as error:  # each backend has its own
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return ""


@functools.cache  # importlib.metadata searches all that is installed: too slow for each epoch
def versions(device: torch.device | None = None) -> dict[str, str]:
    """What a figure was made with, for the files that hold figures; on CUDA also the GPU and CUDA's version."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    with suppress(importlib.metadata.PackageNotFoundError):
        found["numba"] = importlib.metadata.version("numba")
    if device is not None and device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
    return found


@contextmanager
def sole_writer(path: Path):
    """Be the one process that writes path, and what belongs to it; raises UserError while another one is.

    The lock is the operating system's and ends with the process, however that ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with open(lock, "a") as file:
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(file.fileno()).st_nlink:  # its holder has just ended and removed it
                raise BlockingIOError
        except (BlockingIOError, PermissionError):
            what = f"another process is writing {path}; wait for its end, or name another folder with --record-dir"
            raise UserError(what) from None
        except OSError:  # a file system without locks
            pass
        try:
            remove_unfinished(path)
            yield
        finally:
            remove_unfinished(path)
            with suppress(OSError):
                lock.unlink()


def remove_unfinished(path: Path):
    """Remove what a process that was stopped or killed while it wrote path has left."""
    for folder in path.parent.glob(f".{path.name}.*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def whole_files(path: Path):
    """A temporary folder beside path to write path, and what belongs to it, into.

    At the end all take their places, whole, or, if anything failed, are gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(".tmp", f".{path.name}.", path.parent, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
            files = list(Path(folder).iterdir())
            for file in files:
                with open(file, "rb+") as content:
                    os.fsync(content.fileno())
            for file in files:
                os.replace(file, path.with_name(file.name))
    except OSError as error:
        error.filename = error.filename2 or str(path)  # not that of the temporary one
        raise


def save_json(path: Path, content: dict):
    """Write a file of figures, whole or not at all."""
    with whole_files(path) as folder:
        (folder / path.name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@torch.inference_mode()
def class_scores(model: LeNet5, images: Tensor, batch_size: int = 500) -> Tensor:
    """Class scores (N, 10) of padded images uint8 (N, 32, 32) on the model's device."""
    return torch.cat([model(scale(batch)) for batch in images.split(batch_size)])


def accuracy(model: LeNet5, images: Tensor, labels: Tensor) -> float:
    """The share of digits, uint8 (N, 28, 28) with labels (N,), that a network on their device reads correctly."""
    return int((class_scores(model, pad(images)).argmax(1) == labels).sum()) / len(labels)
