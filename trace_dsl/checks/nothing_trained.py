"""Routes of which none has a loss."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="nothing-trained",
    severity=Severity.WARNING,
    summary="every route says `none`: no token feeds a loss",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    # What a statement with an error would train is unknown.
    if spec.mentioned or not spec.routes or any(route.channels for route in spec.routes):
        return
    yield finding(
        RULE,
        spec.routes[-1].place,
        "every route says `none`, so no token ever feeds a loss",
        consequence="the run would take every step and leave the policy as it was",
        fix="give a route a loss, as in `rest: grpo()`",
    )
