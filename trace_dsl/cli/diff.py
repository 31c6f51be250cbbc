"""`trace-dsl diff`: what two specs do differently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from trace_dsl.cli.exits import ExitCode, refusing
from trace_dsl.cli.formats import OutputFormat, print_json
from trace_dsl.cli.specs import STDIN, read_meaning, run_facts
from trace_dsl.cli.terminal import console, print_wrapped
from trace_dsl.errors import SpecError
from trace_dsl.facts import RunFacts
from trace_dsl.plan.difference import Change, Difference, difference
from trace_dsl.plan.stretches import stretches_text
from trace_dsl.plan.weights_over_run import WeightsOverRun


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
            for line in _lines(old, new, found, facts):
                print_wrapped(screen, line)
        case OutputFormat.JSON:
            # a hash is that of a plan, so without a run there is none
            hashes = {} if facts is not None else {"old_hash": None, "new_hash": None}
            print_json(old=old, new=new, same=not found.changes, **{**asdict(found), **hashes})
    if found.changes:
        raise typer.Exit(ExitCode.FINDINGS)


def _lines(old: str, new: str, found: Difference, facts: RunFacts | None) -> Iterator[Text]:
    for where, changes in groupby(found.changes, key=lambda change: change.where):
        yield Text(where, style="bold")
        for change in changes:
            yield from _change_lines(change)
    for note in found.notes:
        yield Text(f"note: {note}")
    number = len(found.changes)
    count = "the same in meaning" if not number else f"{number} difference{'' if number == 1 else 's'}"
    yield Text(f"{old} -> {new}: {count}")
    if facts is None:
        return
    if found.old_hash == found.new_hash:
        yield Text(f"both have the plan {found.new_hash}: a checkpoint of one goes on under the other")
    else:
        yield Text(f"plan {found.old_hash} -> {found.new_hash}: a checkpoint of one does not go on under the other")


def _change_lines(change: Change) -> Iterator[Text]:
    what = f"{change.what}: " if change.what else ""
    if change.old is None:
        yield Text(f"  added {what}{change.new}", style="green")
    elif change.new is None:
        yield Text(f"  removed {what}{change.old}", style="red")
    else:
        line = Text(f"  {what}")
        line.append(change.old, style="red").append(" -> ")
        yield line.append(change.new, style="green")
    if change.over_run is not None:
        yield from _run_lines(change.over_run)


def _run_lines(over_run: WeightsOverRun) -> Iterator[Text]:
    yield Text(f"    differs at {stretches_text(over_run.ranges)} of 0-{over_run.total_steps - 1}")
    for sample in over_run.samples:
        yield Text(f"    at step {sample.step}: {sample.old} -> {sample.new}")
