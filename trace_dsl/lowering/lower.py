"""lower(plan, batch, step): which loss trains which token now, and how strongly, as fused tensors.

First match wins: a token belongs to the first route whose labels and predicate it meets. A divergence to a teacher
that sees something takes only the rows that have that something (the other losses of the route keep the row).
Denominators are counted over the whole batch given here, which must be the global batch of the optimizer step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import assert_never

import torch
from torch import Tensor

from trace_dsl.certainty import surely_zero
from trace_dsl.errors import LoweringError
from trace_dsl.expressions import signals_of
from trace_dsl.lowering.advantage import estimate_advantage, group_ids
from trace_dsl.lowering.batch import RolloutBatch
from trace_dsl.lowering.evaluate import Environment, evaluate_at, latch_key, latch_state
from trace_dsl.lowering.fused import (
    CispoKernel,
    DivergenceKernel,
    EntropyKernel,
    FusedKernel,
    FusedRouting,
    K3Kernel,
    NllKernel,
    PolicyGradientKernel,
)
from trace_dsl.lowering.labels import label_masks
from trace_dsl.model import (
    K3,
    REST,
    Channel,
    Cispo,
    Divergence,
    EntropyBonus,
    Kernel,
    MixAnchor,
    Nll,
    PerKind,
    PolicyGradient,
    Route,
    Sees,
)
from trace_dsl.plan.plan import Plan, advantage_of, latches_of, standings_of, teacher_of
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr, Rank


@dataclass(frozen=True, slots=True, kw_only=True)
class LoweredLoss:
    """One loss of a route on the batch: `tokens` with a nonzero weight, and over them the sum of the weights before any
    denominator and the sum of 1/denominator.
    """

    route: int
    loss: int
    tokens: int
    weight_sum: float
    inverse_denominator_sum: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lowered:
    """The fused tensors of one step, and what the metrics tell about them.

    route_of_T: int64, the index of the route each token belongs to, -1 for none; loss_of_C: for each channel the
    (route, loss) pairs that feed it; losses: every loss of the spec, as `routing.loss_PT` numbers them; latches: the
    states to give to the next step, and to keep in a checkpoint. A loss that has no weight on this batch feeds no
    channel, and a channel that none feeds is not there.
    """

    routing: FusedRouting
    advantage_R: Tensor
    route_of_T: Tensor
    loss_of_C: tuple[tuple[tuple[int, int], ...], ...]
    losses: tuple[LoweredLoss, ...]
    latches: dict[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoutedLoss:
    """One loss on a batch, before losses of one kernel are added up.

    weight_T: float64, denominator included, 0 where it is not routed; plain_T: before the denominator; advantage_T:
    float64, 0 where the route does not take the token, None for a loss without one or one that trains nothing at this
    step whatever is measured.
    """

    route: int
    loss: int
    kernel: FusedKernel
    weight_T: Tensor
    plain_T: Tensor
    advantage_T: Tensor | None

    def counted(self) -> LoweredLoss:
        """What it amounts to on the batch."""
        trained_T = self.weight_T != 0
        weight_t, plain_t = self.weight_T[trained_T], self.plain_T[trained_T]
        return LoweredLoss(
            route=self.route,
            loss=self.loss,
            tokens=len(plain_t),
            weight_sum=float(plain_t.sum()),
            inverse_denominator_sum=float((weight_t / plain_t).sum()),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoutedBatch:
    """What `lower` fuses: the losses one by one, with the route of every token and the advantage of every rollout."""

    advantage_R: Tensor
    route_of_T: Tensor
    losses: tuple[RoutedLoss, ...]


def route_batch(
    plan: Plan,
    batch: RolloutBatch,
    step: int,
    *,
    tokens: float = 0.0,
    latches: Mapping[str, bool] = MappingProxyType({}),
    seed: int = 0,
) -> RoutedBatch:
    """The objective of `step` on `batch`, loss by loss; arguments and errors are those of `lower`."""
    env = _environment(plan, batch, step, tokens=tokens, latches=latches, seed=seed)
    route_of_T = _first_match(plan, env)
    return RoutedBatch(
        advantage_R=env.advantage_R, route_of_T=route_of_T, losses=tuple(_routed_losses(plan, route_of_T, env))
    )


def lower(
    plan: Plan,
    batch: RolloutBatch,
    step: int,
    *,
    tokens: float = 0.0,
    latches: Mapping[str, bool] = MappingProxyType({}),
    seed: int = 0,
) -> Lowered:
    """The objective of `step` on `batch`.

    tokens: response tokens trained before this step (only token-counted schedules read it); latches:
    `Lowered.latches` of the step before; seed: of random(), whose draws are a pure function of it and the step.
    Raises LoweringError when a weight or an advantage is not finite on this batch, or a denominator counts nothing.
    """
    env = _environment(plan, batch, step, tokens=tokens, latches=latches, seed=seed)
    route_of_T = _first_match(plan, env)
    routed = tuple(_routed_losses(plan, route_of_T, env))
    counted = tuple(one.counted() for one in routed)
    feeding: dict[FusedKernel, list[int]] = {}
    for number, one in enumerate(routed):
        if counted[number].tokens:
            feeding.setdefault(one.kernel, []).append(number)
    routing = _fused(routed, feeding, batch)
    return Lowered(
        routing=routing,
        advantage_R=env.advantage_R,
        route_of_T=route_of_T,
        loss_of_C=tuple(tuple((routed[n].route, routed[n].loss) for n in numbers) for numbers in feeding.values()),
        losses=counted,
        latches={latch_key(latch): latch_state(latch, env) for latch in latches_of(plan)},
    )


def _fused(
    routed: Sequence[RoutedLoss], feeding: Mapping[FusedKernel, Sequence[int]], batch: RolloutBatch
) -> FusedRouting:
    """`feeding`: of every kernel the losses that feed it, by number."""
    weights, advantages, parts, numbers = [], [], [], []
    channel_of_P: list[int] = []
    zeros_T = torch.zeros(batch.tokens, dtype=torch.float64)
    for channel, fed_by in enumerate(feeding.values()):
        weights.append(sum((routed[n].weight_T for n in fed_by), zeros_T))
        advantages.append(sum((a for n in fed_by if (a := routed[n].advantage_T) is not None), zeros_T))
        for row in _apart([routed[n].route for n in fed_by]):
            channel_of_P.append(channel)
            parts.append(sum((routed[fed_by[at]].weight_T for at in row), zeros_T))
            numbers.append(torch.full((batch.tokens,), -1, dtype=torch.int16))
            for at in row:
                numbers[-1][routed[fed_by[at]].weight_T != 0] = fed_by[at]
    return FusedRouting(
        kernels=tuple(feeding),
        weight_CT=_stack(weights, batch.tokens),
        advantage_CT=_stack(advantages, batch.tokens),
        row_of_T=batch.row_of_T,
        written_T=batch.written_T,
        losses=len(routed),
        channel_of_P=tuple(channel_of_P),
        loss_PT=torch.stack(numbers) if numbers else torch.zeros(0, batch.tokens, dtype=torch.int16),
        part_PT=_stack(parts, batch.tokens),
    )


def _apart(routes: Sequence[int]) -> list[list[int]]:
    """Positions in rows that hold no route twice: a token has one route, so losses of different ones never meet."""
    rows: list[list[int]] = []
    for at, route in enumerate(routes):
        nth = routes[:at].count(route)
        if nth == len(rows):
            rows.append([])
        rows[nth].append(at)
    return rows


def _environment(
    plan: Plan, batch: RolloutBatch, step: int, *, tokens: float, latches: Mapping[str, bool], seed: int
) -> Environment:
    group_R = group_ids(batch.group_R, batch.source_R)
    return Environment(
        batch=batch,
        advantage_R=estimate_advantage(batch.reward_R, group_R, plan.advantage),
        group_R=group_R,
        at=Progress(step=step, total_steps=plan.facts.total_steps, tokens=tokens),
        latches=latches,
        seed=seed,
    )


def _routed_losses(plan: Plan, route_of_T: Tensor, env: Environment) -> Iterator[RoutedLoss]:
    zeros_T = torch.zeros(env.batch.tokens, dtype=torch.float64)
    for r, (planned, standing) in enumerate(zip(plan.routes, standings_of(plan, env.at), strict=True)):
        selected_T = route_of_T == r
        gradients = 0
        for c, channel in enumerate(planned.route.channels):
            kernel = fuse(channel.kernel, gradients)
            gradients += isinstance(channel.kernel, PolicyGradient | Cispo)
            # a loss that trains nothing whatever is measured is not evaluated: its signals are not measured any more
            active = standing.reached and not surely_zero(channel.weight, env.at)
            plain_T = _weights(plan, channel, selected_T, env) if active else zeros_T
            weight_T = plain_T / _denominator(channel, planned.route, selected_T, env) if active else zeros_T
            advantage = advantage_of(channel)
            advantage_T = None
            if advantage is not None and active:
                advantage_T = torch.where(selected_T, _values(advantage, "advantage", channel, env), 0.0)
                _check_finite(advantage_T, "advantage", channel)
            yield RoutedLoss(
                route=r, loss=c, kernel=kernel, weight_T=weight_T, plain_T=plain_T, advantage_T=advantage_T
            )


def fuse(kernel: Kernel, index: int) -> FusedKernel:
    """The kernel with every constant the loss needs; `index` tells the policy gradients of one route apart.

    Nothing is left out: what the loss does not run it refuses by name, and `plan.support` says so before a run.
    """
    match kernel:
        case PolicyGradient():
            return PolicyGradientKernel(
                clip_low=kernel.clip_low,
                clip_high=kernel.clip_high,
                dual=kernel.dual,
                level=kernel.level,
                anchor=kernel.anchor if isinstance(kernel.anchor, MixAnchor) else None,
                tis=kernel.tis,
                index=index,
            )
        case Cispo(high=high):
            return CispoKernel(high=high, index=index)
        case Divergence():
            return DivergenceKernel(
                kind=kernel.kind,
                teacher=kernel.teacher,
                parameter=kernel.parameter,
                top_k=kernel.top_k,
                temperature=kernel.temperature,
                pclip=kernel.pclip,
            )
        case Nll():
            return NllKernel()
        case EntropyBonus():
            return EntropyKernel()
        case K3(to=to):
            return K3Kernel(to=to)
        case _:
            assert_never(kernel)


def _first_match(plan: Plan, env: Environment) -> Tensor:
    """int64 [T]: the first route of every token, -1 for none. Tool output is taken only by a route that asks for
    it.
    """
    batch = env.batch
    masks = label_masks(batch, plan.labels)
    route_of_T = torch.full((batch.tokens,), -1, dtype=torch.int64)
    for r, (planned, standing) in enumerate(zip(plan.routes, standings_of(plan, env.at), strict=True)):
        route = planned.route
        if not standing.reached:
            continue
        takes_T = torch.zeros(batch.tokens, dtype=torch.bool)
        for label in route.labels:
            takes_T |= masks[label] if label != REST else torch.ones_like(takes_T)
        takes_T &= _rows_of(route, batch)[batch.row_of_T]
        if not _asks_for_tool_output(route):
            takes_T &= batch.from_model_T
        if route.when is not None and standing.asks:
            takes_T &= _values(route.when, "predicate", route, env) != 0
        route_of_T[takes_T & (route_of_T < 0)] = r
    return route_of_T


def _rows_of(route: Route, batch: RolloutBatch) -> Tensor:
    """bool [R]: the rollouts of the route's source."""
    return torch.tensor([source == route.rows for source in batch.source_R], dtype=torch.bool)


