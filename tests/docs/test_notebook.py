"""The notebook of docs/: its cells run one after the other, in docs/ and at the root; it is stored without outputs."""

import json
import re

import pytest
from conftest import ROOT, execute

CELLS = json.loads((ROOT / "docs" / "lenet5.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


@pytest.fixture
def run_cells(environment, tmp_path):
    """Runs cells of the notebook in a folder: what they print."""

    def run_cells(folder, cells):
        (tmp_path / "cells.py").write_text("\n".join(cells), encoding="utf-8")
        return execute(environment | {"MPLBACKEND": "Agg"}, folder, tmp_path / "cells.py").succeeded().out

    return run_cells


def test_it_classifies_and_trains_in_docs(run_cells):
    """Without MNIST it trains on the small digits, as the scripts do."""
    found = run_cells(ROOT / "docs", CODE)
    assert re.search(r"^total +60,850\n5: \d+\.\d%$", found, re.M)  # the example shows a five
    accuracy, dataset = re.search(r"^epoch 2: ([\d.]+)% of (\w+)", found, re.M).groups()
    assert float(accuracy) > {"mnist": 98.5, "digits": 50}[dataset]


def test_it_finds_the_project_at_the_root_and_in_a_clone_below(run_cells, tmp_path):
    clone = tmp_path / "lenet5"
    clone.mkdir()
    (clone / "ClassifyTask_train.py").touch()
    for folder, root in (ROOT, ROOT), (tmp_path, clone):
        assert run_cells(folder, [CODE[0], "print(root)"]).strip() == str(root.resolve())


def test_it_is_stored_without_outputs():
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in CELLS)
