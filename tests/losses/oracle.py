"""The definition of the routed loss: dense float64 softmaxes over the true vocabulary, sums, and autograd.

Written from the formulas of the kernels' definitions, and shares nothing with the code under test: no
statistics, no shards, no gradient formula.

Legend: T tokens, V true vocabulary, H hidden, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trace_dsl.lowering.fused import (
    CispoKernel,
    DivergenceKernel,
    EntropyKernel,
    FusedKernel,
    FusedRouting,
    NllKernel,
    PolicyGradientKernel,
)
from trace_dsl.model import DivergenceKind


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OracleLoss:
    """magnitude_C = sum_t |weight value|: what the rounding of a sum is measured by, where its terms cancel.

    Float64 loss, its parts, and gradients; logp_T and entropy_T at every row, value_CT at every channel
    and row."""

    loss: Tensor
    loss_C: Tensor
    magnitude_C: Tensor
    value_CT: Tensor
    logp_T: Tensor
    entropy_T: Tensor
    hidden_gradient_TH: Tensor
    weight_gradient_VH: Tensor


def kl_first_second(*, first_logp_TV: Tensor, second_logp_TV: Tensor) -> Tensor:
    """KL(first || second) = sum over the vocabulary of first (log first - log second)."""
    return (first_logp_TV.exp() * (first_logp_TV - second_logp_TV)).sum(dim=-1)


def log_mixture(*, first_logp_TV: Tensor, first_share: float, second_logp_TV: Tensor) -> Tensor:
    """log(share first + (1 - share) second)."""
    return torch.logaddexp(first_logp_TV + math.log(first_share), second_logp_TV + math.log(1 - first_share))


def divergence(kernel: DivergenceKernel, *, student_logp_TV: Tensor, teacher_logp_TV: Tensor) -> Tensor:
    """A full-vocabulary divergence by its definition."""
    share = kernel.parameter
    match kernel.kind:
        case DivergenceKind.FKL:
            return kl_first_second(first_logp_TV=teacher_logp_TV, second_logp_TV=student_logp_TV)
        case DivergenceKind.RKL:
            return kl_first_second(first_logp_TV=student_logp_TV, second_logp_TV=teacher_logp_TV)
        case DivergenceKind.JSD:
            assert share is not None
            mix_TV = log_mixture(first_logp_TV=teacher_logp_TV, first_share=share, second_logp_TV=student_logp_TV)
            kl_teacher_mix = kl_first_second(first_logp_TV=teacher_logp_TV, second_logp_TV=mix_TV)
            kl_student_mix = kl_first_second(first_logp_TV=student_logp_TV, second_logp_TV=mix_TV)
            return share * kl_teacher_mix + (1 - share) * kl_student_mix
        case DivergenceKind.SKL:
            assert share is not None
            mix_TV = log_mixture(first_logp_TV=teacher_logp_TV, first_share=share, second_logp_TV=student_logp_TV)
            return kl_first_second(first_logp_TV=teacher_logp_TV, second_logp_TV=mix_TV)
        case DivergenceKind.SRKL:
            assert share is not None
            mix_TV = log_mixture(first_logp_TV=student_logp_TV, first_share=share, second_logp_TV=teacher_logp_TV)
            return kl_first_second(first_logp_TV=student_logp_TV, second_logp_TV=mix_TV)


def policy_gradient(kernel: PolicyGradientKernel, *, logp_T: Tensor, old_logp_T: Tensor, advantage_T: Tensor) -> Tensor:
    """Minus the clipped surrogate; with `dual`, the surrogate is at least dual A where A < 0."""
    ratio_T = (logp_T - old_logp_T).exp()
    clipped_ratio_T = ratio_T.clamp(1 - kernel.clip_low, 1 + kernel.clip_high)
    surrogate_T = torch.minimum(ratio_T * advantage_T, clipped_ratio_T * advantage_T)
    if kernel.dual is not None:
        floor_T = torch.maximum(surrogate_T, kernel.dual * advantage_T)
        surrogate_T = torch.where(advantage_T < 0, floor_T, surrogate_T)
    return -surrogate_T


def cispo(kernel: CispoKernel, *, logp_T: Tensor, old_logp_T: Tensor, advantage_T: Tensor) -> Tensor:
    """Log-prob times advantage, weighted by an importance ratio that is bounded above and carries no gradient."""
    with torch.no_grad():
        bounded_T = torch.minimum((logp_T - old_logp_T).exp(), torch.full_like(logp_T, 1 + kernel.high))
    return -bounded_T * advantage_T * logp_T


def kernel_value(
    kernel: FusedKernel,
    *,
    student_logp_TV: Tensor,
    teacher_logp_TV: Mapping[str, Tensor],
    logp_T: Tensor,
    old_logp_T: Tensor,
    advantage_T: Tensor,
) -> Tensor:
    if isinstance(kernel, PolicyGradientKernel):
        return policy_gradient(kernel, logp_T=logp_T, old_logp_T=old_logp_T, advantage_T=advantage_T)
    if isinstance(kernel, CispoKernel):
        return cispo(kernel, logp_T=logp_T, old_logp_T=old_logp_T, advantage_T=advantage_T)
    if isinstance(kernel, DivergenceKernel):
        return divergence(kernel, student_logp_TV=student_logp_TV, teacher_logp_TV=teacher_logp_TV[kernel.teacher])
    if isinstance(kernel, NllKernel):
        return -logp_T
    assert isinstance(kernel, EntropyKernel)
    return (student_logp_TV.exp() * student_logp_TV).sum(dim=-1)


def oracle_loss(
    hidden_TH: Tensor,
    output_weight_VH: Tensor,
    *,
    target_T: Tensor,
    old_logp_T: Tensor,
    routing: FusedRouting,
    teachers: Mapping[str, tuple[Tensor, Tensor]],
    temperature: float = 1.0,
    vocab_size: int | None = None,
) -> OracleLoss:
    """`teachers` holds dense hidden rows [T, H'] and the whole output weight [V_padded, H'] of each
    teacher."""
    hidden_TH = hidden_TH.detach().double().requires_grad_()
    weight_VH = output_weight_VH.detach().double().requires_grad_()

    def logp(rows_TH: Tensor, table_VH: Tensor) -> Tensor:
        return torch.log_softmax(rows_TH.double() @ table_VH.double()[:vocab_size].T / temperature, dim=-1)

    student_logp_TV = logp(hidden_TH, weight_VH)
    logp_T = student_logp_TV.gather(1, target_T[:, None])[:, 0]
    teacher_logp_TV = {name: logp(rows.detach(), table.detach()) for name, (rows, table) in teachers.items()}
    value_CT = torch.stack(
        [
            kernel_value(
                kernel,
                student_logp_TV=student_logp_TV,
                teacher_logp_TV=teacher_logp_TV,
                logp_T=logp_T,
                old_logp_T=old_logp_T.double(),
                advantage_T=routing.advantage_CT[channel].double(),
            )
            for channel, kernel in enumerate(routing.kernels)
        ]
    )
    loss_C = (routing.weight_CT.double() * value_CT).sum(dim=1)
    hidden_gradient_TH, weight_gradient_VH = torch.autograd.grad(loss_C.sum(), (hidden_TH, weight_VH))
    return OracleLoss(
        loss=loss_C.sum().detach(),
        loss_C=loss_C.detach(),
        magnitude_C=(routing.weight_CT.double() * value_CT).abs().sum(dim=1).detach(),
        value_CT=value_CT.detach(),
        logp_T=logp_T.detach(),
        entropy_T=-(student_logp_TV.exp() * student_logp_TV).sum(dim=-1).detach(),
        hidden_gradient_TH=hidden_gradient_TH,
        weight_gradient_VH=weight_gradient_VH,
    )


def relative_error(measured: Tensor, expected: Tensor) -> float:
    """||measured - expected|| / ||expected||, in float64."""
    return float((measured.detach().double() - expected).norm() / expected.norm())


def loss_error(measured_C: Tensor, expected: OracleLoss) -> float:
    """The largest error of a channel's loss, relative to the absolute values that it sums."""
    return float(((measured_C.detach().double() - expected.loss_C).abs() / expected.magnitude_C).max())
