"""Everything that can be wrong with a run is found here, before any process starts: run file, spec, plan, directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron_bridge.run_file import LoadedRun, load_run
from trace_dsl import lint_file
from trace_dsl.checks.reading import channels_of
from trace_dsl.errors import RunFileError, SpecError
from trace_dsl.model import Diagnostic, PolicyGradient, RatioLevel, Severity, Spec
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
    if problems := list(_cut_responses(loaded, result.spec)):
        raise RunFileError("\n".join(problems))
    return loaded, compile_plan(result.spec, loaded.facts), diagnostics


def _cut_responses(loaded: LoadedRun, spec: Spec) -> Iterator[str]:
    """Losses that need a response in one piece, under a layout that cuts it."""
    cp = loaded.file.layout.cp
    for _, channel in channels_of(spec):
        kernel = channel.kernel
        if cp > 1 and isinstance(kernel, PolicyGradient) and kernel.level is RatioLevel.SEQUENCE:
            yield (
                f"{loaded.path}: layout.cp: {cp} context parallel ranks each hold a part of every response, but line "
                f"{channel.place.line} of {loaded.spec_path} takes a ratio over whole responses; set layout.cp to 1"
            )
