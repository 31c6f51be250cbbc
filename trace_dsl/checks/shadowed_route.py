"""A route that no token can reach, because earlier routes take every token it would."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.outcomes import Outcomes, outcomes
from trace_dsl.checks.reading import explicit_routes, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, OtherPlace, Place, Route, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Expr

RULE = RuleInfo(
    name="shadowed-route",
    severity=Severity.ERROR,
    summary="earlier routes take every token of this one",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    of_source: dict[str, _Earlier] = {}
    for route in explicit_routes(spec):
        if route.rows not in of_source:
            of_source[route.rows] = _Earlier(None if facts is None else facts.total_steps)
        earlier = of_source[route.rows]
        if route.place in spec.broken:  # mended, it takes other tokens
            continue
        shadows = earlier.shadows(route)
        fix = earlier.fix(route, shadows)
        earlier.add(route)
        if not shadows:
            continue
        names = " and ".join(f"`{other.text}`" for other in shadows)
        yield finding(
            RULE,
            route.place,
            f"no token reaches `{route.text}`: {names} take{'s' if len(shadows) == 1 else ''} them all",
            consequence="the first route that matches wins, so the losses written here would never train anything",
            fix=fix,
            others=tuple(OtherPlace(place=other.place, note=f"`{other.text}` comes first") for other in shadows),
        )


class _Earlier:
    """The routes above one, of the same source of rollouts."""

    def __init__(self, total_steps: int | None) -> None:
        self.total_steps = total_steps
        self.routes: list[Route] = []
        self.by_predicate: dict[Expr | None, list[tuple[int, Route]]] = {}
        # What can be the case as far as their predicates can tell; None once that is too much to go through.
        self.everything: Outcomes | None = Outcomes((), total_steps)
        self.taken: dict[Place, int] = {}  # places are told apart sooner than predicates

    def add(self, route: Route) -> None:
        self.by_predicate.setdefault(route.when, []).append((len(self.routes), route))
        self.routes.append(route)

    def shadows(self, route: Route) -> tuple[Route, ...]:
        """Those that together take every token of `route`; () when some token is left for it."""
        self._tell_apart(route)
        alone = self._alone(route)
        if alone is not None:
            return (alone,)
        if self.everything is None:
            return ()
        reached = self._taken_by(route)
        if not reached:  # the rule unreachable-predicate
            return ()
        shadows: dict[Place, Route] = {}
        for label in route.labels:
            left = reached
            for other in self.routes:
                if not left:
                    break
                if _carries(other, label):
                    taken = left & self._taken_by(other)
                    left &= ~taken
                    if taken:
                        shadows[other.place] = other
            if left:
                return ()
        return tuple(shadows.values())

    def fix(self, route: Route, shadows: tuple[Route, ...]) -> str:
        """What to do about a route that `shadows` take everything of."""
        hidden = tuple(other for other in shadows if self._takes_all_of(route, other))
        if not hidden:
            return "move it above the other, or give the other a predicate"
        if len(shadows) == 1:
            return "both take the same tokens: join their losses with `+` in one route, or take one of the two out"
        names = " and ".join(f"`{other.text}`" for other in hidden)
        return f"take it out, or give {names} narrower predicates; above them it would leave them nothing"

    def _takes_all_of(self, route: Route, other: Route) -> bool:
        """Whether `route` would leave nothing for `other` if it came first."""
        if not all(_carries(route, label) for label in other.labels):
            return False
        if route.when == other.when or self.everything is None:
            return route.when == other.when
        return not self._taken_by(other) & ~self._taken_by(route)

    def _tell_apart(self, route: Route) -> None:
        """See to it that the outcomes tell what the route's predicate asks."""
        if self.everything is None:
            return
        grown = self.everything.told_apart_by(route.when)
        if grown != self.everything:
            self.everything, self.taken = grown, {}

    def _taken_by(self, route: Route) -> int:
        assert self.everything is not None
        if route.place not in self.taken:
            self.taken[route.place] = self.everything.taken_by(route)
        return self.taken[route.place]

    def _alone(self, route: Route) -> Route | None:
        """The first that alone takes every token of `route`, seen from labels and predicates as they are written."""
        candidates = list(self.by_predicate.get(route.when, ()))
        if route.when is not None and None in self.by_predicate:
            everything = outcomes([route.when], self.total_steps)
            if everything is None or not everything.taken_by(route) & ~everything.by_model:
                candidates += self.by_predicate[None]
        covering = (at for at in sorted(candidates) if all(_carries(at[1], label) for label in route.labels))
        return next((other for _, other in covering), None)


def _carries(route: Route, label: str) -> bool:
    return route.is_rest or label in route.labels
