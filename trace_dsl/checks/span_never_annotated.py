"""A route for a label that the annotator never emits."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import REST, Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.vocabulary import did_you_mean

RULE = RuleInfo(
    name="span-never-annotated",
    severity=Severity.WARNING,
    summary="a routed label that the run's annotator cannot emit",
    needs_facts=True,
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if facts is None:
        return
    told: set[str] = set()
    for route in spec.routes:
        for label in route.labels:
            if label == REST or label in facts.annotator_labels or label in told:
                continue
            told.add(label)
            yield finding(
                RULE,
                route.place,
                f"the annotator of this run never emits `{label}`",
                consequence="no token would go this route",
                fix=did_you_mean(label, facts.annotator_labels).text,
            )
