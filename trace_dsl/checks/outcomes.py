"""Which predicates can hold together: an enumeration of what can be true of a token, its rollout and its group.

`correct` and `wrong` exclude each other, all_correct, mixed and all_wrong go with them, a token is written by the model
or by a tool. Everything else (`has(sibling)`, `entropy > 0.8`) is free to hold or not, equal formulas being one fact.
A comparison may also have no value, where a teacher lacks what it sees or a formula is undefined: then neither
`gap > 1` nor `gap <= 1` holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import product
from math import prod

from trace_dsl.checks.no_value import Lack, lack_of
from trace_dsl.expressions import children_of, walk, weight_at_step
from trace_dsl.model import Route
from trace_dsl.schedules import Progress
from trace_dsl.terms import Constant, Expr, Operation, Operator, Rank, Signal
from trace_dsl.vocabulary import SOURCES, UNKNOWN_PREDICATE

# How many ways the free facts may combine before nothing is concluded.
MOST_COMBINATIONS = 256
# (the rollout is correct, the group)
_ROWS = ((True, "all_correct"), (True, "mixed"), (False, "mixed"), (False, "all_wrong"))
_LOGICAL = (Operator.AND, Operator.OR, Operator.NOT)


class _Form(Enum):
    """How a predicate speaks of its fact: `x > 1` says that it HOLDS, `x <= 1` that it FAILS, `x != 1` that it DIFFERS
    from what holds. Where the fact has no value only the last is true.
    """

    HOLDS = "holds"
    FAILS = "fails"
    DIFFERS = "differs"

    def met_by(self, state: bool | None) -> bool:
        match self:
            case _Form.HOLDS:
                return state is True
            case _Form.FAILS:
                return state is False
            case _Form.DIFFERS:
                return state is not True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """One way things can be. A fact holds, does not hold, or is None: it has no value."""

    correct: bool
    group: str
    source: float
    facts: Mapping[Expr, bool | None]

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
                fact, form = _normal(predicate)
                if not isinstance(fact, Signal) and fact.rank is Rank.CONSTANT:
                    return form.met_by(bool(weight_at_step(fact, Progress(step=0, total_steps=1))))
                return form.met_by(self.facts[fact])


def _source_of(predicate: Expr) -> float | None:
    """Who wrote the token, when the predicate says just that."""
    match predicate:
        case Operation(op=Operator.EQ | Operator.NE, args=(Signal(name="source"), Constant(value=writer))):
            return writer if predicate.op is Operator.EQ else 1.0 - writer
        case _:
            return None


def _normal(predicate: Expr) -> tuple[Expr, _Form]:
    """A comparison as > or ==, and what the predicate says of it: x <= 1 says that x > 1 fails."""
    if not isinstance(predicate, Operation) or len(predicate.args) != 2:
        return predicate, _Form.HOLDS
    left, right = predicate.args

    def comparison(op: Operator, first: Expr, second: Expr) -> Operation:
        return Operation(op=op, args=(first, second), rank=predicate.rank)

    match predicate.op:
        case Operator.LT:
            return comparison(Operator.GT, right, left), _Form.HOLDS
        case Operator.LE:
            return comparison(Operator.GT, left, right), _Form.FAILS
        case Operator.GE:
            return comparison(Operator.GT, right, left), _Form.FAILS
        case Operator.NE:
            return comparison(Operator.EQ, left, right), _Form.DIFFERS
        case _:
            return predicate, _Form.HOLDS


def _free_facts(predicate: Expr) -> Iterator[tuple[Expr, _Form]]:
    if isinstance(predicate, Operation) and predicate.op in _LOGICAL:
        for arg in children_of(predicate):
            yield from _free_facts(arg)
        return
    known = {"correct", "wrong", "all_correct", "mixed", "all_wrong"}
    if _source_of(predicate) is None and not (isinstance(predicate, Signal) and predicate.name in known):
        fact, form = _normal(predicate)
        if isinstance(fact, Signal) or fact.rank is not Rank.CONSTANT:
            yield fact, form


def outcomes(
    predicates: Iterable[Expr | None], contexts: Mapping[str, str], *, at_most: int = MOST_COMBINATIONS
) -> tuple[Outcome, ...] | None:
    """Everything that can be the case as far as the predicates can tell; None when that is too much to list.

    contexts: what each teacher sees that a rollout may lack, by teacher (`reading.contexts_of`).
    """
    forms: dict[Expr, set[_Form]] = {}
    for fact, form in (found for p in predicates if p is not None for found in _free_facts(p)):
        forms.setdefault(fact, set()).add(form)
    lacks = {fact: lack_of(fact, contexts) for fact in forms}
    # only `x <= 1` tells a comparison without a value from one that does not hold
    without = {fact for fact, told in forms.items() if lacks[fact].possible and _Form.FAILS in told}
    # all comparisons that read a teacher agree on whether it has what it sees
    seen = sorted({context for fact in without for context in lacks[fact].contexts})
    lacks |= {Signal(name=f"has_{context}", rank=Rank.ROW): Lack() for context in seen}
    states = [(True, False, None) if fact in without else (True, False) for fact in lacks]
    if prod(len(values) for values in states) > at_most:
        return None
    undefined = {fact: values[-1] for fact, values in zip(lacks, states, strict=True)}
    combinations = [dict(zip(lacks, values, strict=True)) for values in product(*states)]
    possible = [facts for facts in combinations if _is_possible(facts, undefined, lacks)]
    return tuple(
        Outcome(correct=correct, group=group, source=source, facts=facts)
        for (correct, group), source, facts in product(_ROWS, SOURCES.values(), possible)
    )


def _is_possible(
    facts: Mapping[Expr, bool | None], undefined: Mapping[Expr, bool | None], lacks: Mapping[Expr, Lack]
) -> bool:
    """Whether comparisons that read a teacher agree with what is said of its context. `undefined`: the state of a
    comparison without a value.
    """
    known = {fact.name: state for fact, state in facts.items() if isinstance(fact, Signal)}
    for fact, state in facts.items():
        has = [known.get(f"has_{context}") for context in lacks[fact].contexts]
        if any(there_is is False for there_is in has):
            if state is not undefined[fact]:
                return False
        elif state is None and not lacks[fact].otherwise and all(has):
            return False
    return True


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
