"""A route that no token can reach, because earlier routes take every token it would."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.outcomes import Outcome, outcomes, takes
from trace_dsl.checks.reading import explicit_routes, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, OtherPlace, Route, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="shadowed-route",
    severity=Severity.ERROR,
    summary="earlier routes take every token of this one",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    routes = explicit_routes(spec)
    for index, route in enumerate(routes):
        earlier = tuple(other for other in routes[:index] if other.rows == route.rows)
        shadows = _shadows(route, earlier)
        if not shadows:
            continue
        names = " and ".join(f"`{other.text}`" for other in shadows)
        yield finding(
            RULE,
            route.place,
            f"no token reaches `{route.text}`: {names} take{'s' if len(shadows) == 1 else ''} them all",
            consequence="the first route that matches wins, so the losses written here would never train anything",
            fix="move it above the other, or give the other a predicate",
            others=tuple(OtherPlace(place=other.place, note=f"`{other.text}` comes first") for other in shadows),
        )


def _carries(route: Route, label: str) -> bool:
    return route.is_rest or label in route.labels


def _shadows(route: Route, earlier: tuple[Route, ...]) -> tuple[Route, ...]:
    """The earlier routes that together take every token of `route`; () when some token is left for it."""
    alone = next((other for other in earlier if _covers(other, route)), None)
    if alone is not None:
        return (alone,)
    everything = outcomes([route.when, *(other.when for other in earlier)])
    if everything is None:
        return ()
    reached = tuple(outcome for outcome in everything if takes(route, outcome))
    shadows: dict[Route, None] = {}
    for label in route.labels:
        for outcome in reached:
            taker = _first_taker(earlier, label, outcome)
            if taker is None:
                return ()
            shadows[taker] = None
    return tuple(shadows)


def _covers(other: Route, route: Route) -> bool:
    """Whether one earlier route takes every token of a route, seen from labels and predicates as they are written."""
    same_or_none = other.when == route.when or (
        other.when is None and not any(takes(route, o) for o in outcomes([route.when]) or () if o.source)
    )
    return same_or_none and all(_carries(other, label) for label in route.labels)


def _first_taker(earlier: tuple[Route, ...], label: str, outcome: Outcome) -> Route | None:
    return next((other for other in earlier if _carries(other, label) and takes(other, outcome)), None)
