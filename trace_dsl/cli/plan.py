"""`trace-dsl plan`: what a spec will do at every step of a run."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trace_dsl.cli.exits import ExitCode, refusing
from trace_dsl.cli.specs import read_bytes, run_facts
from trace_dsl.cli.terminal import console, print_row
from trace_dsl.errors import TraceError
from trace_dsl.lint import lint_text
from trace_dsl.plan import compile_plan
from trace_dsl.plan.describe import default_steps, describe
from trace_dsl.plan.support import unsupported
from trace_dsl.plan.table import table_rows
from trace_dsl.report import full


class PlanFormat(StrEnum):
    TABLE = "table"
    JSON = "json"


def plan(
    spec: Annotated[str, typer.Argument(help="The spec, a .trace file; - reads it from standard input.")],
    run: Annotated[
        Path,
        typer.Option("--run", help="The run file: its steps, groups and task decide what the spec means."),
    ],
    at: Annotated[
        str | None,
        typer.Option(help="Steps to show weights at, such as 0,10,40,end. Default: where weights change."),
    ] = None,
    output: Annotated[PlanFormat, typer.Option("--format", help="table for people, json for programs.")] = (
        PlanFormat.TABLE
    ),
) -> None:
    """Show what a spec does: who each route takes, each loss with its weight over the run, when teachers run.

    Also what the trainer gathers for it, at which steps. What the spec does not write is marked (default).

    Exits with 0, with 1 when the spec has errors, with 2 when a file or --at cannot be read.

    Example: trace-dsl plan specs/demo/trace.trace --run specs/demo/run.yaml --at 0,10,40,end
    """
    with refusing():
        facts = run_facts(run)
        source = read_bytes(spec)
        result = lint_text(source.text, facts, path=source.path)
        steps = _parse_steps(at, facts.total_steps) if at is not None else None
    found = [block.plain for block in full(result)]
    if found:
        print("\n\n".join(found), file=sys.stderr)
    if result.errors or result.spec is None:
        print(f"error: {source.path} has errors and cannot be planned", file=sys.stderr)
        raise typer.Exit(ExitCode.FINDINGS)
    with refusing(ExitCode.FINDINGS):
        compiled = compile_plan(result.spec, facts)
    shown = describe(compiled, steps or default_steps(compiled), unsupported(result.spec))
    if output is PlanFormat.JSON:
        print(shown.to_json())
        return
    screen = console()
    for row in table_rows(shown):
        print_row(screen, row.head, row.parts)


def _parse_steps(text: str, total: int) -> tuple[int, ...]:
    steps = []
    for item in text.split(","):
        item = item.strip()
        if item == "end":
            steps.append(total - 1)
        elif item.isdecimal() and int(item) < total:
            steps.append(int(item))
        else:
            raise TraceError(f"--at {item!r}: a step is a number from 0 to {total - 1}, or 'end'")
    return tuple(sorted(set(steps)))
