"""What a spec gives on the batch of a case, through the same lowering that training uses. Needs torch.

Legend: R rollouts, T response tokens of the batch, rollout after rollout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from trace_dsl.expect.batch import is_measured, signal_named
from trace_dsl.expect.compare import Found
from trace_dsl.expect.file import Case, Rollout
from trace_dsl.lowering import RolloutBatch, TokenSpan
from trace_dsl.lowering.evaluate import latch_key
from trace_dsl.lowering.lower import route_batch
from trace_dsl.model import Spec
from trace_dsl.plan.measurements import signals_read
from trace_dsl.plan.plan import Plan, advantage_of, latches_of, loss_names
from trace_dsl.terms import Rank, Signal
from trace_dsl.vocabulary import SIGNALS


def evaluate(spec: Spec, plan: Plan, case: Case, rollouts: Mapping[str, Rollout]) -> Found:
    """Routes, weights and advantages of every token of a case. Raises LoweringError as `lower` does."""
    batch = batch_of(spec, rollouts, signals_read(plan, case.step))
    routed = route_batch(
        plan,
        batch,
        case.step,
        tokens=case.trained_tokens,
        latches={latch_key(latch): case.latched for latch in latches_of(plan)},
        seed=case.seed,
    )
    names = loss_names(plan)

    def by_rollout(value_T: Tensor) -> dict[str, tuple[float, ...]]:
        parts = torch.split(value_T, batch.length_R.tolist())
        return {name: tuple(part.tolist()) for name, part in zip(rollouts, parts, strict=True)}

    zeros_T = torch.zeros(batch.tokens, dtype=torch.float64)
    return Found(
        routes={name: tuple(map(int, part)) for name, part in by_rollout(routed.route_of_T).items()},
        route_of_loss={names[one.route, one.loss]: one.route for one in routed.losses},
        weights={names[one.route, one.loss]: by_rollout(one.weight_T) for one in routed.losses},
        advantages={
            names[one.route, one.loss]: by_rollout(zeros_T if one.advantage_T is None else one.advantage_T)
            for one in routed.losses
            if advantage_of(plan.routes[one.route].losses[one.loss].channel) is not None
        },
        A=dict(zip(rollouts, routed.advantage_R.tolist(), strict=True)),
    )


def batch_of(spec: Spec, rollouts: Mapping[str, Rollout], signals: Iterable[Signal]) -> RolloutBatch:
    """The rollouts of a case as `lower` takes them, with the `signals` that are read."""
    rows = tuple(rollouts.values())
    prompts = list(dict.fromkeys(str(row.prompt) for row in rows))
    contexts = sorted({context for row in rows for context in row.has})
    return RolloutBatch(
        length_R=torch.tensor([row.tokens for row in rows], dtype=torch.int64),
        reward_R=torch.tensor([row.reward for row in rows], dtype=torch.float64),
        correct_R=torch.tensor([row.is_correct for row in rows], dtype=torch.bool),
        group_R=torch.tensor([prompts.index(str(row.prompt)) for row in rows], dtype=torch.int64),
        old_logp_T=_per_token(spec, rows, signal_named("old_logp", spec)).float(),
        from_model_T=torch.tensor(
            [not any(a <= t < b for a, b in row.tool) for row in rows for t in range(row.tokens)], dtype=torch.bool
        ),
        spans=tuple(
            TokenSpan(row=r, label=label, start=start, end=end)
            for r, row in enumerate(rows)
            for label, stretches in row.spans.items()
            for start, end in stretches
        ),
        source_R=tuple(row.rows for row in rows),
        contexts=tuple((name, torch.tensor([name in row.has for row in rows])) for name in contexts),
        measured=tuple((signal, _per_token(spec, rows, signal)) for signal in signals if is_measured(signal)),
    )


def _per_token(spec: Spec, rows: tuple[Rollout, ...], signal: Signal) -> Tensor:
    """float64 [T]: a signal at every token, NaN where it has no value."""
    return torch.cat([torch.zeros(0, dtype=torch.float64), *(_of_row(spec, row, signal) for row in rows)])


def _of_row(spec: Spec, row: Rollout, signal: Signal) -> Tensor:
    """float64 [tokens]: a signal as it is given, or computed from those that are, else NaN."""
    values = next((v for name, v in row.signals.items() if signal_named(name, spec) == signal), None)
    if values is not None:
        return torch.tensor(values, dtype=torch.float64).expand(row.tokens)

    def part(name: str) -> Tensor:
        teacher = signal.teacher if SIGNALS[name].of_teacher else None
        return _of_row(spec, row, Signal(name=name, rank=Rank.TOKEN, teacher=teacher))

    match signal.name:
        case "gap":
            return part("teacher_logp") - part("logp")
        case "ratio":
            return (part("logp") - part("old_logp")).exp()
        case _:
            return torch.full((row.tokens,), math.nan, dtype=torch.float64)
