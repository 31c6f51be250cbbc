"""A named expression that nothing reads."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="unused-let",
    severity=Severity.WARNING,
    summary="a `let` that nothing reads",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for let in spec.lets:
        if let.uses == 0 and let.name not in spec.mentioned:
            yield finding(
                RULE,
                let.place,
                f"nothing reads `{let.name}`",
                consequence="a schedule that was meant to act does not",
                fix=f"use it, as in w={let.name}, or take it out",
            )
