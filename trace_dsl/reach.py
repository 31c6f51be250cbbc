"""At which steps a route may take a token, as far as predicates on the step tell."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from trace_dsl.certainty import predicate_known_at
from trace_dsl.expressions import schedules_of, signals_of
from trace_dsl.model import REST, Place, Route
from trace_dsl.schedules import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a route stands at one step. Exact where the step decides, safe elsewhere.

    offered: routes above leave it a token, predicates on the batch aside; holds: whether its predicate does, None when
    only the batch can tell.
    """

    offered: bool
    holds: bool | None

    @property
    def reached(self) -> bool:
        """Whether it may take a token."""
        return self.offered and self.holds is not False

    @property
    def asks(self) -> bool:
        """Whether its predicate is evaluated on the batch."""
        return self.offered and self.holds is None


class Reach:
    """How routes stand at any step. `broken`: routes that are not known in full, which take no token from others."""

    def __init__(self, routes: Sequence[Route], broken: Container[Place] = ()) -> None:
        self._routes = tuple(
            _Offer(
                route=route,
                takes_tool_output=_reads_source(route),
                changes=reads_step(route),
                whole=route.place not in broken,
            )
            for route in routes
        )

    @property
    def moves(self) -> bool:
        """Whether the step has a say in which tokens some route takes."""
        return any(one.changes for one in self._routes)

    def at(self, at: Progress) -> tuple[Standing, ...]:
        """How each route stands at a step."""
        found = []
        # Labels of which routes above surely take every token they are offered, tool output aside (False) or with it.
        taken: set[tuple[str, bool, str]] = set()
        for one in self._routes:
            route, tool = one.route, one.takes_tool_output
            wanted = (REST,) if route.is_rest else route.labels
            rest_is_taken = (route.rows, tool, REST) in taken
            offered = not (rest_is_taken or all((route.rows, tool, label) in taken for label in wanted))
            holds = True if route.when is None else predicate_known_at(route.when, at)
            found.append(Standing(offered=offered, holds=holds))
            if offered and holds and one.whole:
                taken.update((route.rows, with_tool, label) for with_tool in {False, tool} for label in wanted)
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """A route alone is offered tool output when its predicate reads `source`."""

    route: Route
    takes_tool_output: bool
    changes: bool
    whole: bool


def reads_step(route: Route) -> bool:
    """Whether the step has a say in which tokens a route takes."""
    return route.when is not None and ("step" in signals_of(route.when) or bool(schedules_of(route.when)))


def _reads_source(route: Route) -> bool:
    return route.when is not None and "source" in signals_of(route.when)
