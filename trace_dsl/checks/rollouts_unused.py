"""Extra rollouts that no route takes."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="rollouts-unused",
    severity=Severity.WARNING,
    summary="extra rollouts that no route takes",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    taken = {route.rows for route in spec.routes} | spec.mentioned
    for source in spec.rollouts:
        if source.name not in taken:
            yield finding(
                RULE,
                source.place,
                f"no route takes the rollouts `{source.name}`",
                consequence="every step would pay for them, and they would train nothing",
                fix=f"take them with a route, as in `rest when rows == {source.name}: nll()`, or take the line out",
            )
