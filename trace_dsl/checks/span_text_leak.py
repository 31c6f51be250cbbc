"""A template of a teacher's prompt that shows more than what the spec says the teacher sees."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="span-text-leak",
    severity=Severity.ERROR,
    summary="a teacher's template shows more than its context: text of a rollout, or the place of a span",
    needs_facts=True,
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if facts is None:
        return
    shown = dict(facts.context_fields)
    watchers = [("teacher", teacher.name, teacher.sees, teacher.place) for teacher in spec.teachers]
    watchers += [("rollout source", source.name, source.sees, source.place) for source in spec.rollouts]
    for what, name, sees, place in watchers:
        leaks = [field for field in shown.get(sees.value, ()) if field not in ("prompt", sees.value)]
        if not leaks:
            continue
        yield finding(
            RULE,
            place,
            f"the {what} `{name}` sees the {sees.value}, and the run's template for it also shows "
            f"{', '.join(f'{{{leak}}}' for leak in leaks)}",
            consequence="the teacher would read the answer off its prompt, and the student learn to copy it unseen",
            fix=f"let `task.contexts.{sees.value}` of the run file show {{prompt}} and {{{sees.value}}} only",
        )
