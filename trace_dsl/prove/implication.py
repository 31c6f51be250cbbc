"""Whether what one spec trains, another trains too: SPEC implies OTHER.

It does when in every case each loss that SPEC gives a token is also given to it by OTHER. Two losses are the same when
they have the same kernel with the same settings (direction, teacher, support, clip, advantage); teachers and rollout
sources are compared by what they are, not by their names. Weights, schedules and denominators are not compared, only
whether there is a weight at all: a loss whose weight is zero at every step trains nothing, and a divergence to a
teacher that sees something trains only the rollouts that have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import prod

from trace_dsl.checks.course import Courses
from trace_dsl.checks.no_value import explicit
from trace_dsl.checks.outcomes import Outcome, Outcomes, outcomes
from trace_dsl.checks.reading import is_privileged
from trace_dsl.expressions import map_signals
from trace_dsl.model import (
    PLAIN_ROWS,
    AdvantageEstimator,
    Channel,
    Cispo,
    Divergence,
    Kernel,
    MixAnchor,
    PolicyGradient,
    RolloutSource,
    Route,
    Spec,
    Teacher,
)
from trace_dsl.prove.cases import Proof, case_text, labels_text, told_facts
from trace_dsl.terms import Expr, Rank, Signal

# Labels times outcomes.
MOST_CASES = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Untrained:
    """A token that one spec trains and the other does not, or not with the same losses.

    `token`: the case in words; `route` takes it in the spec and gives it `losses`, which `other_route` (None: no route
    takes it) does not. labels, other_labels: those the token carries in each spec, after their caps.
    """

    token: str
    route: Route
    losses: tuple[Channel, ...]
    other_route: Route | None
    labels: tuple[str, ...]
    other_labels: tuple[str, ...]
    rows: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loss:
    """`kernel` with teachers named alike in both specs; `has`: what a rollout must have for the loss to train it."""

    channel: Channel
    kernel: Kernel
    has: Signal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """A route as it reads in the words that both specs share: `route` itself, its predicate and losses."""

    original: Route
    route: Route
    losses: tuple[_Loss, ...]


def implies(spec: Spec, other: Spec) -> Proof[Untrained] | None:
    """Whether every loss that `spec` gives a token is given to it by `other` too; None when there are too many cases.

    One counterexample for each pair of routes that take a token in the two specs.
    """
    words = _Words(spec, other)
    found: list[Untrained] = []
    count, all_seen = 0, True
    for rows, other_rows in words.sources():
        mine = tuple(words.route(spec, route) for route in spec.routes if route.rows == rows)
        theirs = tuple(words.route(other, route) for route in other.routes if route.rows == other_rows)
        choices = _label_choices(spec, other, mine, theirs)
        ways = prod(1 + len(carried) for carried in choices.values())
        predicates = tuple(
            expr for one in (*mine, *theirs) for expr in (one.route.when, *(loss.has for loss in one.losses))
        )
        cases = outcomes(predicates)
        if cases is None or len(cases) * ways > MOST_CASES:
            all_seen = False
            continue
        count += len(cases) * ways
        labellings = tuple(_labellings(choices))
        found.extend(_untrained(rows, mine, theirs, labellings, cases))
    return Proof(cases=count, counterexamples=tuple(found)) if all_seen or found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labelling:
    """Labels that a token carries in each of two specs."""

    labels: tuple[str, ...]
    other_labels: tuple[str, ...]

    @property
    def text(self) -> str:
        beyond = [label for label in self.labels if label not in self.other_labels]
        beyond_here = [label for label in self.other_labels if label not in self.labels]
        text = labels_text(tuple(dict.fromkeys((*self.labels, *self.other_labels))))
        for names, whose in ((beyond, "the other spec"), (beyond_here, "this spec")):
            if names:
                text += f" (beyond the cap of {' and '.join(f'`{name}`' for name in names)} in {whose})"
        return text


def _untrained(
    rows: str,
    mine: Sequence[_Route],
    theirs: Sequence[_Route],
    labellings: Sequence[_Labelling],
    cases: Outcomes,
) -> Iterator[Untrained]:
    taken, other_taken = ([cases.taken_by(one.route) for one in routes] for routes in (mine, theirs))
    seen: set[tuple[int, int | None]] = set()
    for labelling in labellings:
        theirs_by_route = tuple(_first_match(theirs, other_taken, labelling.other_labels, cases))
        for i, reached in _first_match(mine, taken, labelling.labels, cases):
            for j, there in theirs_by_route:
                both = 0 if i is None or (i, j) in seen else reached & there
                if i is None or not both:
                    continue
                other = None if j is None else theirs[j]
                shows = both & _lost(mine[i], other, cases)
                case = cases.first(shows)
                if case is None:
                    continue
                seen.add((i, j))
                bit = shows & -shows
                predicates = (one.original.when for one in (*mine, *theirs))
                yield Untrained(
                    token=case_text(labelling.text, rows, case, told_facts(cases, case, shows), predicates),
                    route=mine[i].original,
                    losses=tuple(loss.channel for loss in mine[i].losses if _is_lost(loss, other, cases) & bit),
                    other_route=None if other is None else other.original,
                    labels=labelling.labels,
                    other_labels=labelling.other_labels,
                    rows=rows,
                    outcome=case,
                )


def _first_match(
    routes: Sequence[_Route], taken: Sequence[int], labels: Sequence[str], cases: Outcomes
) -> Iterator[tuple[int | None, int]]:
    """For each route the cases in which a token with these labels goes there, and None for those in which it goes
    nowhere.
    """
    left = cases.all
    for index, one in enumerate(routes):
        if one.route.is_rest or any(label in one.route.labels for label in labels):
            yield index, left & taken[index]
            left &= ~taken[index]
    yield None, left


def _lost(mine: _Route, theirs: _Route | None, cases: Outcomes) -> int:
    """The cases in which a route trains a token with something that the other does not."""
    lost = 0
    for loss in mine.losses:
        lost |= _is_lost(loss, theirs, cases)
    return lost


def _is_lost(loss: _Loss, theirs: _Route | None, cases: Outcomes) -> int:
    """The cases in which a loss trains a token and the other route does not have it."""
    lost = cases.where(loss.has)
    for other in () if theirs is None else theirs.losses:
        if other.kernel == loss.kernel:
            lost &= ~cases.where(other.has)
    return lost


# -------------------------------------------------------------------------------------------------------------- labels


def _label_choices(
    spec: Spec, other: Spec, mine: Sequence[_Route], theirs: Sequence[_Route]
) -> dict[str, tuple[tuple[bool, bool], ...]]:
    """The labels that a token may carry, each with in which of the two specs it may. Labels that the routes treat alike
    stand for another.

    A cap cuts a label's spans from the end of a response on, so under the larger of two caps a token may carry a label
    that it does not under the smaller.
    """
    caps = tuple({label.name: label.cap for label in one.labels} for one in (spec, other))
    kinds: dict[object, str] = {}
    for label in dict.fromkeys((*caps[0], *caps[1])):
        routes = tuple(label in one.route.labels for one in (*mine, *theirs))
        if any(routes):
            kinds.setdefault((routes, caps[0].get(label), caps[1].get(label)), label)
    return {label: tuple(_carried(label, *caps)) for label in kinds.values()}


def _labellings(choices: Mapping[str, tuple[tuple[bool, bool], ...]]) -> Iterator[_Labelling]:
    """Every set of labels a token may carry, the fewest first."""
    for count in range(len(choices) + 1):
        for names in combinations(choices, count):
            for carried in product(*(choices[name] for name in names)):
                chosen = tuple(zip(names, carried, strict=True))
                yield _Labelling(
                    labels=tuple(label for label, (here, _) in chosen if here),
                    other_labels=tuple(label for label, (_, there) in chosen if there),
                )


def _carried(
    label: str, caps: Mapping[str, float | None], other_caps: Mapping[str, float | None]
) -> Iterator[tuple[bool, bool]]:
    """In which of the two specs a token with this label may carry it."""
    yield True, True
    if label not in caps or label not in other_caps:
        return  # no route of that spec asks for it
    here, there = (1.0 if cap is None else min(cap, 1.0) for cap in (caps[label], other_caps[label]))
    if here != there:
        yield here > there, there > here


# ------------------------------------------------------------------------------------------------- words of both specs


class _Words:
    """Names for what two specs speak of: what is the same has the same name, and what is not does not."""

    def __init__(self, spec: Spec, other: Spec) -> None:
        self._same_advantage = _estimate(spec.advantage) == _estimate(other.advantage)
        self._spec = spec
        self._other = other
        self._courses = Courses(spec, None), Courses(other, None)
        self._mine = {teacher.name: teacher.name for teacher in spec.teachers}
        self._theirs: dict[str, str] = {}
        known = {(t.source, t.sees): t.name for t in spec.teachers}
        for teacher in other.teachers:
            apart = f"{teacher.name} of the other spec" if teacher.name in self._mine else teacher.name
            self._theirs[teacher.name] = known.get((teacher.source, teacher.sees), apart)
        named = [(self._mine, spec.teachers), (self._theirs, other.teachers)]
        self._teachers: dict[str, Teacher] = {names[t.name]: t for names, teachers in named for t in teachers}

    @property
    def contexts(self) -> dict[str, str]:
        """What each teacher is shown that a rollout may lack, by its name here."""
        return {name: t.sees.value for name, t in self._teachers.items() if is_privileged(t.sees)}

    def sources(self) -> Iterator[tuple[str, str | None]]:
        """The sources of rollouts of the spec, each with the other's name of the same one, None when it has none."""
        yield PLAIN_ROWS, PLAIN_ROWS
        theirs = {self._origin(self._other, source): source.name for source in self._other.rollouts}
        for source in self._spec.rollouts:
            yield source.name, theirs.get(self._origin(self._spec, source))

    def _origin(self, spec: Spec, source: RolloutSource) -> object:
        return source.sees, None if source.when is None else self._expr(spec, source.when), source.cached

    def route(self, spec: Spec, route: Route) -> _Route:
        when = None if route.when is None else explicit(self._expr(spec, route.when), self.contexts)
        courses = self._courses[spec is self._other]
        losses = tuple(self._loss(spec, c) for c in route.channels if not courses.of(route, c.weight).is_zero)
        return _Route(original=route, route=replace(route, when=when), losses=losses)

    def _loss(self, spec: Spec, channel: Channel) -> _Loss:
        kernel, names = channel.kernel, self._names(spec)
        teacher: str | None = None
        match kernel:
            case Divergence():
                teacher = names[kernel.teacher]
                kernel = replace(kernel, teacher=teacher)
            case PolicyGradient(anchor=MixAnchor(teacher=name, share=share)):
                teacher = names[name]
                advantage = self._expr(spec, kernel.advantage)
                kernel = replace(kernel, advantage=advantage, anchor=MixAnchor(teacher, share))
            case PolicyGradient() | Cispo():
                kernel = replace(kernel, advantage=self._expr(spec, kernel.advantage))
            case _:
                pass
        context = None if teacher is None else self.contexts.get(teacher)
        has = None if context is None else Signal(name=f"has_{context}", rank=Rank.ROW)
        return _Loss(channel=channel, kernel=kernel, has=has)

    def _expr(self, spec: Spec, expr: Expr) -> Expr:
        names = self._names(spec)

        def renamed(signal: Signal) -> Signal:
            if signal.name == "A" and spec is self._other and not self._same_advantage:
                return replace(signal, name="A of the other spec")
            return signal if signal.teacher is None else replace(signal, teacher=names[signal.teacher])

        return map_signals(expr, renamed)

    def _names(self, spec: Spec) -> dict[str, str]:
        return self._theirs if spec is self._other else self._mine


def _estimate(estimator: AdvantageEstimator) -> object:
    return estimator.kind, estimator.scale_by_std
