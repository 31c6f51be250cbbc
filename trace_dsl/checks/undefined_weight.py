"""A weight whose formula has no value at some step."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trace_dsl.checks.reading import channels_of, finding, points_to_try
from trace_dsl.expressions import is_known_before_run, weight_at_step
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Expr

RULE = RuleInfo(
    name="undefined-weight",
    severity=Severity.ERROR,
    summary="a weight that divides by zero or overflows at some step",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for _, channel in channels_of(spec):
        if not is_known_before_run(channel.weight):
            continue
        found = _first_undefined(channel.weight, facts)
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


def _first_undefined(weight: Expr, facts: RunFacts | None) -> tuple[int, str] | None:
    for at in points_to_try(weight, facts):
        try:
            value = weight_at_step(weight, at)
        except ValueError as error:
            return at.step, str(error)
        if not math.isfinite(value):
            return at.step, f"it is {value}"
    return None
