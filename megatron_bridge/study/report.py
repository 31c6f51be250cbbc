"""Writing down what a study found: results.json, results.md and the plots."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from megatron_bridge.atomic import write_text
from megatron_bridge.study.plots import write_plots
from megatron_bridge.study.results import comparisons, method_results, results_json
from megatron_bridge.study.settings import Study
from megatron_bridge.study.table import tables
from trace_dsl.errors import RunFileError


def check_can_report() -> None:
    """Before hours of training: whether the plots can be drawn. Raises RunFileError."""
    if importlib.util.find_spec("matplotlib") is None:
        raise RunFileError("plots need matplotlib, which is not installed: pip install 'trace-dsl[study]'")


def write_report(study: Study, command: str) -> list[Path]:
    """Write all of it into the study's folder of results; returns the paths. Raises RunFileError where no method has
    all its runs yet.
    """
    results = method_results(study)
    found = results_json(study, results, command)
    data, page = study.results / "results.json", study.results / "results.md"
    write_text(data, json.dumps(found, indent=1) + "\n")
    write_text(page, tables(results, comparisons(study), found))
    return [data, page, *write_plots(results, study.file.baseline, study.results)]
