"""`trace-dsl diff`: what two specs do differently."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trace_dsl.cli.exits import ExitCode, refusing
from trace_dsl.cli.formats import OutputFormat, print_json
from trace_dsl.cli.specs import STDIN, read_meaning, run_facts
from trace_dsl.cli.terminal import console, print_wrapped
from trace_dsl.errors import SpecError
from trace_dsl.plan.difference import difference
from trace_dsl.plan.difference_lines import difference_lines


def diff(
    old: Annotated[str, typer.Argument(help="A spec; - reads it from standard input.")],
    new: Annotated[str, typer.Argument(help="The spec to compare it with; - reads it from standard input.")],
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The run file: with it, weights are compared at every step of that run."),
    ] = None,
    output: Annotated[OutputFormat, typer.Option("--format", help="text for people, json for programs.")] = (
        OutputFormat.TEXT
    ),
) -> None:
    """Show what changes from one spec to another: routes, predicates, losses, weights, denominators, teachers.

    Comments, formatting and the names of lets do not count. Exits with 0 when both specs mean the same, 1 when they
    differ, 2 when one of them cannot be read.

    Example: git show HEAD:specs/demo/trace.trace | trace-dsl diff - specs/demo/trace.trace --run specs/demo/run.yaml
    """
    with refusing():
        if old == new == STDIN:
            raise SpecError("standard input holds one spec: name a file for the other")
        facts = None if run is None else run_facts(run)
        specs = read_meaning(old), read_meaning(new)
    found = difference(*specs, facts)
    match output:
        case OutputFormat.TEXT:
            screen = console()
            for line in difference_lines(old, new, found, facts):
                print_wrapped(screen, line)
        case OutputFormat.JSON:
            # a hash is that of a plan, so without a run there is none
            hashes = {} if facts is not None else {"old_hash": None, "new_hash": None}
            print_json(old=old, new=new, same=not found.changes, **{**asdict(found), **hashes})
    if found.changes:
        raise typer.Exit(ExitCode.FINDINGS)
