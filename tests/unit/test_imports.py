"""The walls between the rooms: imports point one way, and a script loads no more than it needs."""

import ast
import subprocess
import sys

import pytest
from conftest import REFERENCE, ROOT

# Each may import itself and what is named: a module at the root, or a room.
ALLOWED = {
    "model": {"model"},
    "utils": {"model", "utils"},
    "digits": {"digits", "model", "utils"},
    "training": {"training", "digits", "model", "utils"},
    "reading": {"reading", "training", "digits", "model", "utils"},
    "figures": {"figures", "reading.sweep", "training", "digits", "model", "utils"},
    "minimal": {"digits", "model", "utils"},
    "hubconf": set(),  # its callers have other modules of these names
}
ROOMS = ("digits", "training", "reading", "figures", "experiments", "tools")
FILES = sorted([*ROOT.glob("*.py"), *(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))])
MODULES = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}


def imports(name):
    """The project's modules that a module imports anywhere in its source."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {module for module in found if module in MODULES} - {name}


def test_imports_point_one_way_and_not_in_a_circle():
    graph, done = {name: imports(name) for name in MODULES}, set()
    for name in graph:
        room = name.split(".")[0]
        for module in graph[name]:
            if room in ALLOWED:
                fits = {module, module.split(".")[0]} & ALLOWED[room]
            else:  # scripts, experiments and tools
                fits = not module.startswith("ClassifyTask") or room == "experiments"
            assert fits, f"{name} must not import {module}"
    while ready := {name for name, needed in graph.items() if name not in done and needed <= done}:
        done |= ready
    assert done == graph.keys(), f"in or behind a circle: {sorted(graph.keys() - done)}"


TRAIN = "train", "--dataset digits --epochs 1 --record-dir .", {"torch._dynamo", "reading"}
TEST = "test", "--dataset digits --record-dir .", {"torch._dynamo", "reading.ctc"}
PREDICT = "predict", str(REFERENCE / "example.jpg"), {"matplotlib", "figures", "reading.ctc", "digits.mnist"}


@pytest.mark.parametrize("scripts", [(TRAIN, TEST), (PREDICT,)], ids=["training and test", "prediction"])
def test_a_script_imports_no_more_than_it_needs(scripts, environment, tmp_path):
    code = "import sys\n"
    for name, options, unwanted in scripts:
        code += f"import ClassifyTask_{name} as script; script.draw_digits = print; sys.argv[1:] = {options.split()}\n"
        code += f"script.main(); assert not {unwanted} & sys.modules.keys(), sys.modules.keys()\n"
    environment = {**environment, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
