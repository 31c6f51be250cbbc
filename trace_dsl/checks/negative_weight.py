"""A loss that is turned around at some step: a policy gradient against its reward, a likelihood pushed down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from trace_dsl.checks.course import Courses
from trace_dsl.checks.reading import channels_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import (
    K3,
    Cispo,
    Diagnostic,
    Divergence,
    EntropyBonus,
    Kernel,
    Nll,
    PolicyGradient,
    Severity,
    Spec,
)
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="negative-weight",
    severity=Severity.WARNING,
    summary="a policy gradient, likelihood or entropy bonus with a negative weight at some step",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    courses = Courses(spec, facts)
    for route, channel in channels_of(spec):
        consequence = _consequence(channel.kernel)
        found = courses.of(route, channel.weight).negative
        if consequence is None or found is None:
            continue
        step, weight = found
        yield finding(
            RULE,
            channel.place,
            f"the weight of `{channel.text}` is {weight:g} at step {step}: the loss is turned around",
            consequence=consequence,
            fix="change the sign, or say with an ignore comment that it is meant",
        )


def _consequence(kernel: Kernel) -> str | None:
    """What a negative weight does to a loss; None for those of the rule negative-kl-weight."""
    match kernel:
        case PolicyGradient() | Cispo():
            return "the policy would be trained against its reward"
        case Nll():
            return "the likelihood of these tokens would be pushed down without a bound"
        case EntropyBonus():
            return "entropy would be punished: the policy grows certain of what it says and explores less"
        case Divergence() | K3():
            return None
        case _:
            assert_never(kernel)
