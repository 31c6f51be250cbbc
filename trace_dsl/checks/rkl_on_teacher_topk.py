"""Reverse KL on the teacher's likeliest tokens."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import divergences_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, DivergenceKind, Severity, Spec, SupportOf
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="rkl-on-teacher-topk",
    severity=Severity.WARNING,
    summary="reverse KL over the teacher's top tokens, not the student's",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for channel, divergence in divergences_of(spec):
        if divergence.kind not in (DivergenceKind.RKL, DivergenceKind.SRKL):
            continue
        if divergence.top_k is None or divergence.top_k.of is not SupportOf.TEACHER:
            continue
        yield finding(
            RULE,
            channel.place,
            f"`{channel.text}` averages under the student, but looks only at the teacher's top {divergence.top_k.k}",
            consequence="the mass the student has elsewhere is not seen and collapses (verl#5041, verl#7806)",
            fix="add of=student",
        )
