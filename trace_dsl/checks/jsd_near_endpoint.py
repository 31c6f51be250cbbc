"""A generalised JSD close to one of its ends."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import divergences_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, DivergenceKind, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="jsd-near-endpoint",
    severity=Severity.WARNING,
    summary="a jsd whose beta is below 0.05 or above 0.95",
)
_LOW, _HIGH = 0.05, 0.95


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for channel, divergence in divergences_of(spec):
        beta = divergence.parameter
        if divergence.kind is not DivergenceKind.JSD or beta is None or _LOW <= beta <= _HIGH:
            continue
        yield finding(
            RULE,
            channel.place,
            f"beta of `{channel.text}` is {beta:g}; between {_LOW:g} and {_HIGH:g} it mixes, outside it only fades",
            consequence=f"the loss is about {min(beta, 1 - beta):.2g} times a KL: a strength knob, not a direction",
            fix="use fkl or rkl with the weight that is meant",
        )