def _asks_for_tool_output(route: Route) -> bool:
    """A route is offered tool output only when its predicate looks at `source`."""
    return route.when is not None and "source" in signals_of(route.when)


def _weights(plan: Plan, channel: Channel, selected_T: Tensor, env: Environment) -> Tensor:
    """float64 [T]: the weight of one loss on the tokens its route selected, before its denominator."""
    teacher = teacher_of(channel)
    takes_T = selected_T
    if teacher is not None:
        sees = next(t.teacher.sees for t in plan.teachers if t.teacher.name == teacher)
        if sees not in (Sees.NOTHING, Sees.MISMATCHED):
            takes_T = takes_T & env.batch.has(sees.value)[env.batch.row_of_T]
    weight_T = torch.where(takes_T, _values(channel.weight, "weight", channel, env), 0.0)
    _check_finite(weight_T, "weight", channel)
    return weight_T


def _values(expr: Expr, what: str, where: Route | Channel, env: Environment) -> Tensor:
    """float64 [T]: the values of an expression of a route or loss; raises LoweringError that names its line."""
    try:
        return evaluate_at(expr, Rank.TOKEN, env)
    except LoweringError as error:
        raise LoweringError(f"line {where.place.line}: the {what} of {where.text}: {error}") from error


def _check_finite(value_T: Tensor, what: str, channel: Channel) -> None:
    bad = int((~value_T.float().isfinite()).sum())
    if bad:
        raise LoweringError(
            f"line {channel.place.line}: the {what} of {channel.text} is not a finite float32 number at {bad} tokens "
            "of this batch: bound it with clip(x, lo, hi), keep zero out of a division, and read a teacher's signals "
            "only where there is what it sees, `when has(...)`"
        )


