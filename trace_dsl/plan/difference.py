"""How two specs differ in what they do. Comments, formatting and the names of lets do not count: a spec has none.

A spec's routes are an ordered list, so a route can also move; a route keeps its identity when its selector, or failing
that its losses, stay.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from trace_dsl.expressions import text_of, walk
from trace_dsl.facts import RunFacts, run_of_length
from trace_dsl.model import Channel, Route, Spec
from trace_dsl.plan.plan import advantage_of, content_hash
from trace_dsl.plan.weights_over_run import WeightsOverRun, weights_over_run
from trace_dsl.plan.wording import (
    cap_text,
    estimator_text,
    kernel_arguments,
    kernel_name,
    loss_text,
    losses_text,
    per_text,
    predicate_text,
    rollouts_text,
    route_name,
    teacher_text,
)
from trace_dsl.schedules import depends_on_length
from trace_dsl.terms import Expr, Scheduled

T = TypeVar("T")

# No run in particular: what a spec alone contributes to the hash of its plan.
_ANY_RUN = run_of_length(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference. `where`: a route, teacher or statement; `what`: which part of it. `old` or `new` of None: the
    thing is only in the other spec. `over_run` says at which steps two weights differ, when a run is known.
    """

    where: str
    what: str
    old: str | None
    new: str | None
    over_run: WeightsOverRun | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`changes` are differences in meaning. `notes` are differences in writing that a plan's hash sees none the less:
    losses in another order, weights that are the same at every step of the run.
    """

    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    old_hash: str
    new_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """The runs of both specs."""

    old: RunFacts
    new: RunFacts

    @property
    def as_long(self) -> bool:
        return self.old.total_steps == self.new.total_steps


def difference(old: Spec, new: Spec, facts: RunFacts | None = None, *, old_facts: RunFacts | None = None) -> Difference:
    """What changed from `old` to `new`. With `facts`, weights are compared step by step over that run.

    old_facts: the run of the old spec, where that is another: then what is relative to the run's end is compared too.
    `old_hash` and `new_hash` are those of the plans for these runs, and of the specs alone without.
    """
    runs = None if facts is None else _Runs(old=old_facts or facts, new=facts)
    found = (
        *(() if runs is None else _run(runs)),
        *_declarations(old, new),
        *_routes(old.routes, new.routes, runs),
    )
    changes = tuple(change for change in found if not _is_same(change))
    notes = tuple(
        f"{change.where}: {change.what} is written in another way and the same at every step of this run"
        for change in found
        if _is_same(change)
    )
    hashes = (
        _hash(old, _ANY_RUN if runs is None else runs.old),
        _hash(new, _ANY_RUN if runs is None else runs.new),
    )
    if hashes[0] != hashes[1] and not changes and not notes:
        notes = ("labels, losses or declarations stand in another order, with the same meaning",)
    return Difference(changes=changes, notes=notes, old_hash=hashes[0], new_hash=hashes[1])


def _is_same(change: Change) -> bool:
    return change.over_run is not None and change.over_run.same


def _hash(spec: Spec, facts: RunFacts) -> str:
    return content_hash(
        facts=facts,
        labels=spec.labels,
        advantage=spec.advantage,
        rollouts=spec.rollouts,
        routes=spec.routes,
        teachers=spec.teachers,
    )


def _run(runs: _Runs) -> Iterator[Change]:
    """What of the runs themselves the losses depend on."""
    settings = (
        ("steps", runs.old.total_steps, runs.new.total_steps),
        ("rollout.temperature", runs.old.temperature, runs.new.temperature),
    )
    for name, before, now in settings:
        if before != now:
            yield Change(where="run", what=name, old=f"{before:g}", new=f"{now:g}")


def _depends_on_length(*exprs: Expr | None) -> bool:
    parts = (part for expr in exprs if expr is not None for part in walk(expr))
    return any(isinstance(part, Scheduled) and depends_on_length(part.schedule) for part in parts)


# -------------------------------------------------------------------------------------------------------- declarations


def _declarations(old: Spec, new: Spec) -> Iterator[Change]:
    declared = old.spans_declared or new.spans_declared
    labels = ({label.name: cap_text(label) for label in spec.labels} for spec in (old, new))
    # Labels that no statement declares follow from the routes.
    yield from _named("span", *labels) if declared else ()
    yield from _named("teacher", *({t.name: teacher_text(t) for t in spec.teachers} for spec in (old, new)))
    yield from _named("rollouts", *({r.name: rollouts_text(r) for r in spec.rollouts} for spec in (old, new)))
    estimators = estimator_text(old.advantage), estimator_text(new.advantage)
    if estimators[0] != estimators[1]:
        yield Change(where="advantage", what="", old=estimators[0], new=estimators[1])


def _named(kind: str, old: dict[str, str], new: dict[str, str]) -> Iterator[Change]:
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            yield Change(where=f"{kind} `{name}`", what="", old=old.get(name), new=new.get(name))


# -------------------------------------------------------------------------------------------------------------- routes


def _routes(old: Sequence[Route], new: Sequence[Route], runs: _Runs | None) -> Iterator[Change]:
    pairs = _matched(
        old,
        new,
        (
            lambda route: (_selector(route), route.when, _losses(route)),
            lambda route: (_selector(route), route.when),
            lambda route: (_selector(route), _losses(route)),
            _selector,
            lambda route: (route.rows, route.when, _losses(route)),
        ),
    )
    to_old = {j: i for i, j in pairs}
    moved = _moved(pairs)
    matched = {i for i, _ in pairs}
    for i, route in enumerate(old):
        if i not in matched:
            yield Change(where=f"route `{route_name(route)}`", what=f"route {i + 1}", old=losses_text(route), new=None)
    for j, route in enumerate(new):
        where = f"route `{route_name(route)}`"
        if j not in to_old:
            yield Change(where=where, what=f"route {j + 1}", old=None, new=losses_text(route))
            continue
        i = to_old[j]
        if (i, j) in moved:
            yield Change(where=where, what="place", old=f"route {i + 1}", new=f"route {j + 1}")
        yield from _route(where, old[i], route, runs)


def _selector(route: Route) -> Hashable:
    return frozenset(route.labels), route.rows


def _losses(route: Route) -> Hashable:
    return frozenset(_content(channel) for channel in route.channels)


def _content(channel: Channel) -> Hashable:
    return channel.kernel, channel.weight, channel.per


def _matched(
    old: Sequence[T], new: Sequence[T], keys: Sequence[Callable[[T], Hashable]]
) -> tuple[tuple[int, int], ...]:
    """Pairs (place in old, place in new) of what is the same by the first key that says so, in the order of `new`."""
    pairs: list[tuple[int, int]] = []
    left, right = list(range(len(old))), list(range(len(new)))
    for key in keys:
        waiting: dict[Hashable, deque[int]] = {}
        for i in left:
            waiting.setdefault(key(old[i]), deque()).append(i)
        found = [(same.popleft(), j) for j in right if (same := waiting.get(key(new[j])))]
        pairs += found
        left = sorted(set(left).difference(i for i, _ in found))
        right = sorted(set(right).difference(j for _, j in found))
    return tuple(sorted(pairs, key=lambda pair: pair[1]))


def _moved(pairs: Sequence[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    """The fewest pairs without which the others are in the same order on both sides."""
    # by_length[n]: the pairs that end the longest orderly chains of n + 1 pairs; their first places go down.
    by_length: list[list[tuple[int, int]]] = []
    before: dict[tuple[int, int], tuple[int, int] | None] = {}
    for pair in pairs:
        length = bisect_left(by_length, pair[0], key=lambda ends: ends[-1][0])
        shorter = by_length[length - 1] if length else []
        before[pair] = shorter[bisect_right(shorter, -pair[0], key=lambda end: -end[0])] if shorter else None
        if length == len(by_length):
            by_length.append([])
        by_length[length].append(pair)
    kept: set[tuple[int, int]] = set()
    last = by_length[-1][0] if by_length else None
    while last is not None:
        kept.add(last)
        last = before[last]
    return frozenset(pairs) - kept


def _route(where: str, old: Route, new: Route, runs: _Runs | None) -> Iterator[Change]:
    if frozenset(old.labels) != frozenset(new.labels):
        yield Change(where=where, what="labels", old=" | ".join(old.labels), new=" | ".join(new.labels))
    if old.when != new.when:
        yield Change(where=where, what="predicate", old=predicate_text(old), new=predicate_text(new))
    elif runs is not None and not runs.as_long and _depends_on_length(new.when):
        yield _over_lengths(where, "predicate", predicate_text(new), runs)
    pairs = _matched(
        old.channels,
        new.channels,
        (
            _content,
            lambda channel: (channel.kernel, channel.per),
            lambda channel: (kernel_name(channel.kernel), channel.weight),
            lambda channel: kernel_name(channel.kernel),
        ),
    )
    to_old = {j: i for i, j in pairs}
    kept = set(to_old.values())
    for i, channel in enumerate(old.channels):
        if i not in kept:
            yield Change(where=where, what="loss", old=loss_text(channel), new=None)
    for j, channel in enumerate(new.channels):
        if j not in to_old:
            yield Change(where=where, what="loss", old=None, new=loss_text(channel))
        else:
            yield from _channel(where, old.channels[to_old[j]], channel, runs)


def _channel(where: str, old: Channel, new: Channel, runs: _Runs | None) -> Iterator[Change]:
    name = kernel_name(new.kernel)
    if old.weight != new.weight:
        yield _weight(where, f"weight of {name}", old.weight, new.weight, runs)
    elif runs is not None and not runs.as_long and _depends_on_length(new.weight):
        over_run = weights_over_run(old.weight, new.weight, runs.new.total_steps, runs.old.total_steps)
        if not over_run.same:
            change = _over_lengths(where, f"weight of {name}", text_of(new.weight), runs)
            yield replace(change, over_run=over_run)
    if old.per != new.per:
        yield Change(where=where, what=f"denominator of {name}", old=per_text(old.per), new=per_text(new.per))
    if old.kernel != new.kernel:
        given = kernel_arguments(old.kernel), kernel_arguments(new.kernel)
        for argument in given[1]:
            if given[0][argument] != given[1][argument]:
                yield Change(where=where, what=f"{argument} of {name}", old=given[0][argument], new=given[1][argument])
    elif runs is not None and not runs.as_long and _depends_on_length(advantage_of(new)):
        yield _over_lengths(where, f"advantage of {name}", kernel_arguments(new.kernel)["advantage"], runs)


def _over_lengths(where: str, what: str, text: str, runs: _Runs) -> Change:
    """Something that is written in one way and relative to the ends of two runs."""
    old, new = (f"{text} over {run.total_steps} steps" for run in (runs.old, runs.new))
    return Change(where=where, what=what, old=old, new=new)


def _weight(where: str, what: str, old: Expr, new: Expr, runs: _Runs | None) -> Change:
    change = Change(where=where, what=what, old=text_of(old), new=text_of(new))
    if runs is None:
        return change
    return replace(change, over_run=weights_over_run(old, new, runs.new.total_steps, runs.old.total_steps))
