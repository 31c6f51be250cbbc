"""The formulas of the divergences: values from statistics, and gradients with respect to the logits.

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

With a pointwise clip each term of the sum over the vocabulary is at most `pclip` (a jsd's term is the weighted sum of
its two), and a clipped term is constant. The constant that was chosen above then matters: g is the one of the table
where a term is not clipped, and minus that constant where it is.

Sources: generalised JSD as in GKD (arXiv 2306.13649, section 2); skewed divergences as in DistiLLM (arXiv
2402.03898); the clip of each term as in OPSD (arXiv 2601.18734).

Legend: N rows of a chunk, v columns of the vocabulary on this rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from trace_dsl.lowering.fused import DivergenceKernel
from trace_dsl.model import DivergenceKind

MIXTURES = frozenset({DivergenceKind.JSD, DivergenceKind.SKL, DivergenceKind.SRKL})
MIXTURE_COLUMNS = 2  # value and E_student[g] of this rank's columns

_EXP_LIMIT = 80.0  # exp(80) is finite in float32; beyond it, log(1 + s (e^x - 1)) = x + log s to the last bit


def log_mixture_ratios_(log_ratio: Tensor, teacher_share: float) -> tuple[Tensor, Tensor]:
    """(log(mix / student), log(mix / teacher)) with mix = share teacher + (1 - share) student; both 0 at
    log_ratio 0.

    Written around the smaller share, so that nothing cancels however close to 0 or 1 the share is. Uses up `log_ratio`.
    """
    if teacher_share <= 0.5:
        over_student = _log_one_plus_share(log_ratio, teacher_share)
        return over_student, torch.sub(over_student, log_ratio, out=log_ratio)
    over_teacher = _log_one_plus_share(-log_ratio, 1.0 - teacher_share)
    return log_ratio.add_(over_teacher), over_teacher


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
    over_student_Nv, over_teacher_Nv = log_mixture_ratios_(log_ratio_Nv, mixture_share(kernel))
    return _mixture_slope(kernel, over_student_Nv, over_teacher_Nv)


def _mixture_slope(
    kernel: DivergenceKernel, over_student_Nv: Tensor, over_teacher_Nv: Tensor, *, out_Nv: Tensor | None = None
) -> Tensor:
    assert kernel.parameter is not None
    match kernel.kind:
        case DivergenceKind.JSD:
            return torch.mul(over_student_Nv, kernel.parameter - 1.0, out=out_Nv)
        case DivergenceKind.SKL:
            return torch.neg(over_teacher_Nv, out=out_Nv).expm1_().mul_(kernel.parameter - 1.0)
        case DivergenceKind.SRKL:
            return torch.neg(over_student_Nv, out=out_Nv).expm1_().mul_(-kernel.parameter).sub_(over_student_Nv)
        case _:
            raise AssertionError(kernel.kind)


def needs_global_softmax(kernel: DivergenceKernel) -> bool:
    """Whether a full-vocabulary value is a sum over log-probs that are known after the first gather only."""
    return kernel.kind in MIXTURES or kernel.pclip is not None


def derivative_at_agreement(kernel: DivergenceKernel) -> float:
    """d term / d student where teacher and student agree: the constant that g leaves out."""
    match kernel.kind:
        case DivergenceKind.FKL:
            return -1.0
        case DivergenceKind.RKL:
            return 1.0
        case DivergenceKind.JSD:
            return 0.0
        case DivergenceKind.SKL:
            assert kernel.parameter is not None
            return kernel.parameter - 1.0
        case DivergenceKind.SRKL:
            assert kernel.parameter is not None
            return 1.0 - kernel.parameter


def divergence_terms(
    kernel: DivergenceKernel, *, student_logp_Nv: Tensor, teacher_logp_Nv: Tensor
) -> tuple[Tensor, Tensor]:
    """The terms of a divergence's sum, clipped where `pclip` is set, and student g, both [N, v]."""
    student_Nv, log_ratio_Nv = student_logp_Nv.exp(), teacher_logp_Nv - student_logp_Nv
    if kernel.kind is DivergenceKind.FKL:
        teacher_Nv = teacher_logp_Nv.exp()
        term_Nv, slope_Nv = teacher_Nv * log_ratio_Nv, student_Nv - teacher_Nv
    elif kernel.kind is DivergenceKind.RKL:
        term_Nv = slope_Nv = -student_Nv * log_ratio_Nv
    else:
        over_student_Nv, over_teacher_Nv = log_mixture_ratios_(log_ratio_Nv, mixture_share(kernel))
        slope_Nv = _mixture_slope(kernel, over_student_Nv, over_teacher_Nv) * student_Nv
        term_Nv = -student_Nv * over_student_Nv  # of KL(student || mix)
        if kernel.kind is not DivergenceKind.SRKL:
            kl_teacher_mix_Nv = -teacher_logp_Nv.exp() * over_teacher_Nv
            share = 1.0 if kernel.kind is DivergenceKind.SKL else mixture_share(kernel)
            term_Nv = share * kl_teacher_mix_Nv + (1.0 - share) * term_Nv
    if kernel.pclip is None:
        return term_Nv, slope_Nv
    slope_Nv = torch.where(term_Nv > kernel.pclip, -derivative_at_agreement(kernel) * student_Nv, slope_Nv)
    return term_Nv.clamp(max=kernel.pclip), slope_Nv


