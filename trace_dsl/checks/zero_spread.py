"""An advantage or a weight that is divided by the spread of rewards, which is zero where a group's rewards are equal.

Whether it is zero is found by putting one reward in the place of all: a formula in which rewards are compared with
their group's mean or maximum comes to nothing. The language's own `A` is 0 there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trace_dsl.checks.folding import folded
from trace_dsl.checks.guards import cases_of, parts_of
from trace_dsl.checks.reading import advantage_of, channels_of, contexts_of, explicit_routes, finding
from trace_dsl.expressions import map_signals, signals_of, text_of, walk
from trace_dsl.facts import RunFacts
from trace_dsl.model import Channel, Diagnostic, Route, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Constant, Expr, Operation, Operator, Signal

RULE = RuleInfo(
    name="zero-spread",
    severity=Severity.WARNING,
    summary="a formula divides by a spread of rewards, which is zero where all rollouts of a prompt have one reward",
)
_REWARDS = (1.0, 0.5)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    if not any(_divides(value) for _, channel in channels_of(spec) for _, value in _values(channel)):  # as of most
        return
    contexts = contexts_of(spec)
    above: list[Route] = []
    for route in explicit_routes(spec):
        if route.place not in spec.broken:
            for channel in route.channels:
                yield from _of_loss(route, above, channel, contexts)
        above.append(route)


def _of_loss(route: Route, above: Sequence[Route], channel: Channel, contexts: dict[str, str]) -> Iterator[Diagnostic]:
    for what, value in _values(channel):
        for part in parts_of(value, contexts):
            below = _divisor(part.expr)
            if below is None or not _vanishes(below):
                continue
            cases = cases_of(part, route, above)
            if cases is None or not any(cases.outcomes.some(one, _of_one_reward) for one in cases.sets):
                continue
            yield finding(
                RULE,
                channel.place,
                f"the {what} of `{channel.text}` is divided by `{text_of(below)}`, which is 0 where all rollouts of a "
                "prompt have one reward",
                consequence="0/0 is no number, and the run stops at the first prompt that all solve or none",
                fix="add a small number, as in x/(s + 1e-6), or `when mixed`; A is the reward over its group's std, "
                "and 0 there",
            )
            break


def _values(channel: Channel) -> Iterator[tuple[str, Expr]]:
    advantage = advantage_of(channel)
    yield "weight", channel.weight
    if advantage is not None:
        yield "advantage", advantage


def _divides(value: Expr) -> bool:
    """Whether a value divides by something that reads rewards."""
    divisors = (_divisor(part) for part in walk(value))
    return any(below is not None and "reward" in signals_of(below) for below in divisors)


def _of_one_reward(correct: bool, group: str) -> bool:
    return group != "mixed"


def _divisor(expr: Expr) -> Expr | None:
    return expr.args[1] if isinstance(expr, Operation) and expr.op is Operator.DIV else None


def _vanishes(divisor: Expr) -> bool:
    """Whether a divisor is zero whenever all rewards are equal, whatever they are."""
    if "reward" not in signals_of(divisor):
        return False

    def at(reward: float) -> Expr:
        def put(signal: Signal) -> Expr:
            return Constant(value=reward) if signal.name == "reward" else signal

        return folded(map_signals(divisor, put), frozenset())

    return all(at(reward) == Constant(value=0.0) for reward in _REWARDS)
