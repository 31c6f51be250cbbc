"""What a run must gather at which steps, put together from all of its routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trace_dsl.expressions import walk
from trace_dsl.model import Channel
from trace_dsl.plan.payloads import Need, expression_needs, kernel_needs
from trace_dsl.plan.plan import Gathering, PlannedRoute, advantage_of, expressions_of, is_latch
from trace_dsl.plan.stretches import Stretch, joined


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    need: Need
    loss: tuple[int, int] | None
    steps: tuple[Stretch, ...]


def loss_needs(channel: Channel) -> tuple[Need, ...]:
    """Everything one loss reads while it has weight: for its kernel, its weight, its advantage."""
    advantage = advantage_of(channel)
    of_advantage = () if advantage is None else expression_needs(advantage)
    return tuple(dict.fromkeys((*kernel_needs(channel.kernel), *expression_needs(channel.weight), *of_advantage)))


def gathered(routes: Sequence[PlannedRoute], total_steps: int) -> tuple[Gathering, ...]:
    """Each need of a plan once, in the order in which the routes read it.

    Latches, whose state goes on, are evaluated at every step; predicates while they are asked, weights and advantages
    while their loss may have weight.
    """
    found: dict[Need, list[_Use]] = {}
    for use in _uses(routes, ((0, total_steps - 1),)):
        if use.steps:
            found.setdefault(use.need, []).append(use)
    return tuple(
        Gathering(
            need=need,
            losses=tuple(dict.fromkeys(use.loss for use in uses if use.loss is not None and not need.everywhere)),
            steps=joined(stretch for use in uses for stretch in use.steps),
        )
        for need, uses in found.items()
    )


def _uses(routes: Sequence[PlannedRoute], whole_run: tuple[Stretch, ...]) -> Iterator[_Use]:
    for r, planned in enumerate(routes):
        latches = (part for expr in expressions_of(planned.route) for part in walk(expr) if is_latch(part))
        always = [(latch, whole_run) for latch in latches]
        when = [] if planned.route.when is None else [(planned.route.when, planned.asked)]
        for expr, steps in (*always, *when):
            for need in expression_needs(expr):
                yield _Use(need=need, loss=None, steps=steps)
        for c, loss in enumerate(planned.losses):
            for need in loss_needs(loss.channel):
                yield _Use(need=need, loss=(r, c), steps=loss.track.active)
