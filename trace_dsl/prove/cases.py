"""The cases that a proof goes through, and how one of them is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from trace_dsl.checks.no_value import HAS_VALUE
from trace_dsl.checks.outcomes import Outcome, Outcomes
from trace_dsl.expressions import text_of, walk
from trace_dsl.model import PLAIN_ROWS
from trace_dsl.terms import Expr, Rank, Signal
from trace_dsl.vocabulary import SOURCES

_OF_GROUP = frozenset({"all_correct", "mixed", "all_wrong"})
_OF_ROW = frozenset({"correct", "wrong"}) | _OF_GROUP

Example = TypeVar("Example")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof(Generic[Example]):
    """`cases`: how many were gone through; what was claimed holds when there is no counterexample."""

    cases: int
    counterexamples: tuple[Example, ...]


# --------------------------------------------------------------------------------------------------------------- words


def told_facts(cases: Outcomes, outcome: Outcome, shows: int) -> tuple[tuple[Expr, bool], ...]:
    """The facts of a counterexample without which it would be none; `shows` are all cases that are one too."""
    alike = cases.where(_of_row("correct" if outcome.correct else "wrong")) & cases.where(_of_row(outcome.group))
    alike &= cases.by_model if outcome.source == SOURCES["model"] else ~cases.by_model
    kept = list(outcome.facts)
    for fact in outcome.facts:
        fewer = [pair for pair in kept if pair is not fact]
        fitting = alike
        for expr, holds in fewer:
            fitting &= cases.where(expr) if holds else ~cases.where(expr)
        if not fitting & ~shows:
            kept = fewer
    return tuple(kept)


def _of_row(name: str) -> Signal:
    return Signal(name=name, rank=Rank.ROW)


def case_text(
    carries: str,
    rows: str,
    outcome: Outcome,
    facts: Sequence[tuple[Expr, bool]],
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
    where = f", where {' and '.join(_fact_text(fact, holds) for fact, holds in facts)}" if facts else ""
    joined = ", of" if "source" in asked else " of"
    return f"{token}{joined} a {outcome_word}{source}{group if asked & _OF_GROUP else ''}{where}"


def labels_text(labels: Sequence[str]) -> str:
    """ "labelled `key` and `error`", "without a label"."""
    return f"labelled {' and '.join(f'`{label}`' for label in labels)}" if labels else "without a label"


def _fact_text(fact: Expr, holds: bool) -> str:
    if isinstance(fact, Signal) and fact.name.startswith(HAS_VALUE):
        return f"`{fact.name.removeprefix(HAS_VALUE)}` has {'a' if holds else 'no'} value"
    return f"`{text_of(fact)}` {'holds' if holds else 'does not hold'}"


def _signals(expr: Expr) -> Iterator[Signal]:
    return (part for part in walk(expr) if isinstance(part, Signal))
