"""Whether every token is taken, and by one route only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from trace_dsl.checks.outcomes import Outcome, takes
from trace_dsl.checks.reading import contexts_of
from trace_dsl.model import PLAIN_ROWS, Route, Spec
from trace_dsl.prove.cases import Proof, all_outcomes, case_text, labels_text, told_facts
from trace_dsl.vocabulary import SOURCES


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterexample:
    """`token`: the case in words; `routes`: those that would take it, first match first.

    `labels`, `rows` and `outcome` are the same case as data.
    """

    token: str
    routes: tuple[Route, ...]
    labels: tuple[str, ...]
    rows: str
    outcome: Outcome


def covers(spec: Spec) -> Proof[Counterexample] | None:
    """Whether every token that the model writes is taken by some route; None when there are too many cases.

    One counterexample for tokens without a label and one for those of each label, in each source of rollouts. A token
    with several labels fits more routes, never fewer, so those with one label stand for them.
    """
    found: list[Counterexample] = []
    cases, all_seen = 0, True
    for rows in (PLAIN_ROWS, *(source.name for source in spec.rollouts)):
        for label in (None, *(label.name for label in spec.labels)):
            able = tuple(
                route for route in spec.routes if route.rows == rows and (route.is_rest or label in route.labels)
            )
            if any(route.when is None for route in able):
                cases += 1
                continue
            everything = _by_model(spec, able)
            if everything is None:
                all_seen = False
                continue
            cases += len(everything)
            left = next((o for o in everything if _left_over(able, o)), None)
            if left is not None:
                labels = () if label is None else (label,)
                facts = told_facts(left, everything, partial(_left_over, able))
                text = case_text(labels_text(labels), rows, left, facts, (route.when for route in able))
                found.append(Counterexample(token=text, routes=(), labels=labels, rows=rows, outcome=left))
    return Proof(cases=cases, counterexamples=tuple(found)) if all_seen or found else None


def disjoint(spec: Spec) -> Proof[Counterexample] | None:
    """Whether no token fits two routes, so that their order does not matter; None when there are too many cases.

    A later `rest`, and a later route of the same label without a predicate, is the default for what is left over: that
    is no overlap.
    """
    found: list[Counterexample] = []
    cases, all_seen = 0, True
    for first, second in _pairs(spec.routes):
        both = all_outcomes((first.when, second.when), contexts_of(spec))
        if both is None:
            all_seen = False
            continue
        cases += len(both)
        met = next((o for o in both if _both_take(first, second, o)), None)
        if met is not None:
            labels = _shared_labels(first, second)
            facts = told_facts(met, both, partial(_both_take, first, second))
            text = case_text(labels_text(labels), first.rows, met, facts, (first.when, second.when))
            found.append(
                Counterexample(token=text, routes=(first, second), labels=labels, rows=first.rows, outcome=met)
            )
    return Proof(cases=cases, counterexamples=tuple(found)) if all_seen or found else None


def _left_over(routes: Sequence[Route], outcome: Outcome) -> bool:
    return not any(outcome.holds(route.when) for route in routes)


def _both_take(first: Route, second: Route, outcome: Outcome) -> bool:
    return takes(first, outcome) and takes(second, outcome)


def _by_model(spec: Spec, routes: Sequence[Route]) -> tuple[Outcome, ...] | None:
    everything = all_outcomes((route.when for route in routes), contexts_of(spec))
    if everything is None:
        return None
    return tuple(outcome for outcome in everything if outcome.source == SOURCES["model"])


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
