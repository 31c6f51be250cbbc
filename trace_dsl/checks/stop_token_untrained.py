"""A spec in which nothing trains where a response ends."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.course import Courses
from trace_dsl.checks.outcomes import outcomes
from trace_dsl.checks.reading import finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import REST, Diagnostic, Route, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="stop-token-untrained",
    severity=Severity.WARNING,
    summary="no loss reaches the last token of a response",
    needs_facts=True,
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if facts is None or spec.mentioned:
        return
    courses = Courses(spec, facts)
    trained = [
        route
        for route in spec.routes
        if any(not courses.of(route, channel.weight).is_zero for channel in route.channels)
    ]
    if not trained:
        return
    if any(route.is_rest and _takes_what_the_model_wrote(route) for route in trained):
        return
    rests = [route for route in spec.routes if route.is_rest]
    message = "`rest` has no weight" if rests else "there is no `rest` route"
    yield finding(
        RULE,
        rests[-1].place if rests else trained[-1].place,
        f"{message}, so the token that ends a response is trained only if an annotated span happens to hold it",
        consequence="the policy can forget how to stop, and responses grow to their limit (trl#7230)",
        fix=f"add `{REST}: grpo()`, or a small loss that keeps the rest where it is",
    )


def _takes_what_the_model_wrote(route: Route) -> bool:
    everything = outcomes([route.when])
    return everything is None or bool(everything.taken_by(route) & everything.by_model)
