"""A divergence between the student and itself."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import divergences_of, equals_student, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, OtherPlace, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="self-teacher-no-op",
    severity=Severity.ERROR,
    summary="a divergence to a teacher that equals the student at every step",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for channel, divergence in divergences_of(spec):
        teacher = spec.teacher(divergence.teacher)
        if teacher is None or not equals_student(teacher):
            continue
        yield finding(
            RULE,
            channel.place,
            f"the teacher of `{channel.text}` has the student's weights at every step and sees what the student sees",
            consequence="teacher and student agree, so the divergence and its gradient are zero",
            fix="show it something (sees=diagnosis), or sync it more rarely (sync=10)",
            others=(OtherPlace(place=teacher.place, note=f"the teacher `{teacher.name}`"),),
        )
