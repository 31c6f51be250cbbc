"""A weight or an advantage that is no number where a rollout lacks what a teacher sees.

Some rollouts have no diagnosis, no correct sibling or no feedback; there a teacher's signals have no value, and a step
that meets one of them stops. A solution belongs to the problem, so a task has it for all or for none
(teacher-context-missing).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trace_dsl.checks.guards import Part, cases_of, parts_of
from trace_dsl.checks.reading import advantage_of, channels_of, contexts_of, explicit_routes, finding
from trace_dsl.expressions import text_of, walk
from trace_dsl.facts import RunFacts
from trace_dsl.model import Channel, Diagnostic, Divergence, MixAnchor, PolicyGradient, Route, Sees, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Expr, Rank, Signal

RULE = RuleInfo(
    name="unguarded-context",
    severity=Severity.WARNING,
    summary="a weight or advantage reads a teacher's signal where rollouts may lack what the teacher sees",
)
_OF_SOME_ROLLOUTS = frozenset({Sees.DIAGNOSIS.value, Sees.SIBLING.value, Sees.FEEDBACK.value})


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


def _reads_any(channel: Channel, contexts: Mapping[str, str]) -> bool:
    values = (channel.weight, advantage_of(channel))
    parts = (part for value in values if value is not None for part in walk(value))
    return any(isinstance(part, Signal) and part.teacher in contexts for part in parts)


def _reads(
    value: Expr, contexts: Mapping[str, str], guards: tuple[Expr, ...] = ()
) -> Iterator[tuple[Part, Signal, str]]:
    """The signals of teachers that go into a value, each with the context it needs."""
    for part in parts_of(value, contexts, guards):
        if isinstance(part.expr, Signal) and part.expr.teacher is not None and part.expr.teacher in contexts:
            yield part, part.expr, contexts[part.expr.teacher]


def _of_loss(
    route: Route, above: Sequence[Route], channel: Channel, contexts: Mapping[str, str]
) -> Iterator[Diagnostic]:
    own = contexts.get(_teacher_of(channel) or "")
    for what, value, has in (("weight", channel.weight, own), ("advantage", advantage_of(channel), None)):
        if value is None:
            continue
        told: set[str] = set()
        for part, signal, context in _reads(value, contexts, () if has is None else (_has(has),)):
            if context in told or not _may_lack(route, above, part, context):
                continue
            told.add(context)
            guarded = f"where(has({context}), {text_of(signal)}, 0)"
            yield finding(
                RULE,
                channel.place,
                f"the {what} of `{channel.text}` reads `{text_of(signal)}` of rollouts that may have no {context}",
                consequence="it is no number there, and the run stops at the first step that meets such a rollout",
                fix=f"write {guarded}" if part.apart else f"write {guarded}, or add `when has({context})`",
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


def _may_lack(route: Route, above: Sequence[Route], part: Part, context: str) -> bool:
    """Whether a rollout without the context can be among those whose signal is read."""
    if not part.apart and not route.is_rest and context == Sees.DIAGNOSIS.value:
        return False  # what carries a label has the diagnosis that goes with it
    has = _has(context)
    cases = cases_of(part, route, above, [has])
    return cases is not None and any(found & ~cases.outcomes.where(has) for found in cases.sets)
