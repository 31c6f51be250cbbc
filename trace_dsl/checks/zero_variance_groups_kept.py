"""Groups without an advantage that count in a denominator all the same."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.outcomes import outcomes
from trace_dsl.checks.reading import advantage_of, channels_of, finding
from trace_dsl.expressions import signals_of
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, EstimatorKind, PerKind, Route, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="zero-variance-groups-kept",
    severity=Severity.WARNING,
    summary="groups whose rollouts all have one reward count in a denominator over tokens",
    pedantic=True,
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if spec.advantage.kind is EstimatorKind.NONE:
        return
    for route, channel in channels_of(spec):
        advantage = advantage_of(channel)
        if advantage is None or "A" not in signals_of(advantage):
            continue
        per = channel.per.kind
        if per not in (PerKind.TOKEN, PerKind.SELECTED) or (per is PerKind.SELECTED and _takes_mixed_groups(route)):
            continue
        yield finding(
            RULE,
            channel.place,
            f"`{channel.text}` is divided per={per.value}, and groups that are all correct or all wrong count in it",
            consequence="their advantage is zero, so the step shrinks as more prompts are solved or hopeless",
            fix="write `when mixed` and per=selected, so that only groups with an advantage count (DAPO, 2503.14476)",
        )


def _takes_mixed_groups(route: Route) -> bool:
    everything = outcomes([route.when])
    if everything is None:
        return False
    taken = everything.where(route.when)
    return bool(taken) and not everything.some(taken, lambda _, group: group != "mixed")
