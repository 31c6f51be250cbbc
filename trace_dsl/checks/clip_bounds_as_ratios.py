"""Bounds of `clip` that look like the ratios themselves, not like their distances from 1."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import channels_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, PolicyGradient, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="clip-bounds-as-ratios",
    severity=Severity.WARNING,
    summary="`clip` is given two ratios such as (0.8, 1.28), but takes their distances from 1",
)
# Pairs around 1 that somebody means as ratios; as distances they would leave nearly every ratio alone.
_LOWEST, _HIGHEST = 0.5, 2.0


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for _, channel in channels_of(spec):
        kernel = channel.kernel
        if not isinstance(kernel, PolicyGradient):
            continue
        low, high = kernel.clip_low, kernel.clip_high
        if not _LOWEST <= low < 1 < high <= _HIGHEST:
            continue
        yield finding(
            RULE,
            channel.place,
            f"clip=({low:g}, {high:g}) keeps the ratio between {1 - low:.6g} and {1 + high:.6g}: "
            "`clip` gives distances from 1",
            consequence="hardly a token would be clipped, so single steps could move the policy far",
            fix=f"write clip=({1 - low:.6g}, {high - 1:.6g}) for ratios between {low:g} and {high:g}",
        )
