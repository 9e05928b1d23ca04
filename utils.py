"""What the scripts share: paths, the command line, the device, evaluation, files written whole.

Nobody needs to read the end to follow a script: how one ends, and how it keeps others from its files.
"""

import _thread
import argparse
import errno
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

if Path(__file__).resolve().parent in Path(vars(sys.modules["__main__"]).get("__file__") or "/").resolve().parents[:2]:
    # A script imports this module first: Ctrl-C in the seconds that the other imports take ends it in one line, too.
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else lambda *_: (os.write(2, b"stopped\n"), os._exit(130)))

import torch
from torch import Tensor

from model import LeNet5, normalize, pad

ROOT = Path(__file__).resolve().parent
DATA = ROOT / "data"  # the data sets
RECORD = ROOT / "Record"  # what the user's own runs write
REFERENCE = "reference"  # the folder below Record of what the project ships


class UserError(Exception):
    """A mistake of the user or a broken file, told in one line: what is wrong, where, and what to do."""


def shown(path: Path) -> str:
    """A path as a message names it: from the folder the user is in, where it lies below, else whole."""
    with suppress(ValueError, OSError):
        return str(path.resolve().relative_to(Path.cwd()))
    return str(path)


# ---------------------------------------------------------------------------------------------- evaluation


@torch.inference_mode()
def class_logits(model: LeNet5, images: Tensor, batch_size: int = 500) -> Tensor:
    """Logits (N, 10) of padded images uint8 (N, 32, 32) on the model's device."""
    return torch.cat([model(normalize(batch)) for batch in images.split(batch_size)])


def accuracy(model: LeNet5, images: Tensor, labels: Tensor) -> float:
    """The share of digits, uint8 (N, 28, 28) with labels (N,), that a network on their device classifies correctly."""
    return int((class_logits(model, pad(images)).argmax(1) == labels).sum()) / len(labels)


# ---------------------------------------------------------------------------------------------- the device


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
            what = f"CUBLAS_WORKSPACE_CONFIG is {workspace!r}, with which results do not repeat"
            raise UserError(f"{what}; set it to :4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions have another name for it, too
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False  # off already, but for NVIDIA's containers
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


# ---------------------------------------------------------------------------------------------- command line

# Names that have changed, old and new: whoever gives an old one is told the new one.
RENAMED = {
    "--distort": "--augment",
    "--no-distort": "--no-augment",
    "--start": "--initial",
    "--recipe adam": "--recipe default",
    "--weights reported": "--weights ema",
}


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str):
        raise UserError(f"{message}; --help lists the options")

    def parse_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else args
        given = " ".join(["", *words, ""]).replace("=", " ")
        for old, new in RENAMED.items():
            if f" {old} " in given:
                self.error(f"{old} is called {new} now")
        return super().parse_args(args, namespace)

    def share(self, *names: str) -> "Parser":
        """Add these of the options that scripts share."""
        for name in names:
            self.add_argument(name, **shared_options()[name])
        return self


def first_line(docstring: str | None) -> str:
    """What a script is for; nothing under -OO, which leaves docstrings out."""
    return (docstring or "").partition("\n")[0]


def positive(kind: type, most: int = 100_000) -> Callable[[str], float]:
    """An argparse type: a number above 0."""

    def parse(text: str) -> float:
        with suppress(ValueError):
            if 0 < (value := kind(text)) <= most:
                return value
        what = "whole number" if kind is int else "number"
        raise argparse.ArgumentTypeError(f"{text!r} is no {what} above 0 and at most {most:,}")

    return parse


def seed(text: str) -> int:
    """An argparse type: a whole number from 0 below 2**32: of a longer seed PyTorch's generator drops the rest."""
    with suppress(ValueError):
        if 0 <= (value := int(text)) < 2**32:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 4,294,967,295")


def folder(text: str) -> Path:
    """An argparse type: a folder that exists. MNIST would be fetched into one whose name is mistyped."""
    if os.path.isdir(text):
        return Path(text)
    found = "a file" if os.path.exists(text) else "missing"
    raise argparse.ArgumentTypeError(f"{text!r} is {found}; name a folder that exists")


