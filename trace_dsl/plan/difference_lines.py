"""A difference between two specs as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.text import Text

from trace_dsl.facts import RunFacts
from trace_dsl.plan.difference import Change, Difference
from trace_dsl.plan.stretches import stretches_text
from trace_dsl.plan.weights_over_run import WeightsOverRun


def change_lines(found: Difference) -> Iterator[Text]:
    """What changed, under the name of each thing in which it did, and the notes."""
    for where, changes in groupby(found.changes, key=lambda change: change.where):
        yield Text(where, style="bold")
        for change in changes:
            yield from _change_lines(change)
    for note in found.notes:
        yield Text(f"note: {note}")


def difference_lines(old: str, new: str, found: Difference, facts: RunFacts | None) -> Iterator[Text]:
    """The difference between two specs of these names, styled; with facts also what a checkpoint makes of it."""
    yield from change_lines(found)
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
