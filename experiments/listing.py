"""Which results of the reference were made by code that has changed since: python -m experiments --list"""

import json
from collections.abc import Iterator
from pathlib import Path

import utils
from experiments import NAMES
from experiments.runner import description, folder, readable
from training import provenance
from utils import shown

START = ("experiments/__init__.py", "experiments/runner.py")  # change with every new experiment: not compared


def state(name: str) -> str:
    """The first line of an experiment's docstring, and whether the code of its reference has changed since."""
    path = folder(reference=True) / f"{name}.json"
    found = f"reference: {compared(path)}" if path.exists() else "no reference"
    return f"{name}: {description(name)}\n    {found}"


def others() -> Iterator[str]:
    """The same of the other JSON files of the reference: metrics.json of each network, faults.json."""
    for path in sorted((utils.RECORD / utils.REFERENCE).rglob("*.json")):
        if path.stem not in NAMES:
            yield f"{shown(path)}: {compared(path)}"


def compared(path: Path) -> str:
    """Which of the modules that made a file have changed since, the first three by name; those of START aside."""
    with readable(shown(path)):
        modules = dict(json.loads(path.read_text(encoding="utf-8"))).get("modules")
    if not modules:
        return "made before its code was noted down"
    files = {module: utils.ROOT / module for module in modules if module not in START}
    changed = [m for m, file in files.items() if not file.exists() or provenance.source_digest(file) != modules[m]]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"made before {', '.join(changed[:3])}{more} changed" if changed else "up to date"
