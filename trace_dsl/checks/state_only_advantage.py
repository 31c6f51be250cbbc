"""An advantage that is the same for every action.

A policy gradient multiplies the score of the sampled token by its advantage. Averaged over what could have been
sampled, the score times anything that does not depend on the sample is zero: such a loss adds noise and no direction.
What picks tokens by their outcome (a predicate such as `correct`, an annotated span, a measured weight) depends on the
sample too, and a ratio to a mixture with the teacher is an importance weight that does; those are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import advantage_of, channels_of, finding
from trace_dsl.expressions import children_of, text_of
from trace_dsl.facts import RunFacts
from trace_dsl.model import PLAIN_ROWS, Channel, Diagnostic, MixAnchor, PolicyGradient, Route, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Constant, Expr, Rank, Reduce, Reduction, Scan, Scanned, Scheduled, Scope, Signal

RULE = RuleInfo(
    name="state-only-advantage",
    severity=Severity.ERROR,
    summary="an advantage that does not depend on the token that was sampled",
)
# Known before the token is sampled, or whatever is sampled.
_OF_THE_STATE = frozenset({"entropy", "teacher_entropy", "overlap", "pos", "turn", "source", "group_size", "step"}) | {
    "has_solution",
    "has_sibling",
}
# The same for every rollout of a prompt: they pick prompts, not actions.
_OF_THE_PROMPT = frozenset({"all_correct", "all_wrong", "mixed"})
_ROW_VALUES = (Reduction.MEAN, Reduction.MAX, Reduction.SUM, Reduction.QUANTILE)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for route, channel in channels_of(spec):
        advantage = advantage_of(channel)
        if advantage is None or _depends(advantage, _OF_THE_STATE) or _is_picked_by_outcome(route, channel):
            continue
        yield finding(
            RULE,
            channel.place,
            f"the advantage `{text_of(advantage)}` is the same whatever token is sampled",
            consequence="the gradient is zero in expectation: the loss moves, and what it adds is noise (miles#2362)",
            fix="use what the sampled token changes, such as A, reward or gap; for a distribution, use fkl or rkl",
        )


def _is_picked_by_outcome(route: Route, channel: Channel) -> bool:
    """Whether the tokens, or their weights, depend on what was sampled."""
    kernel = channel.kernel
    return (
        not route.is_rest
        or route.rows != PLAIN_ROWS
        or (route.when is not None and _depends(route.when, _OF_THE_STATE | _OF_THE_PROMPT))
        or _depends(channel.weight, _OF_THE_STATE)
        or (isinstance(kernel, PolicyGradient) and isinstance(kernel.anchor, MixAnchor))
    )


def _depends(expr: Expr, independent: frozenset[str]) -> bool:
    """Whether the sampled token can change a value. What later tokens decide depends on it as well."""
    match expr:
        case Constant() | Scheduled():
            return False
        case Signal():
            return expr.name not in independent
        case Reduce(over=Scope.ROW, value=value) if expr.reduction in _ROW_VALUES and value is not None:
            return value.rank is Rank.TOKEN or _depends(value, independent)
        case Scanned(scan=Scan.REWARD_TO_GO, args=args) if any(arg.rank is Rank.TOKEN for arg in args):
            return True
        case _:
            return any(_depends(child, independent) for child in children_of(expr))
