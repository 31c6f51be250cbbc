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
    K3Kernel,
    NllKernel,
    PolicyGradientKernel,
)
from trace_dsl.model import DivergenceKind, RatioLevel, SupportOf, Tail


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OracleLoss:
    """magnitude_C = sum_t |weight value|: what the rounding of a sum is measured by, where its terms cancel.

    Float64 loss, its parts, and gradients; logp_T and entropy_T at every row, value_CT at every channel
    and row; gradient_norm_CT: the sum over the vocabulary of |d (weight value) / d logit|, logits at the temperature.
    """

    loss: Tensor
    loss_C: Tensor
    magnitude_C: Tensor
    value_CT: Tensor
    logp_T: Tensor
    entropy_T: Tensor
    hidden_gradient_TH: Tensor
    weight_gradient_VH: Tensor
    gradient_norm_CT: Tensor


def log_mixture(*, first_logp_TV: Tensor, first_share: float, second_logp_TV: Tensor) -> Tensor:
    """log(share first + (1 - share) second)."""
    return torch.logaddexp(first_logp_TV + math.log(first_share), second_logp_TV + math.log(1 - first_share))


def divergence_summands(kernel: DivergenceKernel, *, student_logp_TV: Tensor, teacher_logp_TV: Tensor) -> Tensor:
    """What a divergence sums over its classes, by its definition; each at most `pclip`, constant where it is more."""

    def kl_first_second(first_logp_TV: Tensor, second_logp_TV: Tensor) -> Tensor:
        return first_logp_TV.exp() * (first_logp_TV - second_logp_TV)

    share = kernel.parameter
    match kernel.kind:
        case DivergenceKind.FKL:
            summands_TV = kl_first_second(teacher_logp_TV, student_logp_TV)
        case DivergenceKind.RKL:
            summands_TV = kl_first_second(student_logp_TV, teacher_logp_TV)
        case DivergenceKind.JSD:
            assert share is not None
            mix_TV = log_mixture(first_logp_TV=teacher_logp_TV, first_share=share, second_logp_TV=student_logp_TV)
            summands_TV = share * kl_first_second(teacher_logp_TV, mix_TV)
            summands_TV = summands_TV + (1 - share) * kl_first_second(student_logp_TV, mix_TV)
        case DivergenceKind.SKL:
            assert share is not None
            mix_TV = log_mixture(first_logp_TV=teacher_logp_TV, first_share=share, second_logp_TV=student_logp_TV)
            summands_TV = kl_first_second(teacher_logp_TV, mix_TV)
        case DivergenceKind.SRKL:
            assert share is not None
            mix_TV = log_mixture(first_logp_TV=student_logp_TV, first_share=share, second_logp_TV=teacher_logp_TV)
            summands_TV = kl_first_second(student_logp_TV, mix_TV)
    if kernel.pclip is None:
        return summands_TV
    return torch.where(summands_TV > kernel.pclip, kernel.pclip, summands_TV)


def support_mask(kernel: DivergenceKernel, *, student_logp_TV: Tensor, teacher_logp_TV: Tensor) -> Tensor:
    """bool [T, V]: the k likeliest tokens of the side that chooses; of equal ones, those with the lower ids."""
    assert kernel.top_k is not None
    chooser_TV = teacher_logp_TV if kernel.top_k.of is SupportOf.TEACHER else student_logp_TV
    order_TV = chooser_TV.detach().argsort(dim=1, descending=True, stable=True)
    mask_TV = torch.zeros_like(chooser_TV, dtype=torch.bool)
    return mask_TV.scatter(1, order_TV[:, : kernel.top_k.k], True)


def divergence(kernel: DivergenceKernel, *, student_logp_TV: Tensor, teacher_logp_TV: Tensor) -> Tensor:
    """A divergence over the full vocabulary or over the classes that its support makes, [T]."""
    if kernel.top_k is None:
        return divergence_summands(kernel, student_logp_TV=student_logp_TV, teacher_logp_TV=teacher_logp_TV).sum(dim=1)
    chosen_TV = support_mask(kernel, student_logp_TV=student_logp_TV, teacher_logp_TV=teacher_logp_TV)
    values = []
    for student_logp_V, teacher_logp_V, chosen_V in zip(student_logp_TV, teacher_logp_TV, chosen_TV, strict=True):
        sides = [student_logp_V[chosen_V], teacher_logp_V[chosen_V]]
        if kernel.top_k.tail is Tail.RENORM:
            sides = [side.exp().div(side.exp().sum()).log() for side in sides]
        elif kernel.top_k.tail is Tail.BUCKET and not chosen_V.all():
            outside = [student_logp_V[~chosen_V].exp().sum().log(), teacher_logp_V[~chosen_V].exp().sum().log()]
            sides = [torch.cat((side, tail[None])) for side, tail in zip(sides, outside, strict=True)]
        summands_K = divergence_summands(kernel, student_logp_TV=sides[0], teacher_logp_TV=sides[1])
        values.append(summands_K.sum())
    return torch.stack(values)