def mixture_statistics(
    kernel: DivergenceKernel, *, student_logp_Nv: Tensor, teacher_logp_Nv: Tensor, slope_out_Nv: Tensor | None = None
) -> Tensor:
    """This rank's columns' part of the value and of E_student[g], [N, 2], of a kernel that needs the global softmax.

    Uses up the log-probs. Without a pointwise clip, g itself is left in `slope_out_Nv` where given.
    """
    if kernel.pclip is not None:
        terms = divergence_terms(kernel, student_logp_Nv=student_logp_Nv, teacher_logp_Nv=teacher_logp_Nv)
        return torch.stack([part_Nv.sum(dim=1) for part_Nv in terms], dim=1)
    over_student_Nv, over_teacher_Nv = log_mixture_ratios_(teacher_logp_Nv - student_logp_Nv, mixture_share(kernel))
    student_Nv, teacher_Nv = student_logp_Nv.exp_(), teacher_logp_Nv.exp_()
    slope_Nv = _mixture_slope(kernel, over_student_Nv, over_teacher_Nv, out_Nv=slope_out_Nv)
    mean_slope_N = torch.linalg.vecdot(student_Nv, slope_Nv)
    match kernel.kind:
        case DivergenceKind.SRKL:
            value_N = -torch.linalg.vecdot(student_Nv, over_student_Nv)
        case DivergenceKind.SKL:
            value_N = -torch.linalg.vecdot(teacher_Nv, over_teacher_Nv)
        case _:  # (1 - b) KL(student || mix) is the mean slope
            assert kernel.parameter is not None
            value_N = mean_slope_N - kernel.parameter * torch.linalg.vecdot(teacher_Nv, over_teacher_Nv)
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClippedTerm:
    """weight times a divergence with a pointwise clip; mean_slope_N = E_student[g]."""

    kernel: DivergenceKernel
    weight_N: Tensor
    mean_slope_N: Tensor

    def at(self, rows: slice) -> ClippedTerm:
        return ClippedTerm(kernel=self.kernel, weight_N=self.weight_N[rows], mean_slope_N=self.mean_slope_N[rows])

    def logit_gradient(
        self, student_Nv: Tensor, student_logp_Nv: Tensor, teacher_logp_Nv: Mapping[str, Tensor]
    ) -> Tensor:
        """weight (student g - student E_student[g]), [N, v]."""
        _, slope_Nv = divergence_terms(
            self.kernel, student_logp_Nv=student_logp_Nv, teacher_logp_Nv=teacher_logp_Nv[self.kernel.teacher]
        )
        return torch.addcmul(slope_Nv, student_Nv, self.mean_slope_N[:, None], value=-1).mul_(self.weight_N[:, None])


class WideTerm(Protocol):
    """A kernel of the whole vocabulary with everything its gradient needs."""

    def at(self, rows: slice) -> WideTerm:
        """The same at some of the rows."""

    def logit_gradient(
        self, student_Nv: Tensor, student_logp_Nv: Tensor, teacher_logp_Nv: Mapping[str, Tensor]
    ) -> Tensor:
        """weight d value / d logits, [N, v]: a new tensor."""


def logit_gradient_(
    student_logp_Nv: Tensor,
    teacher_logp_Nv: Mapping[str, Tensor],
    *,
    target_slope_N: Tensor | None,
    terms: Sequence[WideTerm],
) -> Tensor:
    """Overwrite the student's log-probs with d loss / d logits, but for the target's own column.

    Returns the sum of each term's absolute gradients over the columns, [terms, N].

    target_slope_N = d loss / d logp of the sampled token, whose gradient is target_slope (onehot - student);
    the onehot is the caller's, who knows which rank owns it. None: no row has one.
    """
    student_Nv = student_logp_Nv.exp()
    gradients = [term.logit_gradient(student_Nv, student_logp_Nv, teacher_logp_Nv) for term in terms]
    norms = [torch.linalg.vector_norm(gradient_Nv, ord=1, dim=1) for gradient_Nv in gradients]
    if target_slope_N is not None or not gradients:
        slope_N1 = 0.0 if target_slope_N is None else -target_slope_N[:, None]
        torch.mul(student_Nv, slope_N1, out=student_logp_Nv)
    else:
        student_logp_Nv.copy_(gradients.pop(0))
    for gradient_Nv in gradients:
        student_logp_Nv += gradient_Nv
    return torch.stack(norms) if norms else student_Nv.new_zeros(0, len(student_Nv))
