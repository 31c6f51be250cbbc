"""At which steps a route may take a token, as far as predicates on the step tell."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from trace_dsl.certainty import follows_from_step, predicate_known_at
from trace_dsl.expressions import schedules_of, signals_of
from trace_dsl.model import REST, Place, Route
from trace_dsl.over_steps import Points, formula_size, known_values_at
from trace_dsl.schedules import Progress
from trace_dsl.terms import Constant, Expr, Operation, Operator, Signal

_Holds = bool | None
_COMPARISONS = {Operator.LT, Operator.LE, Operator.GT, Operator.GE, Operator.EQ, Operator.NE}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Steps at which routes stand the same: `standing`, one for each."""

    steps: Sequence[int]
    standing: tuple[Standing, ...]


def steps_reached(stretches: Iterable[Stretch], index: int) -> Sequence[int]:
    """The steps at which a route may take tokens."""
    return _joined([one.steps for one in stretches if one.standing[index].reached])


def steps_asked(stretches: Iterable[Stretch], index: int) -> Sequence[int]:
    """The steps at which a route's predicate is evaluated on the batch."""
    return _joined([one.steps for one in stretches if one.standing[index].asks])


def _joined(parts: Sequence[Sequence[int]]) -> Sequence[int]:
    """The steps of stretches in order: a range where none is left out between them."""
    first = parts[0] if parts else range(0)
    if all(isinstance(part, range) and part[0] == before[-1] + 1 for before, part in pairwise(parts)):
        return range(first[0], parts[-1][-1] + 1) if parts and isinstance(first, range) else first
    return list(chain.from_iterable(parts))


class Reach:
    """How routes stand at any step. `broken`: routes that are not known in full, which take no token from others."""

    def __init__(self, routes: Sequence[Route], broken: Container[Place] = ()) -> None:
        self._routes = tuple(
            _Offer(
                route=route,
                takes_tool_output=_reads_source(route),
                turns=_turns(route.when) if route.when is not None and reads_step(route) else frozenset(),
                whole=route.place not in broken,
            )
            for route in routes
        )

    @property
    def parts_at_each_step(self) -> int:
        """How many parts of predicates `over` evaluates at every step: none of those that compare it with numbers."""
        predicates = (one.route.when for one in self._routes if one.turns is None)
        return sum(formula_size(predicate) for predicate in predicates if predicate is not None)

    def at(self, at: Progress) -> tuple[Standing, ...]:
        """How each route stands at a step."""
        return self._standing(tuple(_holds(one.route, at) for one in self._routes))

    def over(self, steps: Sequence[int], total_steps: int) -> tuple[Stretch, ...]:
        """How each route stands at each of `steps`, which ascend, of a run of `total_steps`."""
        changes: dict[int, dict[int, _Holds]] = {0: {}}
        for index, one in enumerate(self._routes):
            for position, holds in _changes(one, steps, total_steps).items():
                changes.setdefault(position, {})[index] = holds
        known: dict[tuple[_Holds, ...], tuple[Standing, ...]] = {}
        now: list[_Holds] = [None] * len(self._routes)
        found = []
        begins = sorted(changes)
        for begin, end in zip(begins, [*begins[1:], len(steps)], strict=True):
            for index, holds in changes[begin].items():
                now[index] = holds
            key = tuple(now)
            if key not in known:
                known[key] = self._standing(key)
            found.append(Stretch(steps=steps[begin:end], standing=known[key]))
        return tuple(found)

    def _standing(self, holds: tuple[_Holds, ...]) -> tuple[Standing, ...]:
        """How each route stands where their predicates hold so."""
        found = []
        # Labels of which routes above surely take every token they are offered, tool output aside (False) or with it.
        taken: set[tuple[str, bool, str]] = set()
        for one, does in zip(self._routes, holds, strict=True):
            route, tool = one.route, one.takes_tool_output
            wanted = (REST,) if route.is_rest else route.labels
            rest_is_taken = (route.rows, tool, REST) in taken
            offered = not (rest_is_taken or all((route.rows, tool, label) in taken for label in wanted))
            found.append(Standing(offered=offered, holds=does))
            if offered and does and one.whole:
                taken.update((route.rows, with_tool, label) for with_tool in {False, tool} for label in wanted)
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """A route alone is offered tool output when its predicate reads `source`.

    turns: the first steps of all stretches over which its predicate holds alike, None where each step takes a look.
    """

    route: Route
    takes_tool_output: bool
    turns: frozenset[int] | None
    whole: bool


def reads_step(route: Route) -> bool:
    """Whether the step has a say in which tokens a route takes."""
    return route.when is not None and ("step" in signals_of(route.when) or bool(schedules_of(route.when)))


def _reads_source(route: Route) -> bool:
    return route.when is not None and "source" in signals_of(route.when)


def _holds(route: Route, at: Progress) -> _Holds:
    return True if route.when is None else predicate_known_at(route.when, at)


def _changes(offer: _Offer, steps: Sequence[int], total_steps: int) -> Mapping[int, _Holds]:
    """Whether a route's predicate holds: at the first of `steps`, and where that changes, by the number of the step."""
    route = offer.route
    if offer.turns is None:
        assert route.when is not None
        column = _known_over(route.when, steps, total_steps)
        return {n: holds for n, holds in enumerate(column) if n == 0 or holds is not column[n - 1]}
    positions = {0, *(bisect_left(steps, turn) for turn in offer.turns)} - {len(steps)}
    return {n: _holds(route, Progress(step=steps[n], total_steps=total_steps)) for n in positions}


def _turns(predicate: Expr) -> frozenset[int] | None:
    """The first steps of all stretches over which the step decides alike, where it is only compared with numbers."""
    match predicate:
        case Operation(op=Operator.AND | Operator.OR | Operator.NOT, args=args):
            found: frozenset[int] = frozenset()
            for arg in args:
                turns = _turns(arg)
                if turns is None:
                    return None
                found |= turns
            return found
        case Operation(op=op, args=(Signal(name="step"), Constant(value=number))) if op in _COMPARISONS:
            return frozenset((math.ceil(number), math.floor(number) + 1))
        case Operation(op=op, args=(Constant(value=number), Signal(name="step"))) if op in _COMPARISONS:
            return frozenset((math.ceil(number), math.floor(number) + 1))
        case _:
            return None if follows_from_step(predicate) else frozenset()


def _known_over(predicate: Expr, steps: Sequence[int], total_steps: int) -> Sequence[_Holds]:
    """`predicate_known_at` at each of `steps`."""
    if follows_from_step(predicate):
        values = known_values_at(predicate, Points(total_steps=total_steps, steps=steps, tokens=()))
        return [None if value is None else value != 0.0 for value in values]
    match predicate:
        case Operation(op=Operator.NOT, args=(inner,)):
            return [None if holds is None else not holds for holds in _known_over(inner, steps, total_steps)]
        case Operation(op=Operator.AND | Operator.OR as op, args=args):
            decides = op is Operator.OR
            columns = zip(*(_known_over(arg, steps, total_steps) for arg in args), strict=True)
            return [decides if decides in at else None if None in at else not decides for at in columns]
        case _:
            return [None] * len(steps)
