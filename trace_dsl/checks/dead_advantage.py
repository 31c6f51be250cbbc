"""A group advantage in groups of one."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import advantage_of, channels_of, finding
from trace_dsl.expressions import signals_of
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, EstimatorKind, OtherPlace, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="dead-advantage",
    severity=Severity.ERROR,
    summary="the advantage compares rollouts of a group, and groups have one rollout",
    needs_facts=True,
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if facts is None or facts.group_size != 1 or spec.advantage.kind is EstimatorKind.NONE:
        return
    declared = spec.advantage.place
    others = () if declared is None else (OtherPlace(place=declared, note="the advantage is estimated here"),)
    for _, channel in channels_of(spec):
        advantage = advantage_of(channel)
        if advantage is None or "A" not in signals_of(advantage):
            continue
        yield finding(
            RULE,
            channel.place,
            f"`{channel.text}` uses the {spec.advantage.kind.value} advantage, but the run samples 1 rollout a prompt",
            consequence="every advantage would be zero and this loss would train nothing",
            fix="sample more rollouts a prompt, or write `advantage = none`",
            others=others,
        )
