"""A loss that names a teacher whose distribution cannot change its gradient."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.folding import folded
from trace_dsl.checks.reading import advantage_of, channels_of, equals_student, finding
from trace_dsl.expressions import text_of, walk
from trace_dsl.facts import RunFacts
from trace_dsl.model import (
    Channel,
    Diagnostic,
    Divergence,
    DivergenceKind,
    MixAnchor,
    PolicyGradient,
    Severity,
    Spec,
    Tail,
)
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Expr, Signal

RULE = RuleInfo(
    name="teacher-independent-gradient",
    severity=Severity.ERROR,
    summary="a loss that names a teacher and whose gradient does not depend on it",
)
# Where the teacher's part of a mixture is so small that less than a hundredth of its pull is left.
_GONE = 0.99


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    students = frozenset(teacher.name for teacher in spec.teachers if equals_student(teacher))
    for _, channel in channels_of(spec):
        found = _in_divergence(channel) or _in_anchor(channel) or _in_expressions(channel, students)
        if found is None:
            continue
        message, fix = found
        yield finding(
            RULE,
            channel.place,
            message,
            consequence="the run would pay for a teacher and look like distillation, and no token would learn from it",
            fix=fix,
        )


def _in_divergence(channel: Channel) -> tuple[str, str] | None:
    kernel = channel.kernel
    if not isinstance(kernel, Divergence):
        return None
    if kernel.top_k is not None and kernel.top_k.k == 1 and kernel.top_k.tail is Tail.RENORM:
        return (
            f"`{channel.text}` renormalises over one token, where teacher and student both have probability 1",
            "use tail=bucket, or more tokens",
        )
    skewed = kernel.kind in (DivergenceKind.SKL, DivergenceKind.SRKL)
    if skewed and kernel.parameter is not None and kernel.parameter >= _GONE:
        left = (1 - kernel.parameter) ** 2
        return (
            f"`{channel.text}` compares a side with a mixture that is {kernel.parameter:g} of it: about {left:.1g} of "
            "the pull of a KL is left",
            "use a small `a` such as 0.1, or a small weight if a weak pull is meant",
        )
    return None


def _in_anchor(channel: Channel) -> tuple[str, str] | None:
    kernel = channel.kernel
    if not isinstance(kernel, PolicyGradient) or not isinstance(kernel.anchor, MixAnchor):
        return None
    share = kernel.anchor.share
    if share < _GONE:
        return None
    return (
        f"the anchor of `{channel.text}` is {share:g} the old policy: the teacher `{kernel.anchor.teacher}` enters "
        f"with the power {1 - share:.2g}",
        "write anchor=old, or a share that lets the teacher count, such as 0.5",
    )


def _in_expressions(channel: Channel, students: frozenset[str]) -> tuple[str, str] | None:
    """A teacher that the weight or the advantage reads, only for it to cancel."""
    for expr in (advantage_of(channel), channel.weight):
        if expr is None:
            continue
        lost = sorted(_teachers_in(expr) - _teachers_in(folded(expr, students)))
        if lost:
            why = "equals the student at every step" if lost[0] in students else "cancels"
            return (
                f"`{text_of(expr)}` in `{channel.text}` reads the teacher `{lost[0]}`, which {why}",
                "take the teacher out of the formula, or mend what makes it vanish",
            )
    return None


def _teachers_in(expr: Expr) -> set[str]:
    return {part.teacher for part in walk(expr) if isinstance(part, Signal) and part.teacher is not None}