def shared_options() -> dict[str, dict]:
    """The options that scripts share, as add_argument takes them."""
    return {
        "--dataset": {"choices": ("auto", "mnist", "digits"), "default": "auto", "help": "default: auto, MNIST if any"},
        "--data-dir": {"type": folder, "default": DATA, "metavar": "DIR", "help": "default: data, beside the scripts"},
        "--reference": {"action": "store_true", "help": "for maintainers: write below Record/reference"},
        "--device": {"default": "auto", "help": "cuda if there is one, else cpu; or any torch device"},
        "--augment": {"action": argparse.BooleanOptionalAction, "help": "augment the digits; default: the recipe's"},
    }


# ---------------------------------------------------------------------------------------------- what is written


@contextmanager
def whole_files(path: Path):
    """A temporary folder beside path to write path, and what belongs to it, into.

    At the end all take their places, whole, or, if anything failed, all places are as they were. A link stays one.
    """
    name, path = path.name, behind_link(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = None
    try:
        with tempfile.TemporaryDirectory(".tmp", f".{path.name}.", path.parent, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
            if name != path.name:
                Path(folder, name).rename(Path(folder, path.name))
            files = list(Path(folder).iterdir())
            for file in files:
                flush(file)
            put_in_place(files, path.parent)
    except OSError as error:
        if error.errno and (error.filename is None or folder and str(error.filename).startswith(str(Path(folder)))):
            error.filename = error.filename2 or str(path)  # not that of the temporary one
        raise


def behind_link(path: Path) -> Path:
    """The file that a link leads to; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def flush(file: Path):
    """Have a file's content on the disk; some network shares know no fsync."""
    with open(file, "rb+") as content:
        try:
            os.fsync(content.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise


def put_in_place(files: list[Path], folder: Path):
    """Move files into a folder, all or none: those that stand in their places come back if one cannot be moved."""
    before = []
    try:
        for file in files:
            place, copy = folder / file.name, file.with_name(f"{file.name}.before")
            if len(files) > 1 and place.is_file():
                shutil.copyfile(place, copy)
            replace(file, place)
            before.append((copy, place))
    except OSError:
        for copy, place in before:
            replace(copy, place) if copy.exists() else place.unlink()
        raise


def replace(file: Path, place: Path):
    """os.replace, tried again: on Windows a virus scanner may hold a file for a moment."""
    for pause in (0.05, 0.25):
        with suppress(PermissionError):
            return os.replace(file, place)
        time.sleep(pause)
    os.replace(file, place)


@contextmanager
def sole_writer(path: Path, advice: str = "or name another folder with --record-dir"):
    """Be the one process that writes path, and what belongs to it; raises UserError while another one is.

    The lock is the operating system's and ends with the process, however that ends.
    """
    path = behind_link(path)
    new_folder = not path.parent.exists()
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
            raise UserError(f"another process is writing {shown(path)}; wait for its end, {advice}") from None
        except OSError:  # a file system without locks
            pass
        try:
            remove_unfinished(path)
            yield
        finally:
            remove_unfinished(path)
            with suppress(OSError):
                lock.unlink()
                if new_folder:
                    path.parent.rmdir()  # if nothing was written


def remove_unfinished(path: Path):
    """Remove what a process that was stopped or killed while it wrote path has left."""
    for folder in path.parent.glob(f".{path.name}.*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------------------------------------- ends


def run_script(main: Callable[[], int | None], after_stop: str = ""):
    """Run main and exit: with status 2 and one line for a mistake or a broken file, 130 for Ctrl-C, 143 for SIGTERM.

    `after_stop` tells what a stop has left. If nobody reads what is printed, as after `| head`, the end is silent.
    """

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
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has none
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)  # a log shows each line at once
    try:
        if getattr(signal.getsignal(signal.SIGINT), "__module__", "") == __name__:  # set above
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = main()
    except UserError as error:
        status = complain(str(error))
    except BrokenPipeError:
        status = 128 + 13  # as a shell has it of programs that SIGPIPE ends
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
            complain("; ".join(filter(None, ("stopped", after_stop))))
    finally:
        sys.unraisablehook = hook
    try:
        if sys.stdout:  # a daemon may have none
            sys.stdout.flush()
    except OSError:  # a full disk, or nobody reads any more: said above, and not to be said again at the exit
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
