"""A cap that is more than the whole response."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="cap-exceeds-one",
    severity=Severity.ERROR,
    summary="a span label may take more than the whole response",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for label in spec.labels:
        if label.cap is None or label.cap <= 1:
            continue
        meant = 2 < label.cap <= 100 and not label.cap_in_percent
        fix = f"write cap={label.cap:g}%" if meant else "write a cap of 100% or less, such as cap=25%"
        yield finding(
            RULE,
            label.place,
            f"the cap of `{label.name}` is {label.cap:g} times the response; at most 1 (100%) is possible",
            consequence="the cap would bound nothing, and an annotator that marks everything would go unnoticed",
            fix=fix,
        )
