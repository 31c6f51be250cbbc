"""What holds for every token a run can meet, by going through all cases: is it taken, and by one route only.

A case is which labels a token carries, which rollouts it stands in, and what its predicates can tell apart (see
`checks.outcomes`). Comparisons of different formulas count as independent, so what is proved is true, and a
counterexample with two related comparisons in it (`gap > 1` and not `gap > 0`) may be one that no run can meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trace_dsl.checks.outcomes import Outcome, outcomes
from trace_dsl.expressions import text_of, walk
from trace_dsl.model import PLAIN_ROWS, Route, Spec
from trace_dsl.terms import Expr, Signal
from trace_dsl.vocabulary import SOURCES

_OF_GROUP = frozenset({"all_correct", "mixed", "all_wrong"})
_OF_ROW = frozenset({"correct", "wrong"}) | _OF_GROUP


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterexample:
    """`token`: the case in words; `routes`: those that would take it, first match first."""

    token: str
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """`cases`: how many were gone through; it holds when there is no counterexample."""

    cases: int
    counterexamples: tuple[Counterexample, ...]


def covers(spec: Spec) -> Proof | None:
    """Whether every token that the model writes is taken by some route; None when there are too many cases.

    One counterexample for tokens without a label and one for those of each label, in each source of rollouts.
    """
    found: list[Counterexample] = []
    cases = 0
    for rows in (PLAIN_ROWS, *(source.name for source in spec.rollouts)):
        for label in (None, *(label.name for label in spec.labels)):
            able = tuple(
                route for route in spec.routes if route.rows == rows and (route.is_rest or label in route.labels)
            )
            everything = outcomes(route.when for route in able)
            if everything is None:
                return None
            left = everything.by_model
            cases += left.bit_count()
            for route in able:
                left &= ~everything.where(route.when)
            case = everything.first(left)
            if case is not None:
                labels = () if label is None else (label,)
                found.append(Counterexample(token=_words(labels, rows, case, able), routes=()))
    return Proof(cases=cases, counterexamples=tuple(found))


def disjoint(spec: Spec) -> Proof | None:
    """Whether no token fits two routes, so that their order does not matter; None when there are too many cases.

    A later `rest`, and a later route of the same label without a predicate, is the default for what is left over: that
    is no overlap.
    """
    found: list[Counterexample] = []
    cases = 0
    for first, second in _pairs(spec.routes):
        both = outcomes((first.when, second.when))
        if both is None:
            return None
        cases += len(both)
        met = both.first(both.taken_by(first) & both.taken_by(second))
        if met is not None:
            words = _words(_shared_labels(first, second), first.rows, met, (first, second))
            found.append(Counterexample(token=words, routes=(first, second)))
    return Proof(cases=cases, counterexamples=tuple(found))


def _pairs(routes: Sequence[Route]) -> Iterator[tuple[Route, Route]]:
    for index, second in enumerate(routes):
        for first in routes[:index]:
            if first.rows == second.rows and not _is_default(second, first):
                yield first, second


def _is_default(second: Route, first: Route) -> bool:
    """Whether a later route is for what an earlier one leaves over."""
    if second.is_rest and not first.is_rest:
        return True
    return second.when is None and bool(set(first.labels) & set(second.labels))


def _shared_labels(first: Route, second: Route) -> tuple[str, ...]:
    """The fewest labels with which a token fits both selectors."""
    if first.is_rest and second.is_rest:
        return ()
    if first.is_rest or second.is_rest:
        return (second if first.is_rest else first).labels[:1]
    shared = tuple(label for label in first.labels if label in second.labels)
    return shared[:1] or (first.labels[0], second.labels[0])


# --------------------------------------------------------------------------------------------------------------- words


def _words(labels: tuple[str, ...], rows: str, outcome: Outcome, routes: Sequence[Route]) -> str:
    """A case in words, as far as predicates ask for it: "a token labelled `key` of a correct rollout"."""
    asked = {part.name for route in routes if route.when is not None for part in _signals(route.when)}
    token = (
        f"a token labelled {' and '.join(f'`{label}`' for label in labels)}" if labels else "a token without a label"
    )
    if "source" in asked:
        token += " that a tool wrote" if outcome.source == SOURCES["tool"] else " that the model wrote"
    outcome_word = f"{'correct' if outcome.correct else 'wrong'} " if asked & _OF_ROW else ""
    source = "rollout" if rows == PLAIN_ROWS else f"rollout of `{rows}`"
    group = {
        "all_correct": " whose group is all correct",
        "mixed": " whose group is mixed",
        "all_wrong": " whose group is all wrong",
    }[outcome.group]
    facts = [f"`{text_of(fact)}` {'holds' if value else 'does not hold'}" for fact, value in outcome.facts]
    where = f", where {' and '.join(facts)}" if facts else ""
    joined = ", of" if "source" in asked else " of"
    return f"{token}{joined} a {outcome_word}{source}{group if asked & _OF_GROUP else ''}{where}"


def _signals(expr: Expr) -> Iterator[Signal]:
    return (part for part in walk(expr) if isinstance(part, Signal))
