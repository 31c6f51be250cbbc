"""A direction of KL on the rows where the other one is at home.

Forward KL covers what the teacher does, which pays where the rollout is right and the teacher should be copied; reverse
KL leaves what the teacher would not do, which pays where the rollout is wrong (TRACE, arXiv 2605.10194, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.outcomes import outcomes
from trace_dsl.checks.reading import channels_of, finding
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Divergence, DivergenceKind, Route, Severity, Spec
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="direction-vs-condition",
    severity=Severity.WARNING,
    summary="forward KL on wrong rows alone, or reverse KL on correct rows alone",
    pedantic=True,
)
_FORWARD = (DivergenceKind.FKL, DivergenceKind.SKL)
_REVERSE = (DivergenceKind.RKL, DivergenceKind.SRKL)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for route, channel in channels_of(spec):
        if not isinstance(channel.kernel, Divergence):
            continue
        correct = _correctness(route)
        if channel.kernel.kind in _FORWARD and correct is False:
            message = f"`{channel.text}` is a forward KL, and its route takes wrong rollouts alone"
            consequence = "it asks the student to cover what the teacher would say after a mistake"
            fix = "use rkl, which leaves the mistake, or take correct rollouts"
        elif channel.kernel.kind in _REVERSE and correct is True:
            message = f"`{channel.text}` is a reverse KL, and its route takes correct rollouts alone"
            consequence = "it narrows the student where it is right, and shows it nothing new"
            fix = "use fkl, which covers what the teacher does, or take wrong rollouts"
        else:
            continue
        yield finding(RULE, channel.place, message, consequence=consequence, fix=fix)


def _correctness(route: Route) -> bool | None:
    """True when only correct rollouts go this route, False when only wrong ones do, None otherwise."""
    everything = outcomes([route.when])
    if everything is None:
        return None
    taken = everything.where(route.when)
    right = everything.some(taken, lambda correct, _: correct)
    wrong = everything.some(taken, lambda correct, _: not correct)
    return right if right is not wrong else None
