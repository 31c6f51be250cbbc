"""A rate of a moving average that looks like its decay."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Ema, SelfTeacher, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="ema-rate-near-one",
    severity=Severity.WARNING,
    summary="`ema` is given a decay such as 0.999, but takes the rate at which the teacher follows",
)
_NEAR_ONE = 0.9


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for teacher in spec.teachers:
        match teacher.source:
            case SelfTeacher(update=Ema(rate=rate)) if _NEAR_ONE <= rate < 1:
                yield finding(
                    RULE,
                    teacher.place,
                    f"`ema` is the rate at which `{teacher.name}` follows the student: with ema={rate:g} it takes over "
                    f"{100 * rate:.6g}% of the student's weights at every step",
                    consequence="the teacher would be nearly the student itself and have little to teach it",
                    fix=f"write ema={1 - rate:.6g} for a decay of {rate:g}, or sync=1 if it is to be the student",
                )
            case _:
                pass
