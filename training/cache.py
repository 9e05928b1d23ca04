"""What numba keeps of the compiled loops, trusted only as long as it is what was written.

numba does not check its files: a damaged one ends in a strange error, or ends the process when its machine code runs.
"""

import contextlib
import hashlib
import json
import time
from pathlib import Path

from utils import whole_files

SEALS = "kernels.sha256.json"  # beside numba's files: their digests
YOUNG = 60  # seconds: what another process has just compiled, and is about to seal


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that numba keeps of the loops of kernels.py."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("kernels.take_*.nb?")}


def remove_unsealed(folder: Path):
    """Remove what numba has kept unless it is what `seal` saw, and say so; it is compiled anew then.

    All is left alone while a file is new: another process has just compiled it.
    """
    found, path = digests(folder), folder / SEALS
    sealed = {}
    with contextlib.suppress(OSError, ValueError):
        sealed = json.loads(path.read_text())
    unsealed = [folder / name for name, digest in found.items() if sealed.get(name) != digest]
    if found and found != sealed and not any(is_young(file) for file in unsealed):
        if sealed:
            print(f"the compiled loops in {folder} are damaged or incomplete, and removed; they are compiled anew")
        for name in (*found, SEALS):
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def is_young(file: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - file.stat().st_mtime < YOUNG
    return False  # removed meanwhile


def seal(folder: Path):
    """Note the digests of what numba keeps."""
    with contextlib.suppress(OSError), whole_files(folder / SEALS) as temporary:
        (temporary / SEALS).write_text(json.dumps(digests(folder)))
