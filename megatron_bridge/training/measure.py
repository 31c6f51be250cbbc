"""The metrics of one step, as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from megatron_bridge.training.collect import Rollout
from megatron_bridge.training.judges import judge_metrics
from megatron_bridge.training.optimize import StepResult
from trace_dsl.lowering import Lowered
from trace_dsl.lowering.fused import DivergenceKernel
from trace_dsl.model import Divergence
from trace_dsl.plan import Plan
from trace_dsl.plan.measurements import loss_weights
from trace_dsl.plan.plan import loss_names
from trace_dsl.schedules import Progress

Metrics = dict[str, float | int | None]


def kl_weight(plan: Plan, at: Progress) -> float | None:
    """The largest scheduled weight of a divergence at a step; 0 without one, None when only a gate knows it."""
    weights = [
        weight
        for route, known in zip(plan.routes, loss_weights(plan, at), strict=True)
        for loss, weight in zip(route.losses, known, strict=True)
        if isinstance(loss.channel.kernel, Divergence)
    ]
    if None in weights:
        return None
    return max((w for w in weights if w is not None), default=0.0)


def step_metrics(
    plan: Plan,
    rollouts: Sequence[Rollout],
    lowered: Lowered,
    result: StepResult,
    *,
    step: int,
    trained_tokens: int,
    teacher_ran: bool,
    sample_seconds: float,
    draw_seconds: float,
    train_seconds: float,
    staleness: int,
) -> Metrics:
    """Names with values: rates are fractions, lengths tokens, entropy nats a token, times seconds.

    routed_fraction: share of response tokens with a nonzero weight on some channel; kl_fraction: on some divergence;
    route/<loss>/fraction: on that loss. rollout/logp_mismatch: |trainer's - engine's log-prob| of routed tokens under
    the same weights, None where every token is staler; rollout/staleness: iterations the oldest token lies behind.
    perf/sample_seconds is what training waited, perf/rollout_tokens_per_second counts while drawing.
    """
    names = loss_names(plan)
    tokens = sum(len(r.token_ids) for r in rollouts)
    groups: dict[int, set[float]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group, set()).add(rollout.reward)
    at = Progress(step=step, total_steps=plan.facts.total_steps, tokens=trained_tokens)
    weighted_CT = lowered.routing.weight_CT != 0
    divergences = [isinstance(kernel, DivergenceKernel) for kernel in lowered.routing.kernels]
    routed = int(weighted_CT.any(0).sum())
    taught = int(weighted_CT[torch.tensor(divergences, dtype=torch.bool)].any(0).sum())
    metrics: Metrics = {
        "loss": result.loss,
        "reward": sum(r.reward for r in rollouts) / len(rollouts),
        "accuracy": sum(r.correct for r in rollouts) / len(rollouts),
        "routed_fraction": routed / max(tokens, 1),
        "kl_fraction": taught / max(tokens, 1),
        "kl_weight": kl_weight(plan, at),
        "teacher_ran": int(teacher_ran),
        "rollout/mean_tokens": tokens / len(rollouts),
        "rollout/cut_fraction": sum(r.finish == "length" for r in rollouts) / len(rollouts),
        "rollout/annotated_fraction": sum(bool(r.annotation.spans) for r in rollouts) / len(rollouts),
        **judge_metrics(rollouts),
        "rollout/equal_reward_groups": sum(len(rewards) == 1 for rewards in groups.values()) / len(groups),
        "rollout/logp_mismatch": result.mismatch,
        "rollout/logp_mismatch_max": result.mismatch_max,
        "rollout/staleness": staleness,
        "policy/entropy": result.entropy,
        "policy/logp_change": result.logp_gap,
        "policy/clip_fraction": result.clip_fraction,
        "optim/grad_norm": result.grad_norm,
        "optim/lr": result.lr,
        "perf/sample_seconds": sample_seconds,
        "perf/train_seconds": train_seconds,
        "perf/tokens_per_second": tokens / (sample_seconds + train_seconds),
        "perf/rollout_tokens_per_second": tokens / max(draw_seconds, 1e-9),
        "perf/rollouts_per_second": len(rollouts) / max(draw_seconds, 1e-9),
        "trained_tokens": trained_tokens,
    }
    weights = loss_weights(plan, at)
    for key, count in lowered.tokens_of_loss.items():
        metrics[f"route/{names[key]}/fraction"] = count / max(tokens, 1)
        r, c = key
        metrics[f"route/{names[key]}/weight"] = weights[r][c]
    for loss, pairs in zip(result.loss_C, lowered.loss_of_C, strict=True):
        metrics[f"loss/{'+'.join(names[pair] for pair in pairs)}"] = loss
    return metrics
