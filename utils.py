"""What the scripts share: errors in one line, the device, the data sets as tensors, checkpoints, evaluation."""

import argparse
import gzip
import hashlib
import http.client
import io
import json
import math
import os
import pickle
import pickletools
import platform
import shutil
import signal
import socket
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
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
    """An argparse type: what torch takes as a seed, a whole number from 0 below 2**63."""
    if not 0 <= (value := int(text)) < 2**63:
        raise ValueError
    return value


def run_script(main: Callable[[], int | None]):
    """Run main and exit: with status 2 and one line for a mistake or a broken file, 130 for Ctrl-C, 143 for SIGTERM."""

    def terminate(signum, frame):
        raise SystemExit(128 + signum)

    def complain(message: str) -> int:
        print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)
        return 2

    signal.signal(signal.SIGTERM, terminate)
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
    try:
        sys.stdout.flush()
    except OSError:  # a full disk, or nobody reads any more: said above, and not to be said again at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def pick_device(name: str) -> torch.device:
    """The device that --device names, made ready for repeatable float32 arithmetic; auto is CUDA if there is any."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            device = torch.device(name)
            torch.ones(1, device=device).add_(1).cpu()
    except Exception as error:  # each backend has its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--device {name} cannot be used here ({reason}); leave it out, or take cpu") from None
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions have another name for it, too
            torch.backends.cudnn.allow_tf32 = False  # for products it is off already
    return device


def versions() -> dict[str, str]:
    """What a figure was made with, for the files that hold figures."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def record_dir(recipe: str, dataset: str) -> Path:
    """Where a run's files are kept: Record itself for the default recipe on MNIST, else a folder of its own below."""
    return RECORD.joinpath(*(name for name in (recipe, dataset) if name not in ("adam", "mnist")))


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