def policy_gradient(kernel: PolicyGradientKernel, *, rows: OracleRows, advantage_T: Tensor) -> Tensor:
    """Minus the clipped surrogate; with `dual`, the surrogate is at least dual A where A < 0.

    tis: the ratio is to the proximal policy, the whole weighed by how much likelier it is than the rollout's, at most
    tis. A mixed anchor is old^share teacher^(1 - share). At sequence level the ratio is the geometric mean over the
    tokens that the model wrote; it is differentiated through the token's own log-prob.
    """
    old_T = rows.old_logp_T if kernel.tis is None else rows.proximal_logp_T
    anchor_T = old_T
    if kernel.anchor is not None:
        teacher_T = rows.of_target(rows.logp(kernel.anchor.teacher, None))
        anchor_T = kernel.anchor.share * old_T + (1 - kernel.anchor.share) * teacher_T
    log_ratio_T = rows.logp_T - anchor_T
    if kernel.level is RatioLevel.SEQUENCE:
        mean_T = torch.full_like(log_ratio_T, torch.nan)
        for row in rows.routing.row_of_T.unique().tolist():
            response_T = rows.routing.row_of_T == row
            assert rows.routing.written_T is not None
            mean_T[response_T] = log_ratio_T.detach()[response_T & (rows.routing.written_T > 0)].mean()
        log_ratio_T = mean_T + rows.logp_T - rows.logp_T.detach()
    ratio_T = log_ratio_T.exp()
    clipped_ratio_T = ratio_T.clamp(1 - kernel.clip_low, 1 + kernel.clip_high)
    surrogate_T = torch.minimum(ratio_T * advantage_T, clipped_ratio_T * advantage_T)
    if kernel.dual is not None:
        floor_T = torch.maximum(surrogate_T, kernel.dual * advantage_T)
        surrogate_T = torch.where(advantage_T < 0, floor_T, surrogate_T)
    if kernel.tis is not None:
        weight_T = (rows.proximal_logp_T - rows.old_logp_T).exp()
        surrogate_T = surrogate_T * torch.minimum(weight_T, torch.full_like(weight_T, kernel.tis))
    return -surrogate_T


def k3(kernel: K3Kernel, *, rows: OracleRows) -> Tensor:
    """exp(d) - d - 1, d = log-prob under the other policy minus the student's."""
    other_T = rows.old_logp_T if kernel.to == "old" else rows.reference_logp[kernel.to]
    return (other_T - rows.logp_T).exp() - (other_T - rows.logp_T) - 1


def cispo(kernel: CispoKernel, *, logp_T: Tensor, old_logp_T: Tensor, advantage_T: Tensor) -> Tensor:
    """Log-prob times advantage, weighted by an importance ratio that is bounded above and carries no gradient."""
    with torch.no_grad():
        bounded_T = torch.minimum((logp_T - old_logp_T).exp(), torch.full_like(logp_T, 1 + kernel.high))
    return -bounded_T * advantage_T * logp_T


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OracleRows:
    """Dense logits [T, V] before any temperature, the student's under the name None; everything in float64."""

    logits_TV: Mapping[str | None, Tensor]
    target_T: Tensor
    old_logp_T: Tensor
    proximal_logp_T: Tensor
    reference_logp: Mapping[str, Tensor]
    routing: FusedRouting
    temperature: float
    rounded: bool

    def logp(self, who: str | None, temperature: float | None) -> Tensor:
        """Log-probs [T, V] at a temperature, None for the call's; `rounded`: to float32."""
        logp_TV = torch.log_softmax(self.logits_TV[who] / (temperature or self.temperature), dim=1)
        return logp_TV + (logp_TV.float().double() - logp_TV).detach() if self.rounded else logp_TV

    def of_target(self, logp_TV: Tensor) -> Tensor:
        return logp_TV.gather(1, self.target_T[:, None])[:, 0]

    @property
    def logp_T(self) -> Tensor:
        return self.of_target(self.logp(None, None))


