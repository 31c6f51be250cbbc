"""A teacher model whose vocabulary is not the student's.

The language runs no model; when the teacher's directory is at hand, its config.json says how large the vocabulary is.
A teacher's path is looked up from the folder of the spec that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trace_dsl.checks.reading import finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, ModelTeacher, Severity, Spec
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
        if not isinstance(teacher.source, ModelTeacher):
            continue
        directory = Path(teacher.place.path or spec.path).parent / teacher.source.path
        size = _vocabulary_of(directory / "config.json")
        if size in (None, facts.vocab_size):
            continue
        yield finding(
            RULE,
            teacher.place,
            f"the teacher `{teacher.name}` has a vocabulary of {size} tokens, the policy {facts.vocab_size}",
            consequence="the two distributions have different columns, so a divergence between them has no meaning",
            fix="choose a teacher of the policy's family; where only the padding differs, pad both to one size",
        )


def _vocabulary_of(config: Path) -> int | None:
    """`vocab_size` of a Hugging Face config.json (of its text part); None when there is none to read."""
    import json  # most specs name no model

    try:
        data = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None  # whoever loads the model says what is wrong with its files
    for part in (data, data.get("text_config") if isinstance(data, dict) else None):
        size = part.get("vocab_size") if isinstance(part, dict) else None
        if isinstance(size, int):
            return size
    return None
