"""A comparison with a teacher or reference that goes through the group's whitening."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import advantage_of, channels_of, finding
from trace_dsl.expressions import signals_of, text_of, walk
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Expr, Operation, Operator, Reduce, Scope

RULE = RuleInfo(
    name="advantage-whitened-after-kl",
    severity=Severity.WARNING,
    summary="an advantage divides a KL term by a spread that the term is part of",
)
_COMPARISONS = frozenset({"gap", "teacher_logp", "ref_logp", "base_logp"})
_SHARED = (Scope.GROUP, Scope.MICRO, Scope.BATCH)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for _, channel in channels_of(spec):
        advantage = advantage_of(channel)
        divisor = None if advantage is None else _whitening_divisor(advantage)
        if divisor is None:
            continue
        yield finding(
            RULE,
            channel.place,
            f"the advantage of `{channel.text}` divides a KL term by `{text_of(divisor)}`, which the term is part of",
            consequence=(
                "the coefficient of the KL changes with the spread of the rewards, and where all rewards are equal "
                "its noise is scaled up to a full advantage"
            ),
            fix="whiten the reward alone and add the term afterwards, as in pg(adv=A + 0.1*gap)",
        )


def _whitening_divisor(advantage: Expr) -> Expr | None:
    """What a comparison is divided by, when that is a statistic of the same comparison over several rollouts."""
    for part in walk(advantage):
        if not isinstance(part, Operation) or part.op is not Operator.DIV:
            continue
        numerator, divisor = part.args
        if signals_of(numerator) & _COMPARISONS and any(
            isinstance(inner, Reduce) and inner.over in _SHARED and signals_of(inner) & _COMPARISONS
            for inner in walk(divisor)
        ):
            return divisor
    return None
