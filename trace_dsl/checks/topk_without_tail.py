"""A truncated divergence that does not say what becomes of the other tokens."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import divergences_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="topk-without-tail",
    severity=Severity.WARNING,
    summary="`topk` without `tail`: the tokens outside are dropped, and what is left is no divergence",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for channel, divergence in divergences_of(spec):
        if divergence.top_k is None or divergence.top_k.tail is not None:
            continue
        yield finding(
            RULE,
            channel.place,
            f"`{channel.text}` keeps {divergence.top_k.k} tokens and does not say what becomes of the others",
            consequence="without the tail a truncated divergence can go negative and reward leaving the support",
            fix="add tail=bucket (one token for all others), tail=renorm or tail=drop",
        )