def _denominator(channel: Channel, route: Route, selected_T: Tensor, env: Environment) -> Tensor:
    """float64 [T] (or a scalar): what divides each token's weight, counted over the rows of the route's source.

    sequence: response length x number of responses; token: response tokens written by the model; selected: tokens the
    route selected (before weights, so that a gate does not change it); const(n): n x number of responses.
    """
    batch, per = env.batch, channel.per
    source_R = _rows_of(route, batch)
    responses = max(int(source_R.sum()), 1)
    match per.kind:
        case PerKind.SEQUENCE:
            return batch.length_R[batch.row_of_T].double() * responses
        case PerKind.TOKEN:
            written = int((batch.from_model_T & source_R[batch.row_of_T]).sum())
            if written == 0 and bool(selected_T.any()):
                raise LoweringError(
                    f"line {channel.place.line}: per=token divides {channel.text} by the tokens the model wrote, and "
                    "this batch has none: use per=selected for tool output"
                )
            return torch.tensor(float(max(written, 1)))
        case PerKind.SELECTED:
            return torch.tensor(float(max(int(selected_T.sum()), 1)))
        case PerKind.CONST:
            assert per.constant is not None
            return torch.tensor(per.constant * responses)
        case _:
            assert_never(per.kind)


def _stack(rows: list[Tensor], tokens: int) -> Tensor:
    return torch.stack(rows).float() if rows else torch.zeros(0, tokens)
