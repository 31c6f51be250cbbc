"""A loss that is turned around at some step: a policy gradient against its reward, a likelihood pushed down."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.course import Courses
from trace_dsl.checks.reading import channels_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import K3, Diagnostic, Divergence, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="negative-weight",
    severity=Severity.WARNING,
    summary="a policy gradient, likelihood or entropy bonus with a negative weight at some step",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    courses = Courses(spec, facts)
    for _, channel in channels_of(spec):
        if isinstance(channel.kernel, Divergence | K3):
            continue
        found = courses.of(channel.weight).negative
        if found is None:
            continue
        step, weight = found
        yield finding(
            RULE,
            channel.place,
            f"the weight of `{channel.text}` is {weight:g} at step {step}: the loss is turned around",
            consequence="a policy gradient then trains against its reward, a likelihood is pushed down without a bound",
            fix="change the sign, or say with an ignore comment that it is meant",
        )
