"""A teacher model that ends its turns with a token at which the policy's responses do not end.

The language runs no model; when the teacher's directory is at hand, its generation_config.json says how it ends. A
teacher's path is looked up from the folder of the spec that names it.
"""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import directory_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="stop-token-mismatch",
    severity=Severity.WARNING,
    summary="a teacher model ends its turns with a token at which the policy's responses go on",
    needs_facts=True,
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if facts is None or not facts.stop_tokens:
        return
    for teacher in spec.teachers:
        directory = directory_of(teacher, spec)
        if directory is None:
            continue
        from trace_dsl.model_files import stop_tokens  # most specs name no model

        other = [token for token in stop_tokens(directory) if token not in facts.stop_tokens]
        if not other:
            continue
        yield finding(
            RULE,
            teacher.place,
            f"the teacher `{teacher.name}` ends a turn with token {_listed(other)}, the policy's responses end at "
            f"{_listed(facts.stop_tokens)} alone",
            consequence="the policy learns an end at which its rollouts go on, and responses grow to their limit "
            "(ms-swift#9526)",
            fix="choose a teacher that ends its turns as the policy does, or add the token to eos_token_id in the "
            "policy's generation_config.json",
        )


def _listed(tokens: list[int] | tuple[int, ...]) -> str:
    return ", ".join(map(str, tokens))
