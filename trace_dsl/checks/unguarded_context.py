"""A weight or an advantage that is no number where a rollout lacks what a teacher sees.

Some rollouts have no diagnosis, no correct sibling or no feedback; there a teacher's signals have no value, and a step
that meets one of them stops. A solution belongs to the problem, so a task has it for all or for none
(teacher-context-missing).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from trace_dsl.checks.no_value import explicit
from trace_dsl.checks.outcomes import Outcomes, outcomes
from trace_dsl.checks.reading import advantage_of, channels_of, contexts_of, explicit_routes, finding
from trace_dsl.expressions import text_of
from trace_dsl.facts import RunFacts
from trace_dsl.model import Channel, Diagnostic, Divergence, MixAnchor, PolicyGradient, Route, Sees, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import (
    Apply,
    Constant,
    Expr,
    Function,
    Operation,
    Operator,
    Rank,
    Reduce,
    Reduction,
    Scan,
    Scanned,
    Scheduled,
    Scope,
    Signal,
)

RULE = RuleInfo(
    name="unguarded-context",
    severity=Severity.WARNING,
    summary="a weight or advantage reads a teacher's signal where rollouts may lack what the teacher sees",
)
_OF_SOME_ROLLOUTS = frozenset({Sees.DIAGNOSIS.value, Sees.SIBLING.value, Sees.FEEDBACK.value})
_ARITHMETIC = frozenset({Operator.NEG, Operator.ADD, Operator.SUB, Operator.MUL, Operator.DIV})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A signal that goes into a value, of rollouts for which `guards` hold; `apart`: of other rollouts, too."""

    signal: Signal
    context: str
    guards: tuple[Expr, ...]
    apart: bool


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    contexts = {name: sees for name, sees in contexts_of(spec).items() if sees in _OF_SOME_ROLLOUTS}
    if not any(_reads_any(channel, contexts) for _, channel in channels_of(spec)):  # as of most specs
        return
    above: list[Route] = []
    for route in explicit_routes(spec):
        if route.place not in spec.broken:
            for channel in route.channels:
                yield from _of_loss(route, above, channel, contexts)
        above.append(route)


def _reads_any(channel: Channel, contexts: dict[str, str]) -> bool:
    values = (channel.weight, advantage_of(channel))
    return any(True for value in values if value is not None for _ in _reads(value, contexts, (), apart=False))


def _of_loss(route: Route, above: Sequence[Route], channel: Channel, contexts: dict[str, str]) -> Iterator[Diagnostic]:
    own = contexts.get(_teacher_of(channel) or "")
    for what, value, has in (("weight", channel.weight, own), ("advantage", advantage_of(channel), None)):
        if value is None:
            continue
        given = () if has is None else (_has(has),)
        told: set[str] = set()
        for read in _reads(value, contexts, given, apart=False):
            if read.context in told or not _may_lack(route, above, read):
                continue
            told.add(read.context)
            signal = text_of(read.signal)
            guarded = f"where(has({read.context}), {signal}, 0)"
            yield finding(
                RULE,
                channel.place,
                f"the {what} of `{channel.text}` reads `{signal}` of rollouts that may have no {read.context}",
                consequence="it is no number there, and the run stops at the first step that meets such a rollout",
                fix=f"write {guarded}"
                if read.apart
                else f"write {guarded}, or `when has({read.context})` of the route",
            )


def _teacher_of(channel: Channel) -> str | None:
    """The teacher whose context a rollout must have for the loss to weigh anything."""
    match channel.kernel:
        case Divergence(teacher=teacher) | PolicyGradient(anchor=MixAnchor(teacher=teacher)):
            return teacher
        case _:
            return None


def _has(context: str) -> Signal:
    return Signal(name=f"has_{context}", rank=Rank.ROW)


def _reads(expr: Expr, contexts: dict[str, str], guards: tuple[Expr, ...], *, apart: bool) -> Iterator[_Read]:
    """The signals that an expression passes on, with the conditions of `where` under which it does."""
    parts: Sequence[Expr] = ()
    match expr:
        case Constant() | Scheduled():
            pass
        case Signal(teacher=teacher):
            if teacher is not None and teacher in contexts:
                yield _Read(signal=expr, context=contexts[teacher], guards=guards, apart=apart)
        case Operation(op=op, args=args):
            parts = args if op in _ARITHMETIC else ()  # a predicate is true or false
        case Apply(function=Function.WHERE, args=(condition, chosen, other)):
            holds = explicit(condition, contexts)
            fails = Operation(op=Operator.NOT, args=(holds,), rank=holds.rank)
            yield from _reads(chosen, contexts, (*guards, holds), apart=apart)
            yield from _reads(other, contexts, (*guards, fails), apart=apart)
        case Apply(args=args):
            parts = args
        case Reduce(reduction=Reduction.TOP | Reduction.RANDOM):
            pass
        case Reduce(value=value, over=over):
            within = over is Scope.ROW
            if value is not None:
                yield from _reads(value, contexts, guards if within else (), apart=apart or not within)
        case Scanned(scan=scan, args=args):
            parts = () if scan in (Scan.CUMCOUNT, Scan.UNTIL, Scan.LATCH) else args
        case _:
            assert_never(expr)
    for part in parts:
        yield from _reads(part, contexts, guards, apart=apart)


def _may_lack(route: Route, above: Sequence[Route], read: _Read) -> bool:
    """Whether a rollout without the context can be among those whose signal is read."""
    has = _has(read.context)
    if read.apart:  # the scope holds rollouts whatever the route takes
        found = outcomes([*read.guards, has])
        return found is not None and _left(found, found.all, read.guards, has)
    if not route.is_rest and read.context == Sees.DIAGNOSIS.value:
        return False  # what carries a label has the diagnosis that goes with it
    found = outcomes([route.when, *(other.when for other in above), *read.guards, has])
    if found is None:  # too much to go through
        return False
    return any(_left(found, _taken(found, route, above, label), read.guards, has) for label in route.labels)


def _taken(found: Outcomes, route: Route, above: Sequence[Route], label: str) -> int:
    """The outcomes in which a token with this label alone goes the route."""
    taken = found.taken_by(route)
    for other in above:
        if other.rows == route.rows and (other.is_rest or label in other.labels):
            taken &= ~found.taken_by(other)
    return taken


def _left(found: Outcomes, taken: int, guards: Sequence[Expr], has: Expr) -> bool:
    for guard in guards:
        taken &= found.where(guard)
    return bool(taken & ~found.where(has))
