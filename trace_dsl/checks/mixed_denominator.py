"""Losses of one spec that are divided by different things."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import channels_of, finding
from trace_dsl.expressions import number_text
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, OtherPlace, Per, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="mixed-denominator",
    severity=Severity.WARNING,
    summary="losses of one spec have different denominators",
    pedantic=True,
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    channels = [channel for _, channel in channels_of(spec)]
    told: set[Per] = {channels[0].per} if channels else set()
    for channel in channels:
        if channel.per in told:
            continue
        told.add(channel.per)
        first = channels[0]
        yield finding(
            RULE,
            channel.place,
            f"`{channel.text}` is divided {_name(channel.per)}, `{first.text}` {_name(first.per)}",
            consequence="their balance drifts with the lengths of responses and spans, whatever their weights say",
            fix="give both the same `per`, or silence this where the drift is meant",
            others=(OtherPlace(place=first.place, note=f"divided {_name(first.per)}"),),
        )


def _name(per: Per) -> str:
    return f"per={per.kind.value}" + ("" if per.constant is None else f"({number_text(per.constant)})")
