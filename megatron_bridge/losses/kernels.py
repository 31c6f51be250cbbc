"""The formulas of the kernels: values from statistics, and gradients with respect to the logits.

For a value that depends on the student's distribution alone, d value / d logit_i = student_i (g_i -
E_student[g]) with g = d value / d student; a constant added to g changes nothing, and is chosen here so that
g = 0 where teacher and student agree: the gradient is then exactly zero. With log_ratio = log(teacher /
student):

    kernel  value                                                  g
    fkl     KL(teacher || student)                                 -teacher / student + 1
    rkl     KL(student || teacher)                                 -log_ratio
    jsd     b KL(teacher || mix) + (1-b) KL(student || mix),       (1-b) log(student / mix)
            mix = b teacher + (1-b) student
    skl     KL(teacher || mix), mix = a teacher + (1-a) student    -(1-a) (teacher / mix - 1)
    srkl    KL(student || mix), mix = a student + (1-a) teacher    log(student / mix) - a (student / mix - 1)
    -H      sum student log student                                log student

For rkl and -H the mean of g is minus or plus the value; for the mixtures it is summed with the value.

Sources: generalised JSD as in GKD (arXiv 2306.13649, section 2); skewed divergences as in DistiLLM (arXiv
2402.03898); clipping as in PPO (arXiv 1707.06347, equation 7) and Dual-clip PPO (arXiv 1912.09729).

Legend: N rows of a chunk, v columns of the vocabulary on this rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trace_dsl.lowering.fused import CispoKernel, DivergenceKernel, PolicyGradientKernel
from trace_dsl.model import DivergenceKind

MIXTURES = frozenset({DivergenceKind.JSD, DivergenceKind.SKL, DivergenceKind.SRKL})
MIXTURE_COLUMNS = 2  # value and E_student[g] of this rank's columns

_EXP_LIMIT = 80.0  # exp(80) is finite in float32; beyond it, log(1 + s (e^x - 1)) = x + log s to the last bit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TargetTerm:
    """A kernel of the sampled token's log-prob alone: slope_N = d value / d logp, clipped_N where a clip made
    it 0."""

    value_N: Tensor
    slope_N: Tensor
    clipped_N: Tensor | None = None


def policy_gradient(
    kernel: PolicyGradientKernel, *, logp_N: Tensor, old_logp_N: Tensor, advantage_N: Tensor
) -> TargetTerm:
    """max(-ratio A, -clip(ratio, 1 - clip_low, 1 + clip_high) A), for A < 0 at most -dual A where `dual` is
    set.

    ratio = exp(logp - old_logp). The value is what the formula says: a ratio that overflows with A < 0 and no
    dual clip is an infinite loss, for the trainer to stop on. A = 0 is zero whatever the ratio.
    """
    ratio_N = (logp_N - old_logp_N).exp()
    plain_N = torch.where(advantage_N == 0, 0.0, -ratio_N * advantage_N)
    clipped_N = -ratio_N.clamp(1 - kernel.clip_low, 1 + kernel.clip_high) * advantage_N
    value_N = torch.maximum(plain_N, clipped_N)
    flat_N = plain_N < clipped_N
    if kernel.dual is not None:
        bound_N = -kernel.dual * advantage_N
        bounded_N = (advantage_N < 0) & (value_N > bound_N)
        value_N = torch.where(bounded_N, bound_N, value_N)
        flat_N = flat_N | bounded_N
    return TargetTerm(value_N=value_N, slope_N=torch.where(flat_N, 0.0, plain_N), clipped_N=flat_N)


def clipped_importance(kernel: CispoKernel, *, logp_N: Tensor, old_logp_N: Tensor, advantage_N: Tensor) -> TargetTerm:
    """-stopgrad(min(ratio, 1 + high)) A logp, ratio = exp(logp - old_logp) (CISPO, arXiv 2506.13585).

    The gradient is not cut where the ratio is, only weighted less; `clipped_N` says where the bound holds.
    """
    ratio_N = (logp_N - old_logp_N).exp()
    slope_N = -ratio_N.clamp(max=1 + kernel.high) * advantage_N
    return TargetTerm(value_N=slope_N * logp_N, slope_N=slope_N, clipped_N=ratio_N > 1 + kernel.high)


def negative_log_likelihood(*, logp_N: Tensor) -> TargetTerm:
    """-logp."""
    return TargetTerm(value_N=-logp_N, slope_N=torch.full_like(logp_N, -1.0))


def log_mixture_ratios(log_ratio: Tensor, teacher_share: float) -> tuple[Tensor, Tensor]:
    """(log(mix / student), log(mix / teacher)) with mix = share teacher + (1 - share) student; both 0 at
    log_ratio 0.

    Written around the smaller share, so that nothing cancels however close to 0 or 1 the share is.
    """
    if teacher_share <= 0.5:
        over_student = _log_one_plus_share(log_ratio, teacher_share)
        return over_student, over_student - log_ratio
    over_teacher = _log_one_plus_share(-log_ratio, 1.0 - teacher_share)
    return over_teacher + log_ratio, over_teacher


def _log_one_plus_share(x: Tensor, share: float) -> Tensor:
    """log(1 + share (e^x - 1)) for share <= 1/2, for any x: past _EXP_LIMIT the function is linear."""
    if not x.is_cuda and x.numel() and x.amax() <= _EXP_LIMIT:  # three passes less; a GPU would have to be waited for
        return x.expm1().mul_(share).log1p_()
    beyond = (x - _EXP_LIMIT).relu_()
    return x.clamp(max=_EXP_LIMIT).expm1_().mul_(share).log1p_().add_(beyond)


def mixture_share(kernel: DivergenceKernel) -> float:
    """The teacher's share in the mixture of a jsd, skl or srkl kernel."""
    assert kernel.parameter is not None
    return 1.0 - kernel.parameter if kernel.kind is DivergenceKind.SRKL else kernel.parameter


