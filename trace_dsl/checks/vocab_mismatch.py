"""A teacher model whose vocabulary is not the student's.

The language runs no model; when the teacher's directory is at hand, its config.json says how large the vocabulary is.
A teacher's path is looked up from the folder of the spec that names it.
"""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import directory_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="vocab-mismatch",
    severity=Severity.ERROR,
    summary="a teacher model whose config.json says another vocabulary than the run's",
    needs_facts=True,
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if facts is None:
        return
    for teacher in spec.teachers:
        directory = directory_of(teacher, spec)
        if directory is None:
            continue
        from trace_dsl.model_files import vocabulary_size  # most specs name no model

        size = vocabulary_size(directory)
        if size in (None, facts.vocab_size):
            continue
        yield finding(
            RULE,
            teacher.place,
            f"the teacher `{teacher.name}` has a vocabulary of {size} tokens, the policy {facts.vocab_size}",
            consequence="the two distributions have different columns, so a divergence between them has no meaning",
            fix="choose a teacher of the policy's family; where only the padding differs, pad both to one size",
        )
