"""A teacher or rollout source that is to see what the task cannot show."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Sees, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="teacher-context-missing",
    severity=Severity.ERROR,
    summary="a teacher is to see something that the run's task cannot show",
    needs_facts=True,
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if facts is None:
        return
    contexts = ", ".join(facts.teacher_contexts) or "nothing"
    watchers = [("teacher", teacher.name, teacher.sees, teacher.place) for teacher in spec.teachers]
    watchers += [("rollout source", source.name, source.sees, source.place) for source in spec.rollouts]
    for what, name, sees, place in watchers:
        if sees is Sees.NOTHING or sees.value in facts.teacher_contexts:
            continue
        yield finding(
            RULE,
            place,
            f"the {what} `{name}` is to see the {sees.value}, but this run's task can show: {contexts}",
            consequence="its prompt would be the student's own, and what it adds would be noise",
            fix="choose one of those, or a task that can show it",
        )