def mixture_slope(kernel: DivergenceKernel, log_ratio_Nv: Tensor) -> Tensor:
    """g of a jsd, skl or srkl kernel by the table above, [N, v]."""
    over_student_Nv, over_teacher_Nv = log_mixture_ratios(log_ratio_Nv, mixture_share(kernel))
    return _mixture_slope(kernel, over_student_Nv, over_teacher_Nv)


def _mixture_slope(kernel: DivergenceKernel, over_student_Nv: Tensor, over_teacher_Nv: Tensor) -> Tensor:
    assert kernel.parameter is not None
    match kernel.kind:
        case DivergenceKind.JSD:
            return over_student_Nv * (kernel.parameter - 1.0)
        case DivergenceKind.SKL:
            return (-over_teacher_Nv).expm1_().mul_(kernel.parameter - 1.0)
        case DivergenceKind.SRKL:
            return (-over_student_Nv).expm1_().mul_(-kernel.parameter).sub_(over_student_Nv)
        case _:
            raise AssertionError(kernel.kind)


def mixture_statistics(
    kernel: DivergenceKernel, *, student_logp_Nv: Tensor, teacher_logp_Nv: Tensor, slope_out_Nv: Tensor | None = None
) -> Tensor:
    """This rank's columns' part of the value and of E_student[g], [N, 2]; log-probs are over the whole
    vocabulary. g itself is left in `slope_out_Nv` where given."""
    log_ratio_Nv = teacher_logp_Nv - student_logp_Nv
    over_student_Nv, over_teacher_Nv = log_mixture_ratios(log_ratio_Nv, mixture_share(kernel))
    student_Nv = student_logp_Nv.exp()
    kl_student_mix_N = -torch.linalg.vecdot(student_Nv, over_student_Nv)
    if kernel.kind is DivergenceKind.SRKL:
        value_N = kl_student_mix_N
    else:
        kl_teacher_mix_N = -torch.linalg.vecdot(teacher_logp_Nv.exp(), over_teacher_Nv)
        if kernel.kind is DivergenceKind.SKL:
            value_N = kl_teacher_mix_N
        else:
            assert kernel.parameter is not None
            value_N = kernel.parameter * kl_teacher_mix_N + (1.0 - kernel.parameter) * kl_student_mix_N
    slope_Nv = _mixture_slope(kernel, over_student_Nv, over_teacher_Nv)
    if slope_out_Nv is not None:
        slope_out_Nv.copy_(slope_Nv)
    mean_slope_N = torch.linalg.vecdot(student_Nv, slope_Nv)
    return torch.stack((value_N, mean_slope_N), dim=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EntropyTerm:
    """weight times -H at every row."""

    weight_N: Tensor
    entropy_N: Tensor

    def at(self, rows: slice) -> EntropyTerm:
        return EntropyTerm(weight_N=self.weight_N[rows], entropy_N=self.entropy_N[rows])

    def logit_gradient(
        self, student_Nv: Tensor, student_logp_Nv: Tensor, teacher_logp_Nv: Mapping[str, Tensor]
    ) -> Tensor:
        """weight student (log student + H), [N, v]."""
        return (student_logp_Nv + self.entropy_N[:, None]).mul_(student_Nv).mul_(self.weight_N[:, None])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DivergenceTerm:
    """weight times a divergence at every row; mean_slope_N = E_student[g], which fkl does not use.

    slope_held: the teacher's log-probs have become g.
    """

    kernel: DivergenceKernel
    weight_N: Tensor
    mean_slope_N: Tensor
    slope_held: bool = False

    def at(self, rows: slice) -> DivergenceTerm:
        return replace(self, weight_N=self.weight_N[rows], mean_slope_N=self.mean_slope_N[rows])

    def logit_gradient(
        self, student_Nv: Tensor, student_logp_Nv: Tensor, teacher_logp_Nv: Mapping[str, Tensor]
    ) -> Tensor:
        """weight student (g - E_student[g]), [N, v]; for fkl weight (student - teacher)."""
        logp_Nv = teacher_logp_Nv[self.kernel.teacher]
        if self.kernel.kind is DivergenceKind.FKL:
            return (student_Nv - logp_Nv.exp()).mul_(self.weight_N[:, None])
        if self.kernel.kind is DivergenceKind.RKL:
            slope_Nv = student_logp_Nv - logp_Nv
        elif self.slope_held:
            slope_Nv = logp_Nv
        else:
            slope_Nv = mixture_slope(self.kernel, logp_Nv - student_logp_Nv)
        return slope_Nv.sub_(self.mean_slope_N[:, None]).mul_(student_Nv).mul_(self.weight_N[:, None])


def logit_gradient_(
    student_logp_Nv: Tensor,
    teacher_logp_Nv: Mapping[str, Tensor],
    *,
    target_slope_N: Tensor,
    terms: Sequence[EntropyTerm | DivergenceTerm],
) -> None:
    """Overwrite the student's log-probs with d loss / d logits, but for the target's own column.

    target_slope_N = d loss / d logp of the sampled token, whose gradient is target_slope (onehot - student);
    the onehot is the caller's, who knows which rank owns it.
    """
    student_Nv = student_logp_Nv.exp()
    gradients = [term.logit_gradient(student_Nv, student_logp_Nv, teacher_logp_Nv) for term in terms]
    torch.mul(student_Nv, -target_slope_N[:, None], out=student_logp_Nv)
    for gradient_Nv in gradients:
        student_logp_Nv += gradient_Nv
