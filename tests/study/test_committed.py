"""The study of the documentation: its tables are what its records say, and all of its runs are there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from megatron_bridge.study.cells import pairs, report_cells
from megatron_bridge.study.choose import chosen_point
from megatron_bridge.study.records import record_path
from megatron_bridge.study.results import comparisons, method_results, results_json
from megatron_bridge.study.runs import missing
from megatron_bridge.study.settings import Study, load_study
from megatron_bridge.study.table import tables
from tests.study.made import ROOT

COMMAND = "trace-dsl study specs/study/study.yaml"


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(ROOT / "specs" / "study" / "study.yaml")


def near(found: Any, kept: Any, place: str = "") -> None:
    """Equal, but for the last digits of numbers, which another processor may round otherwise."""
    if isinstance(kept, dict):
        assert list(found) == list(kept), place
        for name in kept:
            near(found[name], kept[name], f"{place}/{name}")
    elif isinstance(kept, list):
        assert len(found) == len(kept), place
        for n, (one, other) in enumerate(zip(found, kept, strict=True)):
            near(one, other, f"{place}/{n}")
    else:
        assert found == (pytest.approx(kept, abs=1e-9) if isinstance(kept, float) else kept), place


def test_every_run_is_there_and_was_made_as_the_study_says(study: Study, tmp_path: Path) -> None:
    for policy, method in pairs(study):
        cells = report_cells(study, policy, method, chosen_point(study, policy, method))
        assert not missing(study, cells, tmp_path)
        assert len(cells) >= (5 if policy == "weak" else 3)
        assert all(record_path(study, cell).is_file() for cell in cells)


def test_the_tables_are_what_the_records_say(study: Study) -> None:
    results = method_results(study)
    found = json.loads(json.dumps(results_json(study, results, COMMAND)))
    near(found, json.loads((study.results / "results.json").read_text()))
    page = tables(results, comparisons(study), found)

    def words(text: str) -> str:
        return re.sub(r"[-+]?[0-9.]+(e[-+][0-9]+)?", "#", text)

    assert words(page) == words((study.results / "results.md").read_text())
