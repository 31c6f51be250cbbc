"""Which predicates can hold together: an enumeration of what can be true of a token, its rollout and its group.

`correct` and `wrong` exclude each other, all_correct, mixed and all_wrong go with them, a token is written by the model
or by a tool. Everything else (`has(sibling)`, `entropy > 0.8`) is free to hold or not, equal formulas being one fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from trace_dsl.expressions import children_of, walk, weight_at_step
from trace_dsl.model import Route
from trace_dsl.schedules import Progress
from trace_dsl.terms import Constant, Expr, Operation, Operator, Rank, Signal
from trace_dsl.vocabulary import SOURCES, UNKNOWN_PREDICATE

MAX_FREE = 8
# (the rollout is correct, the group)
_ROWS = ((True, "all_correct"), (True, "mixed"), (False, "mixed"), (False, "all_wrong"))
_LOGICAL = (Operator.AND, Operator.OR, Operator.NOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One way things can be."""

    correct: bool
    group: str
    source: float
    facts: tuple[tuple[Expr, bool], ...]

    def holds(self, predicate: Expr | None) -> bool:
        """Whether a predicate is true in this outcome; None is always true."""
        if predicate is None:
            return True
        match predicate:
            case Operation(op=Operator.AND):
                return all(self.holds(arg) for arg in predicate.args)
            case Operation(op=Operator.OR):
                return any(self.holds(arg) for arg in predicate.args)
            case Operation(op=Operator.NOT):
                return not self.holds(predicate.args[0])
            case Signal(name="correct"):
                return self.correct
            case Signal(name="wrong"):
                return not self.correct
            case Signal(name="all_correct" | "mixed" | "all_wrong"):
                return self.group == predicate.name
            case _:
                written_by = _source_of(predicate)
                if written_by is not None:
                    return self.source == written_by
                fact, positive = _normal(predicate)
                if not isinstance(fact, Signal) and fact.rank is Rank.CONSTANT:
                    return bool(weight_at_step(fact, Progress(step=0, total_steps=1))) is positive
                return dict(self.facts)[fact] is positive


def _source_of(predicate: Expr) -> float | None:
    """Who wrote the token, when the predicate says just that."""
    match predicate:
        case Operation(op=Operator.EQ | Operator.NE, args=(Signal(name="source"), Constant(value=writer))):
            return writer if predicate.op is Operator.EQ else 1.0 - writer
        case _:
            return None


def _normal(predicate: Expr) -> tuple[Expr, bool]:
    """A comparison as > or ==, and whether it is that (True) or its opposite: x <= 1 is the opposite of x > 1."""
    if not isinstance(predicate, Operation) or len(predicate.args) != 2:
        return predicate, True
    left, right = predicate.args

    def comparison(op: Operator, first: Expr, second: Expr) -> Operation:
        return Operation(op=op, args=(first, second), rank=predicate.rank)

    match predicate.op:
        case Operator.LT:
            return comparison(Operator.GT, right, left), True
        case Operator.LE:
            return comparison(Operator.GT, left, right), False
        case Operator.GE:
            return comparison(Operator.GT, right, left), False
        case Operator.NE:
            return comparison(Operator.EQ, left, right), False
        case _:
            return predicate, True


def _free_facts(predicate: Expr) -> Iterator[Expr]:
    if isinstance(predicate, Operation) and predicate.op in _LOGICAL:
        for arg in children_of(predicate):
            yield from _free_facts(arg)
        return
    known = {"correct", "wrong", "all_correct", "mixed", "all_wrong"}
    if _source_of(predicate) is None and not (isinstance(predicate, Signal) and predicate.name in known):
        fact = _normal(predicate)[0]
        if isinstance(fact, Signal) or fact.rank is not Rank.CONSTANT:
            yield fact


def outcomes(predicates: Iterable[Expr | None]) -> tuple[Outcome, ...] | None:
    """Everything that can be the case as far as the predicates can tell; None when that is too much to list."""
    free = tuple(dict.fromkeys(fact for p in predicates if p is not None for fact in _free_facts(p)))
    if len(free) > MAX_FREE:
        return None
    return tuple(
        Outcome(correct=correct, group=group, source=source, facts=tuple(zip(free, values, strict=True)))
        for (correct, group), source, values in product(
            _ROWS, SOURCES.values(), product((True, False), repeat=len(free))
        )
    )


def takes(route: Route, outcome: Outcome) -> bool:
    """Whether a token that carries the route's label goes this route, or an earlier one, in this outcome.

    Tokens a tool wrote are taken only by routes that speak of `source`.
    """
    if outcome.source == SOURCES["tool"] and not _speaks_of_source(route):
        return False
    return outcome.holds(route.when)


def _speaks_of_source(route: Route) -> bool:
    return route.when is not None and any(
        isinstance(part, Signal) and (part.name == "source" or part.name.startswith(UNKNOWN_PREDICATE))
        for part in walk(route.when)
    )
