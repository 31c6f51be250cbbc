"""At which steps a route may take a token, as far as predicates on the step tell."""

from __future__ import annotations

from collections.abc import Sequence

from trace_dsl.expressions import signals_of
from trace_dsl.model import Route
from trace_dsl.plan.certainty import predicate_known_at
from trace_dsl.schedules import Progress


def reached(routes: Sequence[Route], at: Progress) -> tuple[bool, ...]:
    """Which routes may take a token at a step: the predicate may hold there, and no route above takes all it would.

    Exact where the step decides, safe elsewhere.
    """
    found = []
    full: list[Route] = []  # those above that surely take whatever they are offered
    for route in routes:
        holds = None if route.when is None else predicate_known_at(route.when, at)
        found.append(holds is not False and not any(_is_offered_all_of(above, route) for above in full))
        if holds is True:
            full.append(route)
    return tuple(found)


def _is_offered_all_of(above: Route, route: Route) -> bool:
    """Whether, predicates aside, every token that `route` would take is offered to `above` first."""
    labels = above.is_rest or set(route.labels) <= set(above.labels)
    return labels and above.rows == route.rows and (not _reads_source(route) or _reads_source(above))


def _reads_source(route: Route) -> bool:
    """Such a route alone is offered tool output."""
    return route.when is not None and "source" in signals_of(route.when)
