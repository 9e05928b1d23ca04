"""What a file of figures was made with: versions, and the project's own code. Written into each of them."""

import ast
import functools
import hashlib
import importlib.metadata
import io
import json
import platform
import sys
import tokenize
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from utils import ROOT, whole_files


def save_json(path: Path, content: dict):
    """Write a file of figures, whole or not at all, with the digests of the project's modules that have run."""
    content = {**content, "modules": module_digests() | content.get("modules", {})}
    with whole_files(path) as folder:
        (folder / path.name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@functools.cache  # importlib.metadata searches all that is installed: too slow for each epoch
def found_versions(device: str, index: int | None) -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    with suppress(importlib.metadata.PackageNotFoundError):
        found["numba"] = importlib.metadata.version("numba")
    if device == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(index), "cuda": str(torch.version.cuda)}
    return found


def versions(device: torch.device | None = None) -> dict[str, str]:
    """What a figure was made with, for the files that hold figures; on CUDA also the GPU and CUDA's version."""
    return dict(found_versions(device.type, device.index) if device else found_versions("cpu", None))


def module_digests() -> dict[str, str]:
    """Of each module of this project that has been imported, by its path: what `source_digest` makes of it."""
    named = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
    files = {Path(name).resolve() for name in named if name.endswith(".py") and Path(name).is_file()}
    own = [file for file in files if ROOT in file.parents and "site-packages" not in file.parts]
    names = {file.relative_to(ROOT).as_posix(): file for file in own}
    return {name: source_digest(names[name]) for name in sorted(names) if not name.startswith("tests/")}


@functools.cache
def source_digest(file: Path) -> str:
    """SHA-256 of a module's source, comments, docstrings and empty lines left out: 16 hexadecimal digits."""
    source = file.read_text(encoding="utf-8")
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            first, last = node.body[0].lineno, node.body[0].end_lineno
            lines[first - 1 : last] = [""] * (last - first + 1)
    code = "\n".join(line.rstrip() for line in lines if line.strip())
    return hashlib.sha256(code.encode()).hexdigest()[:16]
