"""A loss whose weight is zero at every step."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.course import Courses
from trace_dsl.checks.reading import channels_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="zero-weight",
    severity=Severity.WARNING,
    summary="a loss with weight 0 at every step",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    courses = Courses(spec, facts)
    for route, channel in channels_of(spec):
        if not courses.of(route, channel.weight).is_zero:
            continue
        yield finding(
            RULE,
            channel.place,
            f"the weight of `{channel.text}` is 0 at every step",
            consequence="it trains nothing, and its tokens still belong to this route",
            fix="give it a weight, or write `none` if these tokens are to feed no loss",
        )