def kernel_value(kernel: FusedKernel, *, rows: OracleRows, advantage_T: Tensor) -> Tensor:
    if isinstance(kernel, PolicyGradientKernel):
        return policy_gradient(kernel, rows=rows, advantage_T=advantage_T)
    if isinstance(kernel, CispoKernel):
        return cispo(kernel, logp_T=rows.logp_T, old_logp_T=rows.old_logp_T, advantage_T=advantage_T)
    if isinstance(kernel, DivergenceKernel):
        return divergence(
            kernel,
            student_logp_TV=rows.logp(None, kernel.temperature),
            teacher_logp_TV=rows.logp(kernel.teacher, kernel.temperature),
        )
    if isinstance(kernel, NllKernel):
        return -rows.logp_T
    if isinstance(kernel, K3Kernel):
        return k3(kernel, rows=rows)
    assert isinstance(kernel, EntropyKernel)
    return (rows.logp(None, None).exp() * rows.logp(None, None)).sum(dim=-1)


def oracle_loss(
    hidden_TH: Tensor,
    output_weight_VH: Tensor,
    *,
    target_T: Tensor,
    old_logp_T: Tensor,
    proximal_logp_T: Tensor,
    reference_logp: Mapping[str, Tensor],
    routing: FusedRouting,
    teachers: Mapping[str, tuple[Tensor, Tensor]],
    temperature: float = 1.0,
    vocab_size: int | None = None,
    rounded: bool = False,
) -> OracleLoss:
    """`teachers` holds dense hidden rows [T, H'] and the whole output weight [V_padded, H'] of each
    teacher. `rounded` takes the logits of float32 products and rounds the log-probs to float32; all else is exact."""

    def logits(rows_TH: Tensor, table_VH: Tensor) -> Tensor:
        exact_TV = rows_TH.double() @ table_VH.double()[:vocab_size].T
        if not rounded:
            return exact_TV
        return exact_TV + ((rows_TH.float() @ table_VH.float()[:vocab_size].T).double() - exact_TV).detach()

    hidden_TH = hidden_TH.detach().double().requires_grad_()
    weight_VH = output_weight_VH.detach().double().requires_grad_()
    logits_TV: dict[str | None, Tensor] = {None: logits(hidden_TH, weight_VH)}
    for name, (rows_TH, table_VH) in teachers.items():
        logits_TV[name] = logits(rows_TH.detach(), table_VH.detach())
    rows = OracleRows(
        logits_TV=logits_TV,
        target_T=target_T,
        old_logp_T=old_logp_T.double(),
        proximal_logp_T=proximal_logp_T.double(),
        reference_logp={name: logp_T.double() for name, logp_T in reference_logp.items()},
        routing=routing,
        temperature=temperature,
        rounded=rounded,
    )
    value_CT = torch.stack(
        [
            kernel_value(kernel, rows=rows, advantage_T=routing.advantage_CT[channel].double())
            for channel, kernel in enumerate(routing.kernels)
        ]
    )
    weight_CT = routing.weight_CT.double()
    # a response without a written token has no ratio: where there is no weight, nothing of a kernel counts
    weighted_CT = torch.where(weight_CT != 0, weight_CT * value_CT, 0.0)
    loss_C = weighted_CT.sum(dim=1)
    logit_gradients = [
        torch.autograd.grad(loss, logits_TV[None], retain_graph=True, allow_unused=True)[0] for loss in loss_C
    ]
    no_gradient_TV = torch.zeros_like(logits_TV[None])
    hidden_gradient_TH, weight_gradient_VH = torch.autograd.grad(loss_C.sum(), (hidden_TH, weight_VH))
    student_logp_TV = rows.logp(None, None)
    return OracleLoss(
        loss=loss_C.sum().detach(),
        loss_C=loss_C.detach(),
        magnitude_C=weighted_CT.abs().sum(dim=1).detach(),
        value_CT=value_CT.detach(),
        logp_T=rows.logp_T.detach(),
        entropy_T=-(student_logp_TV.exp() * student_logp_TV).sum(dim=-1).detach(),
        hidden_gradient_TH=hidden_gradient_TH,
        weight_gradient_VH=weight_gradient_VH,
        gradient_norm_CT=torch.stack(
            [(no_gradient_TV if g is None else g).abs().sum(dim=1) * temperature for g in logit_gradients]
        ),
    )


def relative_error(measured: Tensor, expected: Tensor) -> float:
    """||measured - expected|| / ||expected||, in float64."""
    return float((measured.detach().double() - expected).norm() / expected.norm())


def loss_error(measured_C: Tensor, expected: OracleLoss) -> float:
    """The largest error of a channel's loss, relative to the absolute values that it sums."""
    return float(((measured_C.detach().double() - expected.loss_C).abs() / expected.magnitude_C).max())
