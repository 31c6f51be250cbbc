"""A divergence that is pushed up instead of down at some step."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import channels_of, finding, points_to_try
from trace_dsl.expressions import is_known_before_run, weight_at_step
from trace_dsl.facts import RunFacts
from trace_dsl.model import K3, Diagnostic, Divergence, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Expr

RULE = RuleInfo(
    name="negative-kl-weight",
    severity=Severity.ERROR,
    summary="a divergence with a negative weight at some step",
)
# Cancellation in formulas such as w - w0*(1 - k/n) leaves a few ulps below zero.
_ROUNDING = 1e-12


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for _, channel in channels_of(spec):
        if not isinstance(channel.kernel, Divergence | K3) or not is_known_before_run(channel.weight):
            continue
        found = _first_negative(channel.weight, facts)
        if found is None:
            continue
        step, weight = found
        yield finding(
            RULE,
            channel.place,
            f"the weight of `{channel.text}` is {weight:g} at step {step}, but a divergence needs 0 or more",
            consequence="the student would be driven away from its teacher without a bound",
            fix="change the sign, or keep the weight at or above 0 with max(0, ...)",
        )


def _first_negative(weight: Expr, facts: RunFacts | None) -> tuple[int, float] | None:
    for at in points_to_try(weight, facts):
        try:
            value = weight_at_step(weight, at)
        except ValueError:
            return None  # undefined at some step: the rule undefined-weight speaks of it
        if value < -_ROUNDING:
            return at.step, value
    return None
