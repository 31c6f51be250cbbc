"""A loss that needs more of a teacher's distribution than a file of rollouts has stored."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import advantage_of, finding
from trace_dsl.expressions import walk
from trace_dsl.facts import RunFacts, StoredTeacher
from trace_dsl.model import Channel, Diagnostic, Divergence, OtherPlace, Route, Severity, Spec, SupportOf
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Expr, Signal

RULE = RuleInfo(
    name="payload-too-weak",
    severity=Severity.ERROR,
    summary="a loss on cached rollouts needs more of a teacher's distribution than they hold",
    needs_facts=True,
)
# Signals that sum over a teacher's vocabulary; the others need its log-probability of the sampled token alone.
_OF_DISTRIBUTIONS = frozenset({"teacher_entropy", "overlap"})


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if facts is None:
        return
    cached = {source.name: source for source in spec.rollouts if source.cached is not None}
    for route in spec.routes:
        source = cached.get(route.rows)
        if source is None:
            continue
        others = (OtherPlace(place=source.place, note="the rollouts are read from a file here"),)
        for channel in route.channels:
            for stored in facts.stored_teachers:
                needed = None if stored.rollouts != source.name else _missing(route, channel, stored)
                if needed is None:
                    continue
                yield finding(
                    RULE,
                    channel.place,
                    f"`{channel.text}` needs {needed}, but of the teacher `{stored.teacher}` the rollouts "
                    f"`{source.name}` hold {_held(stored)}",
                    consequence="a divergence needs the probabilities of tokens that were not sampled",
                    fix="use pg(adv=gap), which needs no more than the sampled token, or store more",
                    others=others,
                )


def _held(stored: StoredTeacher) -> str:
    if stored.top_k == 0:
        return "the log-probability of the sampled token alone"
    return f"its {stored.top_k} likeliest tokens alone"


def _missing(route: Route, channel: Channel, stored: StoredTeacher) -> str | None:
    """What a loss needs of a stored teacher and does not find; None when it is served."""
    if stored.top_k is None:
        return None
    kernel = channel.kernel
    if isinstance(kernel, Divergence) and kernel.teacher == stored.teacher:
        top_k = kernel.top_k
        if top_k is None:
            return "the full vocabulary"
        if top_k.of is SupportOf.STUDENT:
            return f"the student's {top_k.k} likeliest tokens"
        if top_k.k > stored.top_k:
            return f"the teacher's {top_k.k} likeliest tokens"
    read = (part for expr in _expressions(route, channel) for part in walk(expr) if isinstance(part, Signal))
    wide = next((part for part in read if part.name in _OF_DISTRIBUTIONS and part.teacher == stored.teacher), None)
    return None if wide is None else f"the full vocabulary (for {wide.name})"


def _expressions(route: Route, channel: Channel) -> Iterator[Expr]:
    for expr in (route.when, channel.weight, advantage_of(channel)):
        if expr is not None:
            yield expr
