"""An anneal that would begin after the run's end."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import finding
from trace_dsl.checks.timelines import schedules_with_places, timeline
from trace_dsl.expressions import schedule_text
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="anneal-never-reached",
    severity=Severity.WARNING,
    summary="the run ends before an anneal begins",
    needs_facts=True,
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if facts is None:
        return
    total = facts.total_steps
    for schedule, place in schedules_with_places(spec):
        line = timeline(schedule, total)
        if line is None or schedule.anneal is None or line.full >= total or line.down < total:
            continue
        yield finding(
            RULE,
            place,
            f"the anneal of {schedule_text(schedule)} would begin at step {line.down:g}, but the run has {total} steps",
            consequence="the weight would stay at its peak to the end",
            fix="shorten `warmup`, or give it in percent of the run",
        )
