"""A weight whose formula has no value at some step."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.course import Courses
from trace_dsl.checks.reading import channels_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="undefined-weight",
    severity=Severity.ERROR,
    summary="a weight that divides by zero or overflows at some step",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    courses = Courses(spec, facts)
    for _, channel in channels_of(spec):
        found = courses.of(channel.weight).undefined
        if found is None:
            continue
        step, reason = found
        yield finding(
            RULE,
            channel.place,
            f"the weight of `{channel.text}` has no value at step {step}: {reason}",
            consequence="the run would stop there, or go on with NaN weights",
            fix="keep the formula defined at every step, as in 1/(step + 1)",
        )
