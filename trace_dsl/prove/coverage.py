"""Whether every token is taken, and by one route only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from trace_dsl.checks.outcomes import Outcome, outcomes
from trace_dsl.checks.reading import explicit_routes
from trace_dsl.model import PLAIN_ROWS, Route, Spec
from trace_dsl.prove.cases import Proof, case_text, labels_text, told_facts

# Of so many pairs of routes, each is looked at; a spec of 200 routes has no more.
MOST_PAIRS = 20_000


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
    count, all_seen = 0, True
    for rows in (PLAIN_ROWS, *(source.name for source in spec.rollouts)):
        for label in (None, *(label.name for label in spec.labels)):
            able = tuple(
                route
                for route in explicit_routes(spec)
                if route.rows == rows and (route.is_rest or label in route.labels)
            )
            if any(route.when is None for route in able):
                count += 1
                continue
            cases = outcomes(route.when for route in able)
            if cases is None:
                all_seen = False
                continue
            left = cases.by_model
            count += left.bit_count()
            for route in able:
                left &= ~cases.where(route.when)
            case = cases.first(left)
            if case is not None:
                labels = () if label is None else (label,)
                facts = told_facts(cases, case, left)
                text = case_text(labels_text(labels), rows, case, facts, (route.when for route in able))
                found.append(Counterexample(token=text, routes=(), labels=labels, rows=rows, outcome=case))
    return Proof(cases=count, counterexamples=tuple(found)) if all_seen or found else None


def disjoint(spec: Spec) -> Proof[Counterexample] | None:
    """Whether no token fits two routes, so that their order does not matter; None when there are too many cases.

    A later `rest`, and a later route of the same label without a predicate, is the default for what is left over: that
    is no overlap.
    """
    found: list[Counterexample] = []
    count, all_seen = 0, True
    pairs = tuple(islice(_pairs(spec.routes), MOST_PAIRS + 1))
    if len(pairs) > MOST_PAIRS:
        return None
    said = explicit_routes(spec)
    for i, j in pairs:
        cases = outcomes((said[i].when, said[j].when))
        if cases is None:
            all_seen = False
            continue
        count += len(cases)
        both = cases.taken_by(said[i]) & cases.taken_by(said[j])
        case = cases.first(both)
        if case is not None:
            first, second = spec.routes[i], spec.routes[j]
            labels = _shared_labels(first, second)
            facts = told_facts(cases, case, both)
            text = case_text(labels_text(labels), first.rows, case, facts, (first.when, second.when))
            found.append(
                Counterexample(token=text, routes=(first, second), labels=labels, rows=first.rows, outcome=case)
            )
    return Proof(cases=count, counterexamples=tuple(found)) if all_seen or found else None


def _pairs(routes: Sequence[Route]) -> Iterator[tuple[int, int]]:
    for j, second in enumerate(routes):
        for i, first in enumerate(routes[:j]):
            if first.rows == second.rows and not _is_default(second, first):
                yield i, j


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
