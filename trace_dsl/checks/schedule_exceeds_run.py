"""A schedule that the run ends in the middle of."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import finding
from trace_dsl.checks.timelines import schedules_with_places, timeline
from trace_dsl.expressions import schedule_text
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="schedule-exceeds-run",
    severity=Severity.ERROR,
    summary="the run ends before a schedule has reached its weight, or its floor",
    needs_facts=True,
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if facts is None:
        return
    total = facts.total_steps
    for schedule, place in schedules_with_places(spec):
        line = timeline(schedule, total)
        if line is None:
            continue
        if line.full > 0 and line.full >= total:
            message = f"reaches its weight at step {line.full:g}, but the run has {total} steps"
            consequence = "the weight that is written here would never act"
        elif line.down < total < line.end:
            message = f"reaches its floor at step {line.end:g}, but the run has {total} steps"
            consequence = "the weight would still be up when the run ends"
        else:
            continue
        yield finding(
            RULE,
            place,
            f"{schedule_text(schedule)} {message}",
            consequence=consequence,
            fix="shorten it, give its lengths in percent of the run, or leave out the length of its anneal",
        )
