"""A schedule that the run ends in the middle of."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import finding
from trace_dsl.checks.timelines import schedules_with_places, timeline
from trace_dsl.expressions import schedule_text
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Schedule, Steps

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
            fix=_fix(schedule, total, may_anneal=line.down < total),
        )


def _fix(schedule: Schedule, total: int, *, may_anneal: bool) -> str:
    """What to change: lengths in steps may become shares of the run; an anneal that begins in the run may lose its
    length."""
    lengths = {"start": schedule.start, "ramp": schedule.ramp, "warmup": schedule.warmup}
    if schedule.anneal is not None and schedule.anneal.length is not None:
        lengths["anneal"] = schedule.anneal.length
    given = [name for name, length in lengths.items() if length != Steps(0)]
    ways = [f"shorten {', '.join(given)}: all of them have to fit into {total} steps"]
    if any(isinstance(lengths[name], Steps) for name in given):
        ways.append("give steps in percent of the run")
    if "anneal" in lengths and may_anneal:
        ways.append("leave out the length of its anneal")
    return ", or ".join(ways)
