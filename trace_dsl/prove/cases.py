"""The cases that a proof goes through, and how one of them is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from trace_dsl.checks.outcomes import Outcome, outcomes
from trace_dsl.expressions import text_of, walk
from trace_dsl.model import PLAIN_ROWS
from trace_dsl.terms import Expr, Signal
from trace_dsl.vocabulary import SOURCES

# A proof may go through more cases than a rule of lint, which runs at every save.
MOST_COMBINATIONS = 4096

_OF_GROUP = frozenset({"all_correct", "mixed", "all_wrong"})
_OF_ROW = frozenset({"correct", "wrong"}) | _OF_GROUP

Example = TypeVar("Example")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof(Generic[Example]):
    """`cases`: how many were gone through; what was claimed holds when there is no counterexample."""

    cases: int
    counterexamples: tuple[Example, ...]


def all_outcomes(predicates: Iterable[Expr | None], contexts: Mapping[str, str]) -> tuple[Outcome, ...] | None:
    """Everything that predicates can tell apart; None when that is too much to go through."""
    return outcomes(predicates, contexts, at_most=MOST_COMBINATIONS)


def told_facts(
    outcome: Outcome, everything: Sequence[Outcome], shows: Callable[[Outcome], bool]
) -> tuple[tuple[Expr, bool | None], ...]:
    """The facts of a counterexample without which it would be none: the others may be as they like."""
    kept = tuple(outcome.facts.items())
    alike = [
        other
        for other in everything
        if (other.correct, other.group, other.source) == (outcome.correct, outcome.group, outcome.source)
    ]
    for fact in outcome.facts:
        fewer = tuple(pair for pair in kept if pair[0] != fact)
        if all(shows(other) for other in alike if all(other.facts[one] is state for one, state in fewer)):
            kept = fewer
    return kept


def case_text(
    carries: str,
    rows: str,
    outcome: Outcome,
    facts: Sequence[tuple[Expr, bool | None]],
    predicates: Iterable[Expr | None],
) -> str:
    """A case in words, as far as predicates ask for it: "a token labelled `key` of a correct rollout".

    `carries` says which labels the token has.
    """
    asked = {part.name for when in predicates if when is not None for part in _signals(when)}
    token = f"a token {carries}"
    if "source" in asked:
        token += " that a tool wrote" if outcome.source == SOURCES["tool"] else " that the model wrote"
    outcome_word = f"{'correct' if outcome.correct else 'wrong'} " if asked & _OF_ROW else ""
    source = "rollout" if rows == PLAIN_ROWS else f"rollout of `{rows}`"
    group = {
        "all_correct": " whose group is all correct",
        "mixed": " whose group is mixed",
        "all_wrong": " whose group is all wrong",
    }[outcome.group]
    where = f", where {' and '.join(_fact_text(fact, state) for fact, state in facts)}" if facts else ""
    joined = ", of" if "source" in asked else " of"
    return f"{token}{joined} a {outcome_word}{source}{group if asked & _OF_GROUP else ''}{where}"


def labels_text(labels: Sequence[str]) -> str:
    """ "labelled `key` and `error`", "without a label"."""
    return f"labelled {' and '.join(f'`{label}`' for label in labels)}" if labels else "without a label"


def _fact_text(fact: Expr, state: bool | None) -> str:
    words = {True: "holds", False: "does not hold", None: "has no value"}
    return f"`{text_of(fact)}` {words[state]}"


def _signals(expr: Expr) -> Iterator[Signal]:
    return (part for part in walk(expr) if isinstance(part, Signal))
