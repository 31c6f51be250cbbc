"""A divergence that is pushed up instead of down at some step."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.course import Courses
from trace_dsl.checks.reading import channels_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import K3, Diagnostic, Divergence, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="negative-kl-weight",
    severity=Severity.ERROR,
    summary="a divergence with a negative weight at some step",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    courses = Courses(spec, facts)
    for route, channel in channels_of(spec):
        if not isinstance(channel.kernel, Divergence | K3):
            continue
        found = courses.of(route, channel.weight).negative
        if found is None:
            continue
        step, weight = found
        yield finding(
            RULE,
            channel.place,
            f"the weight of `{channel.text}` is {weight:g} at step {step}, but a divergence needs 0 or more",
            consequence=f"the student would be driven away from {_other(channel.kernel)} without a bound",
            fix="change the sign, or keep the weight at or above 0 with max(0, ...)",
        )


def _other(kernel: Divergence | K3) -> str:
    return f"the teacher `{kernel.teacher}`" if isinstance(kernel, Divergence) else f"the policy `{kernel.to}`"
