"""Which parts of a weight or an advantage go into its value, and for which rollouts and tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from trace_dsl.checks.no_value import explicit
from trace_dsl.checks.outcomes import Outcomes, outcomes
from trace_dsl.model import Route
from trace_dsl.terms import (
    Apply,
    Constant,
    Expr,
    Function,
    Operation,
    Operator,
    Reduce,
    Reduction,
    Scan,
    Scanned,
    Scheduled,
    Scope,
    Signal,
)

_ARITHMETIC = frozenset({Operator.NEG, Operator.ADD, Operator.SUB, Operator.MUL, Operator.DIV})
_PREDICATES = (Reduction.TOP, Reduction.RANDOM)
_COUNTS = (Scan.CUMCOUNT, Scan.UNTIL, Scan.LATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A signal or an operation whose value is passed on where `guards` hold; `apart`: of other rollouts than those that
    the route takes, too, as what is reduced over a group or the batch is.
    """

    expr: Expr
    guards: tuple[Expr, ...]
    apart: bool


def parts_of(
    expr: Expr, contexts: Mapping[str, str], guards: tuple[Expr, ...] = (), *, apart: bool = False
) -> Iterator[Part]:
    """Every part that is passed on, with the conditions of `where` under which it is.

    A predicate passes nothing on: it is true or false whatever its sides are. contexts: as of `no_value.explicit`.
    """
    below: Sequence[Expr] = ()
    match expr:
        case Constant() | Scheduled():
            return
        case Signal():
            yield Part(expr=expr, guards=guards, apart=apart)
        case Operation(op=op, args=args):
            if op in _ARITHMETIC:
                yield Part(expr=expr, guards=guards, apart=apart)
                below = args
        case Apply(function=Function.WHERE, args=(condition, chosen, other)):
            holds = explicit(condition, contexts)
            fails = Operation(op=Operator.NOT, args=(holds,), rank=holds.rank)
            yield from parts_of(chosen, contexts, (*guards, holds), apart=apart)
            yield from parts_of(other, contexts, (*guards, fails), apart=apart)
        case Apply(args=args):
            below = args
        case Reduce(reduction=reduction, value=value, over=over):
            if value is not None and reduction not in _PREDICATES:
                within = over is Scope.ROW
                yield from parts_of(value, contexts, guards if within else (), apart=apart or not within)
        case Scanned(scan=scan, args=args):
            below = () if scan in _COUNTS else args
        case _:
            assert_never(expr)
    for part in below:
        yield from parts_of(part, contexts, guards, apart=apart)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """The cases in which a part is passed on, as `outcomes` tells them apart: one set for each label of its route."""

    outcomes: Outcomes
    sets: tuple[int, ...]


def cases_of(part: Part, route: Route, above: Sequence[Route], asked: Sequence[Expr] = ()) -> Cases | None:
    """When a part is passed on; None where that is too much to go through.

    route, above: with explicit predicates (`reading.explicit_routes`); asked: what is to be told apart besides.
    """
    if part.apart:  # the scope holds rollouts whatever the route takes
        found = outcomes([*part.guards, *asked])
        return None if found is None else Cases(outcomes=found, sets=(_holding(found, found.all, part.guards),))
    found = outcomes([route.when, *(other.when for other in above), *part.guards, *asked])
    if found is None:
        return None
    sets = (_holding(found, _taken(found, route, above, label), part.guards) for label in route.labels)
    return Cases(outcomes=found, sets=tuple(sets))


def _taken(found: Outcomes, route: Route, above: Sequence[Route], label: str) -> int:
    """The outcomes in which a token with this label alone goes the route."""
    taken = found.taken_by(route)
    for other in above:
        if other.rows == route.rows and (other.is_rest or label in other.labels):
            taken &= ~found.taken_by(other)
    return taken


def _holding(found: Outcomes, taken: int, guards: Sequence[Expr]) -> int:
    for guard in guards:
        taken &= found.where(guard)
    return taken
