"""Kernels of the sampled token's log-prob alone: values and slopes by the log-prob.

    ratio    exp(logp - anchor): anchor = old_logp, or share old_logp + (1 - share) teacher_logp for a mixed anchor
             (TRRD, arXiv 2602.22495); at sequence level exp of the mean of that difference over the tokens of the
             response that the model wrote (GSPO, arXiv 2507.18071, equation 7)
    pg       max(-ratio A, -clip(ratio, 1 - clip_low, 1 + clip_high) A) (PPO, arXiv 1707.06347, equation 7), for A < 0
             at most -dual A (Dual-clip PPO, arXiv 1912.09729), times the importance weight of `tis`
    tis      min(exp(proximal_logp - old_logp), tis), and proximal_logp in place of old_logp in the ratio: the policy
             at the start of its updates, as the trainer computes it, over the one the rollout engine computed
    cispo    -stopgrad(min(ratio, 1 + high)) A logp (arXiv 2506.13585)
    nll      -logp
    k3       exp(d) - d - 1, d = reference_logp - logp

The gradient of a sequence-level ratio goes to the tokens of the channel alone, ratio_t = sg(ratio) p_t / sg(p_t)
(GSPO-token, equation 14): where a whole response has one weight and one advantage that is GSPO's own gradient, and
elsewhere no token is trained that its route did not take.

Legend: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trace_dsl.lowering.fused import CispoKernel, PolicyGradientKernel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TargetTerm:
    """A kernel's value and slope_N = d value / d logp; clipped_N says where a bound holds."""

    value_N: Tensor
    slope_N: Tensor
    clipped_N: Tensor | None = None


def policy_gradient(
    kernel: PolicyGradientKernel, *, log_ratio_N: Tensor, advantage_N: Tensor, importance_N: Tensor | None = None
) -> TargetTerm:
    """The clipped surrogate times `importance_N`; where a clip holds, the slope is 0.

    The value is what the formula says: a ratio that overflows with A < 0 and no dual clip is an infinite loss, for
    the trainer to stop on. A = 0 is zero whatever the ratio.
    """
    ratio_N = log_ratio_N.exp()
    plain_N = torch.where(advantage_N == 0, 0.0, -ratio_N * advantage_N)
    clipped_N = -ratio_N.clamp(1 - kernel.clip_low, 1 + kernel.clip_high) * advantage_N
    value_N = torch.maximum(plain_N, clipped_N)
    flat_N = plain_N < clipped_N
    if kernel.dual is not None:
        bound_N = -kernel.dual * advantage_N
        bounded_N = (advantage_N < 0) & (value_N > bound_N)
        value_N = torch.where(bounded_N, bound_N, value_N)
        flat_N = flat_N | bounded_N
    slope_N = torch.where(flat_N, 0.0, plain_N)
    if importance_N is not None:
        value_N, slope_N = value_N * importance_N, slope_N * importance_N
    return TargetTerm(value_N=value_N, slope_N=slope_N, clipped_N=flat_N)


def truncated_importance(bound: float, *, proximal_logp_N: Tensor, old_logp_N: Tensor) -> Tensor:
    """min(exp(proximal_logp - old_logp), bound), [N]."""
    return (proximal_logp_N - old_logp_N).exp().clamp(max=bound)


def clipped_importance(kernel: CispoKernel, *, logp_N: Tensor, old_logp_N: Tensor, advantage_N: Tensor) -> TargetTerm:
    """The gradient is not cut where the ratio is, only weighted less; `clipped_N` says where the bound holds."""
    ratio_N = (logp_N - old_logp_N).exp()
    slope_N = -ratio_N.clamp(max=1 + kernel.high) * advantage_N
    return TargetTerm(value_N=slope_N * logp_N, slope_N=slope_N, clipped_N=ratio_N > 1 + kernel.high)


def negative_log_likelihood(*, logp_N: Tensor) -> TargetTerm:
    """-logp."""
    return TargetTerm(value_N=-logp_N, slope_N=torch.full_like(logp_N, -1.0))


def k3_estimate(*, logp_N: Tensor, reference_logp_N: Tensor) -> TargetTerm:
    """exp(d) - d - 1; an estimate that overflows is an infinite loss."""
    d_N = reference_logp_N - logp_N
    growth_N = d_N.expm1()
    return TargetTerm(value_N=growth_N - d_N, slope_N=-growth_N)
