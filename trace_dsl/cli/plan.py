"""`trace-dsl plan`: what a spec will do at every step of a run."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trace_dsl.errors import SpecError, TraceError


class PlanFormat(StrEnum):
    TABLE = "table"
    JSON = "json"


def plan(
    spec: Annotated[Path, typer.Argument(help="The spec, a .trace file.")],
    run: Annotated[
        Path,
        typer.Option("--run", help="The run file: its steps, groups and task decide what the spec means."),
    ],
    at: Annotated[
        str,
        typer.Option(help="Steps to show weights at, such as 0,10,40,end. Default: where weights change."),
    ] = "",
    output: Annotated[PlanFormat, typer.Option("--format", help="table for people, json for programs.")] = (
        PlanFormat.TABLE
    ),
) -> None:
    """Show what a spec does: who each route takes, each loss with its weight over the run, when teachers run.

    Example: trace-dsl plan specs/demo/trace.trace --run specs/demo/run.yaml --at 0,10,40,end
    """
    from megatron_bridge.run_file import load_run_facts
    from trace_dsl import lint_file
    from trace_dsl.model import Severity
    from trace_dsl.plan import compile_plan
    from trace_dsl.plan.support import unsupported
    from trace_dsl.plan.table import default_steps, table_lines
    from trace_dsl.report import render

    try:
        facts = load_run_facts(run)
        result = lint_file(spec, facts=facts)
        errors = [d for d in result.diagnostics if d.severity is Severity.ERROR]
        if errors or result.spec is None:
            raise SpecError(f"{spec} cannot be planned:\n{render(errors, spec)}")
        compiled = compile_plan(result.spec, facts)
        steps = _parse_steps(at, facts.total_steps) if at else default_steps(compiled)
    except TraceError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1 if isinstance(error, SpecError) else 2) from error
    if output is PlanFormat.JSON:
        print(compiled.to_json())
        return
    if result.diagnostics:
        print(render(result.diagnostics, spec), file=sys.stderr)
    for line in table_lines(compiled, steps):
        print(line)
    for finding in unsupported(result.spec):
        print(f"note: line {finding.place.line}: {finding.message}; this engine version would refuse to train it")


def _parse_steps(text: str, total: int) -> tuple[int, ...]:
    steps = []
    for item in text.split(","):
        item = item.strip()
        if item == "end":
            steps.append(total - 1)
        elif item.isdigit() and int(item) < total:
            steps.append(int(item))
        else:
            raise TraceError(f"--at {item!r}: a step is a number from 0 to {total - 1}, or 'end'")
    return tuple(sorted(set(steps)))