def read_study(path: Path) -> dict:
    """A study's JSON file, with the runs done already; empty if there is none. Raises UserError if it is damaged."""
    try:
        study = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": []}
        study["runs"] = list(study["runs"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no study's file, or damaged ({error}); move it away to start anew") from None
    return study


# ---------------------------------------------------------------------------------------------- data sets

# For each set: the file of the images and of the labels with the MD5 sums of archive and content, and how many.
MNIST = {
    "train": (
        ("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb", 47_040_016),
        ("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624", 60_008),
    ),
    "test": (
        ("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea", 7_840_016),
        ("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637", 10_008),
    ),
}  # fmt: skip
DOWNLOAD_TIMEOUT = 15  # seconds without a byte


def read_verified(path: Path, md5: str, size: int) -> bytes | None:
    """The content of a file of at most `size` bytes, or None if its MD5 sum is another or it is no file."""
    if not path.is_file() or path.stat().st_size > size:
        return None
    content = path.read_bytes()
    return content if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5 else None


def mnist_content(folder: Path, name: str, archive_md5: str, md5: str, size: int) -> bytes:
    """The content of one of MNIST's four files, verified; unpacked from its archive, or downloaded, where need be."""
    content = read_verified(folder / name, md5, size)
    if content is None:
        archive = folder / f"{name}.gz"
        if not os.path.lexists(archive):
            if os.path.lexists(folder / name):
                raise UserError(f"{folder / name} is damaged or not MNIST's; delete it, and it is fetched again")
            download(archive, archive_md5)
        packed = read_verified(archive, archive_md5, size)
        if packed is None:
            raise UserError(f"{archive} is damaged or not MNIST's; delete it, and it is fetched again")
        content = gzip.decompress(packed)
        with suppress(OSError), whole_files(folder / name) as temporary:  # where it cannot be kept, it is not needed
            (temporary / name).write_bytes(content)
    return content


def download(archive: Path, md5: str):
    """Fetch one of MNIST's archives from torchvision's mirrors; raises DownloadError after the last of them fails."""
    try:
        from torchvision.datasets import MNIST as TorchvisionMNIST
        from torchvision.datasets.utils import download_url
    except (ImportError, RuntimeError) as error:
        raise UserError(f"torchvision does not go with torch ({error}); install both anew, in one command") from None

    print(f"fetching {archive.name} ...")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        for mirror in TorchvisionMNIST.mirrors:
            try:
                with whole_files(archive) as folder:
                    download_url(mirror + archive.name, str(folder), archive.name, md5)
                return
            except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
                reason = error
    finally:
        socket.setdefaulttimeout(before)
    raise DownloadError(
        f"{archive} is missing and could not be fetched ({reason}); put MNIST's four .gz files into {archive.parent}"
    )


class DownloadError(UserError):
    """MNIST is not on disk and cannot be fetched."""


def find_dataset(choice: str, data_dir: Path) -> str:
    """The data set that --dataset means, "mnist" or "digits": auto falls back to digits only if nothing of MNIST is
    on disk and it cannot be fetched, and says so. Raises UserError if MNIST is incomplete or damaged."""
    if choice == "digits":
        return "digits"
    folder = data_dir / "MNIST" / "raw"
    files = [file for files in MNIST.values() for file in files]
    absent = not any(os.path.lexists(folder / f"{name}{end}") for name, *_ in files for end in ("", ".gz"))
    try:
        for file in files:
            mnist_content(folder, *file)
    except DownloadError as error:
        if choice == "mnist" or not absent:
            raise
        print(f"WARNING: {error}", file=sys.stderr)
        print("WARNING: going on with scikit-learn's 1,797 small digits INSTEAD OF MNIST.", file=sys.stderr)
        return "digits"
    return "mnist"


def load_dataset(name: str, data_dir: Path, subset: str) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 28, 28), ink 255, and labels int64 (N,) of "mnist" or "digits", subset "train" or "test"."""
    if name == "mnist":
        images, labels = (mnist_content(data_dir / "MNIST" / "raw", *file) for file in MNIST[subset])
        images = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
        labels = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
        return torch.from_numpy(images.copy()), torch.from_numpy(labels)
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images / 16 * 255).unsqueeze(1)  # (1797, 1, 8, 8)
    images = F.interpolate(images, size=20, mode="bilinear", align_corners=False).round().squeeze(1)
    images = F.pad(images, (4, 4, 4, 4)).to(torch.uint8)  # MNIST's geometry: 20x20 in 28x28
    part = slice(None, -360) if subset == "train" else slice(-360, None)
    return images[part].clone(), torch.from_numpy(digits.target[part].astype(np.int64))


# ---------------------------------------------------------------------------------------------- checkpoints

FORMAT = 1
LARGEST, LARGEST_PICKLE = 2**24, 2**20  # bytes of a checkpoint, and of all but its tensors: 100 for each epoch
OPCODES = {  # of the pickles that torch.save writes of plain containers and tensors
    "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BINPERSID", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "EMPTY_LIST",
    "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip
KEYS = {
    "format": int, "arguments": dict, "model": dict, "last": dict, "optimizer": dict, "epoch": int,
    "random_state": Tensor, "history": list, "recipe": dict, "dataset": str, "seed": int, "versions": dict,
}  # fmt: skip


class Inspection(pickle.Unpickler):
    """Reads a checkpoint's pickle without making anything of it but plain containers, to see that it is harmless.

    It lets pass only tensors that lie inside a storage whose size is that of its member.
    """

    def __init__(self, content: bytes, sizes: dict[str, int]):
        for opcode, argument, _ in pickletools.genops(content):
            wrong = "PUT" in opcode.name and argument > len(content) or opcode.name == "PROTO" and argument != 2
            if opcode.name not in OPCODES or wrong:
                raise ValueError(f"{opcode.name} does not belong there")
        super().__init__(io.BytesIO(content))
        self.sizes = sizes

    def find_class(self, module, name):
        return {
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "collections.OrderedDict": dict,
            "torch.FloatStorage": 4,  # bytes an element
            "torch.ByteStorage": 1,
        }[f"{module}.{name}"]

    def persistent_load(self, storage):
        kind, width, key, _, count = storage
        if kind != "storage" or self.sizes[f"data/{key}"] != width * count:
            raise ValueError("a tensor's size is wrong")
        return count

    @staticmethod
    def tensor(count, offset, shape, stride, requires_grad, hooks, *metadata):
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        if metadata or hooks or min(offset, *shape, *stride, 0) < 0 or math.prod(shape) > count or last >= count:
            raise ValueError("a tensor lies outside its storage")


def inspect(content: bytes) -> io.BytesIO:
    """A checkpoint's file made anew of the members that torch.load needs; raises an exception unless it is harmless.

    torch.load(weights_only=True) alone has let code run (up to 2.5.1) and memory be overwritten (below 2.10).
    """
    members = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST:
            raise ValueError("its contents are too large")
        for member in archive.infolist():
            root, _, name = member.filename.partition("/")
            if not root or ".." in member.filename or "\\" in name or name in members or member.compress_type:
                raise ValueError(f"it holds {member.filename!r}")
            members[name] = archive.read(member)  # which checks its sum
    if len(members["data.pkl"]) > LARGEST_PICKLE:
        raise ValueError("its contents are too large")
    Inspection(members["data.pkl"], {name: len(member) for name, member in members.items()}).load()
    inspected = io.BytesIO()
    with zipfile.ZipFile(inspected, "w") as archive:
        for name, member in members.items():
            if name.startswith("data/") or name in ("data.pkl", "version", "byteorder"):
                archive.writestr(f"archive/{name}", member)
    inspected.seek(0)
    return inspected


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint that ClassifyTask_train.py wrote; raises UserError if the file is anything else."""
    advice = "name another with --checkpoint, or train with ClassifyTask_train.py"
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; {advice}")
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    try:
        if len(content) > LARGEST:
            raise ValueError("it is too large")
        checkpoint = torch.load(inspect(content), map_location="cpu", weights_only=True)
        check(checkpoint)
    except Exception as error:  # whatever a damaged file makes zipfile, pickle and torch raise
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is no checkpoint of this project, or damaged ({reason}); {advice}") from None
    return checkpoint


def check(checkpoint: dict):
    """Raise an exception unless a checkpoint has the keys, types, shapes and numbers that the format asks for."""
    for key, kind in KEYS.items():
        if not isinstance(checkpoint.get(key), kind):
            raise ValueError(f"{key} is missing or of another type")
    recipe, history = checkpoint["recipe"], checkpoint["history"]
    json.dumps([recipe, history, checkpoint["versions"]], allow_nan=False)
    sizes, rates, shares, amounts = [recipe["epochs"], recipe["batch_size"]], recipe["lr"], [], []
    for epoch in history:
        shares += [epoch["train_accuracy"], epoch["test_accuracy"]]
        amounts += [epoch["train_loss"], epoch["test_loss"], epoch["seconds"]]
    for what, right in {
        "format": checkpoint["format"] == FORMAT,
        "dataset": checkpoint["dataset"] in ("mnist", "digits"),
        "seed": 0 <= checkpoint["seed"] < 2**63,
        "arguments": checkpoint["arguments"] == recipe["network"],
        "recipe": all(isinstance(size, int) and 0 < size < 1e9 for size in sizes)
        and isinstance(rates, list) and rates and all(0 < rate < 1e9 for rate in rates)
        and (recipe["j"] is None or abs(recipe["j"]) < 1e9),
        "epoch": 0 < checkpoint["epoch"] == len(history) <= recipe["epochs"],
        "history": [epoch["epoch"] for epoch in history] == list(range(1, len(history) + 1))
        and all(0 <= share <= 1 for share in shares) and all(0 <= amount < 1e9 for amount in amounts),
    }.items():  # fmt: skip
        if not right:
            raise ValueError(f"{what} has another value than it can have")
    torch.Generator().set_state(checkpoint["random_state"])
    network = LeNet5(**checkpoint["arguments"]).state_dict()
    require_like(checkpoint["model"], network, "model", most=1e5)
    require_like(checkpoint["last"], network, "last", most=1e5)
    state = checkpoint["optimizer"]["state"][0]
    require_like(state, state, "optimizer")  # tensors, at least; what its recipe asks for, the recipe knows


def require_like(found: dict, expected: dict, what: str, most: float = math.inf):
    """Raise UserError unless tensors have the keys, shapes and types of those expected, and only numbers below most."""
    forms = [{key: (tensor.shape, tensor.dtype) for key, tensor in state.items()} for state in (found, expected)]
    if forms[0] != forms[1]:
        raise UserError(f"{what} is another than its recipe asks for")
    if not all((tensor.abs() < most).all() for tensor in found.values()):
        raise UserError(f"{what} holds numbers that are not finite, or far too large")


def save_checkpoint(path: Path, checkpoint: dict):
    """Write a checkpoint so that at every moment the file at path is whole: the old one or the new one."""
    content = io.BytesIO()
    torch.save(checkpoint, content)
    with whole_files(path) as folder:
        (folder / path.name).write_bytes(content.getbuffer())


def load_model(checkpoint: dict, weights: str = "model") -> LeNet5:
    """The checkpoint's network with its weights "model" (those reported) or "last" (those of the last step)."""
    model = LeNet5(**checkpoint["arguments"])
    model.load_state_dict(checkpoint[weights])
    return model.eval()


# ---------------------------------------------------------------------------------------------- evaluation


@torch.inference_mode()
def class_scores(model: LeNet5, images: Tensor, batch_size: int = 500) -> Tensor:
    """Class scores (N, 10) of padded images uint8 (N, 32, 32) on the model's device."""
    return torch.cat([model(scale(batch)) for batch in images.split(batch_size)])


def accuracy(checkpoint: dict, weights: str, test_set: tuple[Tensor, Tensor]) -> float:
    """The share of a set's digits, images uint8 (N, 28, 28) and labels (N,), that a checkpoint's weights get right."""
    images, labels = test_set
    scores = class_scores(load_model(checkpoint, weights).to(images.device), pad(images))
    return int((scores.argmax(1) == labels).sum()) / len(labels)
