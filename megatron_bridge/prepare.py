"""Everything that can be wrong with a run is found here, before any process starts: run file, spec, plan, directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from megatron_bridge.run_file import LoadedRun, load_run
from trace_dsl import lint_file
from trace_dsl.errors import SpecError
from trace_dsl.model import Diagnostic, Severity
from trace_dsl.plan import Plan, compile_plan
from trace_dsl.plan.support import unsupported
from trace_dsl.report import render


def prepare_run(path: Path, overrides: Sequence[str] = ()) -> tuple[LoadedRun, Plan, list[Diagnostic]]:
    """Load the run file, lint its spec against the run's facts, and compile the plan.

    Returns also the warnings of lint. Raises RunFileError or SpecError; their text is ready to be shown.
    """
    loaded = load_run(path, overrides)
    result = lint_file(loaded.spec_path, facts=loaded.facts)
    diagnostics = list(result.diagnostics)
    if result.spec is not None:
        diagnostics += unsupported(result.spec)
    errors = [d for d in diagnostics if d.severity is Severity.ERROR]
    if errors or result.spec is None:
        raise SpecError(f"{loaded.spec_path} cannot be used in this run:\n{render(errors, loaded.spec_path)}")
    return loaded, compile_plan(result.spec, loaded.facts), diagnostics
