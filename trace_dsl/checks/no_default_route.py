"""Response tokens that no route takes."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.outcomes import outcomes
from trace_dsl.checks.reading import explicit_routes, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import PLAIN_ROWS, REST, Diagnostic, Place, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="no-default-route",
    severity=Severity.WARNING,
    summary="some response tokens feed no loss, and nothing says that this is meant",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if REST in spec.mentioned or (spec.mentioned and not spec.routes):
        return
    rests = tuple(route for route in explicit_routes(spec) if route.is_rest and route.rows == PLAIN_ROWS)
    everything = outcomes((route.when for route in rests), None if facts is None else facts.total_steps)
    if everything is None:
        return
    left = everything.by_model
    for route in rests:
        left &= ~everything.taken_by(route)
    if not left:
        return
    if rests:
        place = rests[-1].place
        message = "`rest` has a predicate, and no later route takes the tokens it leaves"
    else:
        place = spec.routes[-1].place if spec.routes else Place(line=1, column=1, end_line=1, end_column=2)
        message = "there is no `rest` route, so tokens outside the labelled spans feed no loss"
    yield finding(
        RULE,
        place,
        message,
        consequence="most of a response would get no gradient",
        fix="add `rest: grpo()`, or `rest: none` if that is meant",
    )
