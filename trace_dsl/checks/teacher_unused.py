"""A declared teacher that nothing follows."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import channels_of, divergences_of, expressions_of, finding
from trace_dsl.expressions import walk
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, MixAnchor, PolicyGradient, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Signal

RULE = RuleInfo(
    name="teacher-unused",
    severity=Severity.WARNING,
    summary="a teacher that no loss and no signal reads",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    used = _used(spec) | spec.mentioned
    for teacher in spec.teachers:
        if teacher.name not in used:
            yield finding(
                RULE,
                teacher.place,
                f"no loss and no signal reads the teacher `{teacher.name}`",
                consequence="the run would look like distillation and be none",
                fix=f"name it in a loss, as in fkl(teacher={teacher.name}), or take it out",
            )


def _used(spec: Spec) -> set[str]:
    used = {divergence.teacher for _, divergence in divergences_of(spec)}
    for _, channel in channels_of(spec):
        if isinstance(channel.kernel, PolicyGradient) and isinstance(channel.kernel.anchor, MixAnchor):
            used.add(channel.kernel.anchor.teacher)
    for expr in expressions_of(spec):
        used |= {part.teacher for part in walk(expr) if isinstance(part, Signal) and part.teacher is not None}
    return used
