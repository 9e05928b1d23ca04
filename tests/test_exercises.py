"""The exercises: what is worked out holds, a small run prints all tables, and the page shows what was measured."""

import json
import re

import pytest
from conftest import ROOT, run_here

from experiments import exercises
from experiments.study import Study

PAGE = (ROOT / "docs" / "exercises.md").read_text(encoding="utf-8")
TABLE = re.compile(r"<!-- exercises: (\w+) -->\n(.*?)\n?<!-- /exercises -->", re.DOTALL)
SHOWN = dict(TABLE.findall(PAGE))
COUNTED = ("c3", "squash", "fields", "paths")


def test_a_small_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    def run():
        printed = run_here(exercises.main, "exercises.py", "--tiny", "--jobs", 1).succeeded().out
        return dict(TABLE.findall(printed))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("steps.compiled", lambda state, recipe: None)  # model.py needs no compiling
    tables = run()
    assert tables.keys() == SHOWN.keys()
    assert all(tables[name] == SHOWN[name] for name in COUNTED)
    study = json.loads((tmp_path / "Record" / "study" / "exercises-tiny.json").read_text())
    assert study["command"] == "python -m experiments.exercises --tiny"
    assert [run["variant"] for run in study["runs"]] == list(exercises.variants(1))
    monkeypatch.setattr(exercises, "train", None)
    assert run() == tables


def test_what_was_measured():
    if not (ROOT / exercises.PATH).exists():
        pytest.skip(f"{exercises.PATH} has not been measured")
    content = Study(ROOT / exercises.PATH, "", exercises.summarize).content()
    assert all(row["seeds"] == len(exercises.SEEDS) for row in content["variants"].values())
    assert exercises.tables(content) == SHOWN
