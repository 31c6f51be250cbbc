"""The language: text -> spec, findings, reports."""

from __future__ import annotations

from trace_dsl.facts import RunFacts, StoredTeacher
from trace_dsl.lint import lint_text

TRACE = """\
spans   key(cap=25%), error(cap=25%)
teacher = self(sync=10, sees=diagnosis)
let kl  = schedule(0.5, warmup=10, anneal=linear(30))

key   when correct: fkl(w=kl, topk=100, tail=bucket, per=sequence) + grpo(w=1 - kl/0.5)
error when wrong:   grpo(w=1 - kl/0.5)
rest:               grpo(clip=(0.2, 0.28))
"""

SHORTEST = "key: fkl(w=1.0, warmup=50, anneal=cos)\nrest: grpo()\n"


def facts(
    *,
    total_steps: int = 300,
    group_size: int = 8,
    labels: tuple[str, ...] = ("key", "error"),
    contexts: tuple[str, ...] = ("diagnosis",),
    stored: tuple[StoredTeacher, ...] = (),
    context_fields: tuple[tuple[str, tuple[str, ...]], ...] = (),
) -> RunFacts:
    """Facts of a run in which TRACE has no findings."""
    return RunFacts(
        total_steps=total_steps,
        group_size=group_size,
        annotator_labels=labels,
        teacher_contexts=contexts,
        vocab_size=64,
        max_response_tokens=128,
        stored_teachers=stored,
        context_fields=context_fields,
        stop_tokens=(7,),
    )


def rules_of(text: str, run: RunFacts | None = None) -> list[str]:
    """The names of the rules that find something, in the order of the file."""
    return [found.rule for found in lint_text(text, run).diagnostics]
