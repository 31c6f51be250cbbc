"""The metrics of one step, as plain numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import stdev

import torch

from megatron_bridge.training.collect import Rollout
from megatron_bridge.training.judges import judge_metrics
from megatron_bridge.training.optimize import StepResult
from megatron_bridge.training.route_metrics import Metrics, route_metrics
from trace_dsl.lowering import Lowered
from trace_dsl.lowering.fused import DivergenceKernel
from trace_dsl.model import Divergence
from trace_dsl.plan import Plan
from trace_dsl.plan.measurements import loss_weights
from trace_dsl.plan.plan import loss_names
from trace_dsl.schedules import Progress


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


def channel_names(plan: Plan, lowered: Lowered) -> tuple[str, ...]:
    """The losses that feed each channel, as the metrics name them."""
    names = loss_names(plan)
    return tuple("+".join(names[pair] for pair in pairs) for pairs in lowered.loss_of_C)


def step_metrics(
    plan: Plan,
    rollouts: Sequence[Rollout],
    lowered: Lowered,
    result: StepResult,
    *,
    step: int,
    trained_tokens: int,
    exposure: Mapping[str, float],
    teacher_ran: bool,
    sample_seconds: float,
    draw_seconds: float,
    train_seconds: float,
    staleness: int,
) -> Metrics:
    """Names with values, None where there is nothing to measure. docs/metrics.md says what each means.

    trained_tokens: response tokens of the steps before this one and of it; exposure: of each loss, with this step.
    """
    tokens = sum(len(r.token_ids) for r in rollouts)
    lengths = [len(r.token_ids) for r in rollouts]
    at = Progress(step=step, total_steps=plan.facts.total_steps, tokens=trained_tokens - tokens)
    weighted_CT = lowered.routing.weight_CT != 0
    divergences = [isinstance(kernel, DivergenceKernel) for kernel in lowered.routing.kernels]
    routed = int(weighted_CT.any(0).sum())
    taught = int(weighted_CT[torch.tensor(divergences, dtype=torch.bool)].any(0).sum())
    return {
        "loss": result.loss,
        **_reward_metrics([r for r in rollouts if r.judged]),
        "routed_fraction": routed / max(tokens, 1),
        "kl_fraction": taught / max(tokens, 1),
        "kl_weight": kl_weight(plan, at),
        "teacher_ran": int(teacher_ran),
        "rollout/tokens": tokens,
        "rollout/mean_tokens": tokens / len(rollouts),
        "rollout/min_tokens": min(lengths),
        "rollout/max_tokens": max(lengths),
        "rollout/cut_fraction": sum(r.finish == "length" for r in rollouts) / len(rollouts),
        "rollout/annotated_fraction": sum(bool(r.annotation.spans) for r in rollouts) / len(rollouts),
        **judge_metrics(rollouts),
        "rollout/logp_mismatch": result.mismatch,
        "rollout/logp_mismatch_max": result.mismatch_max,
        "rollout/logp_mismatch_kl": result.mismatch_kl,
        "rollout/staleness": staleness,
        "policy/entropy": result.entropy,
        "policy/logp_change": result.logp_gap,
        "policy/clip_fraction": result.clip_fraction,
        "train/credit/inside": result.credit.inside,
        "train/credit/outside": result.credit.outside,
        "train/credit/concentration": result.credit.concentration,
        "optim/grad_norm": result.grad_norm,
        "optim/lr": result.lr,
        "perf/sample_seconds": sample_seconds,
        "perf/train_seconds": train_seconds,
        "perf/tokens_per_second": tokens / (sample_seconds + train_seconds),
        "perf/rollout_tokens_per_second": tokens / max(draw_seconds, 1e-9),
        "perf/rollouts_per_second": len(rollouts) / max(draw_seconds, 1e-9),
        "trained_tokens": trained_tokens,
        **route_metrics(plan, lowered, result.losses, at, exposure),
    }


def _reward_metrics(judged: Sequence[Rollout]) -> Metrics:
    """Of the responses that the verifier could judge, and of their groups."""
    groups: dict[int, list[Rollout]] = {}
    for rollout in judged:
        groups.setdefault(rollout.group, []).append(rollout)
    rewards = [r.reward for r in judged]
    solved = [sum(r.correct for r in group) / len(group) for group in groups.values()]
    spreads = [stdev([r.reward for r in group]) if len(group) > 1 else 0.0 for group in groups.values()]

    def share(holds: Iterable[bool]) -> float:
        return sum(holds) / max(len(groups), 1)

    return {
        "reward": sum(rewards) / max(len(judged), 1),
        "reward_std": stdev(rewards) if len(rewards) > 1 else 0.0,
        "accuracy": sum(r.correct for r in judged) / max(len(judged), 1),
        "group/count": len(groups),
        "group/all_correct": share(rate == 1 for rate in solved),
        "group/all_wrong": share(rate == 0 for rate in solved),
        "group/mixed": share(0 < rate < 1 for rate in solved),
        "rollout/equal_reward_groups": share(len({r.reward for r in group}) == 1 for group in groups.values()),
        "group/reward_std": sum(spreads) / max(len(groups), 1),
    }
