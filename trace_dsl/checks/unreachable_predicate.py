"""A predicate that is never true."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.no_value import explicit
from trace_dsl.checks.outcomes import outcomes
from trace_dsl.checks.reading import contexts_of, finding, predicates_of
from trace_dsl.expressions import text_of
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="unreachable-predicate",
    severity=Severity.ERROR,
    summary="a `when` that no rollout can meet",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    contexts = contexts_of(spec)
    for when, place in predicates_of(spec):
        said = explicit(when, contexts)
        everything = outcomes([said])
        if everything is None or everything.where(said):
            continue
        yield finding(
            RULE,
            place,
            f"`{text_of(when)}` is never true",
            consequence="nothing behind this `when` would ever take part in the run",
            fix="a rollout is either correct or wrong; use `or`, or two statements",
        )
