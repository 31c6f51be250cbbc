"""A pointwise clip of a divergence."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import divergences_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="hard-pclip",
    severity=Severity.WARNING,
    summary="`pclip` cuts off the terms of a divergence, and their gradient with them",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for channel, divergence in divergences_of(spec):
        if divergence.pclip is None:
            continue
        yield finding(
            RULE,
            channel.place,
            f"`{channel.text}` clips each vocabulary term at {divergence.pclip:g}",
            consequence=(
                "a clipped term has no gradient, so the pull on the tokens that differ most is reversed "
                "(teacher .5, student .1: -0.400 becomes +0.050) and the loss can be negative"
            ),
            fix="bound the weight of the token instead, as in w=min(ratio, 2), or leave pclip out",
        )
