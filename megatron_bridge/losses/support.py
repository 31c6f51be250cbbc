"""Divergences on the k likeliest tokens of one side.

The support and the classes that a divergence compares:

    bucket    the k tokens, and one class that holds the mass of all others
    drop      the k tokens alone: a sum that is no divergence, which can be negative and whose gradient is not zero
              where teacher and student agree; so is a support without a `tail`
    renorm    the k tokens, each side divided by its mass on them

Equal logits are taken in the order of their token ids, whatever the ranks. No gradient flows through the choice; it
flows through the student's log-probs, the mass of its tail included. With p the student's mass of a class and g the
slope of `kernels` by class, d value / d log p_k = p_k g_k, and the gradient of a class's logit is

    G_k = p_k g_k - p_k sum_j p_j g_j

G_tail is shared out among the tokens outside as the student shares out its tail; with renorm they get none.

`drop` is `bucket` with a tail whose term is held constant. The tail's mass is summed over the tokens outside, never
taken as one minus the rest.

Legend: N rows of a chunk, v columns of the vocabulary on this rank, r ranks, S tokens of a support, K packed numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_bridge.losses.kernels import derivative_at_agreement, divergence_terms
from trace_dsl.lowering.fused import DivergenceKernel
from trace_dsl.model import SupportOf, Tail

MAX_VOCABULARY = 1 << 24  # token ids travel as float32
_LOG_NOTHING = -1e30  # stands for log 0, so that 0 log(0/0) is 0


@dataclass(frozen=True, slots=True)
class SupportChoice:
    """Whose `size` likeliest tokens: the student's for teacher None. Kernels with an equal choice share it."""

    teacher: str | None
    size: int

    @classmethod
    def of(cls, kernel: DivergenceKernel, vocabulary: int) -> SupportChoice:
        """The choice of a kernel with a top_k; a k beyond the vocabulary is all of it."""
        assert kernel.top_k is not None
        teacher = kernel.teacher if kernel.top_k.of is SupportOf.TEACHER else None
        return cls(teacher=teacher, size=min(kernel.top_k.k, vocabulary))


def likeliest_columns(logits_Nv: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The `size` largest logits of each row and their columns, equal ones by column, in descending order.

    torch.topk gives the right values; which of several equal ones at the edge it takes is not defined, so rows where
    the edge is tied are sorted.
    """
    rows, columns = logits_Nv.shape
    size = min(size, columns)
    if size == 0:
        return logits_Nv[:, :0], torch.zeros(rows, 0, dtype=torch.int64, device=logits_Nv.device)
    value_NS, column_NS = logits_Nv.topk(min(size + 1, columns), dim=1)
    if size < columns:
        tied = (value_NS[:, size - 1] == value_NS[:, size]).nonzero()[:, 0]
        value_NS, column_NS = value_NS[:, :size].contiguous(), column_NS[:, :size].contiguous()
        if len(tied):
            value, column = logits_Nv[tied].sort(dim=1, descending=True, stable=True)
            value_NS[tied], column_NS[tied] = value[:, :size], column[:, :size]
    column_NS, order = column_NS.sort(dim=1)
    value_NS, best = value_NS.gather(1, order).sort(dim=1, descending=True, stable=True)
    return value_NS, column_NS.gather(1, best)


def candidates(logits_Nv: Tensor, size: int, first_column: int) -> Tensor:
    """This rank's likeliest tokens, [N, 2 size]: logits, then token ids; minus infinity where it has fewer columns."""
    value_NS, column_NS = likeliest_columns(logits_Nv, size)
    packed_NK = logits_Nv.new_zeros(len(logits_Nv), 2 * size)
    packed_NK[:, :size] = -torch.inf
    packed_NK[:, : value_NS.shape[1]] = value_NS
    packed_NK[:, size : size + value_NS.shape[1]] = column_NS + first_column
    return packed_NK


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Support:
    """The chosen tokens of a chunk's rows: column_NS on this rank, where owned_NS says that it has them."""

    column_NS: Tensor
    owned_NS: Tensor

    @classmethod
    def of(cls, candidates_rNK: Tensor, *, first_column: int, columns: int) -> Support:
        """The likeliest of every rank's candidates. Ranks hold ascending ids, so a stable sort keeps their order."""
        value_rNS, token_rNS = candidates_rNK.chunk(2, dim=2)
        size = value_rNS.shape[2]
        value_NK, token_NK = (part.transpose(0, 1).flatten(1) for part in (value_rNS, token_rNS))
        best = value_NK.sort(dim=1, descending=True, stable=True).indices[:, :size]
        column_NS = token_NK.gather(1, best).long() - first_column
        return cls(column_NS=column_NS, owned_NS=(column_NS >= 0) & (column_NS < columns))

    def at(self, rows: slice) -> Support:
        return Support(column_NS=self.column_NS[rows], owned_NS=self.owned_NS[rows])

    def log_probs_(self, logp_Nv: Tensor) -> Tensor:
        """This rank's part, [N, S + 1]: log-probs of its tokens of the support, 0 at the others', and of its tail.

        `logp_Nv` is used up.
        """
        rows, columns = logp_Nv.shape
        size = self.column_NS.shape[1]
        packed_NK = logp_Nv.new_zeros(rows, size + 1)
        if columns == 0:
            packed_NK[:, size] = -torch.inf
            return packed_NK
        row, slot = self.owned_NS.nonzero(as_tuple=True)
        column = self.column_NS[row, slot]
        packed_NK[row, slot] = logp_Nv[row, column]
        logp_Nv[row, column] = -torch.inf
        packed_NK[:, size] = logp_Nv.logsumexp(dim=1)
        return packed_NK


def class_log_probs(gathered_rNK: Tensor) -> Tensor:
    """Log-probs of the support's tokens and of the tail, [N, S + 1], out of every rank's `Support.log_probs_`."""
    tail_N = gathered_rNK[:, :, -1].logsumexp(dim=0)
    tail_N = torch.where(tail_N == -torch.inf, _LOG_NOTHING, tail_N)
    return torch.cat((gathered_rNK[:, :, :-1].sum(dim=0), tail_N[:, None]), dim=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SupportTerm:
    """weight times a divergence on a support: gradient_NS at its tokens; off it, tail_gradient_N is shared out as the
    student shares out its tail, whose log-prob is tail_logp_N."""

    support: Support
    gradient_NS: Tensor
    tail_gradient_N: Tensor
    tail_logp_N: Tensor

    def at(self, rows: slice) -> SupportTerm:
        return SupportTerm(
            support=self.support.at(rows),
            gradient_NS=self.gradient_NS[rows],
            tail_gradient_N=self.tail_gradient_N[rows],
            tail_logp_N=self.tail_logp_N[rows],
        )

    def logit_gradient(
        self, student_Nv: Tensor, student_logp_Nv: Tensor, teacher_logp_Nv: Mapping[str, Tensor]
    ) -> Tensor:
        """G on the support, G_tail student_i / p_tail off it, times the weight: [N, v]."""
        share_Nv = (student_logp_Nv - self.tail_logp_N[:, None]).exp_()
        gradient_Nv = share_Nv.mul_(self.tail_gradient_N[:, None])
        row, slot = self.support.owned_NS.nonzero(as_tuple=True)
        gradient_Nv[row, self.support.column_NS[row, slot]] = self.gradient_NS[row, slot]
        return gradient_Nv


def evaluate_support(
    kernel: DivergenceKernel,
    support: Support,
    *,
    student_logp_NK: Tensor,
    teacher_logp_NK: Tensor,
    weight_N: Tensor,
) -> tuple[Tensor, SupportTerm]:
    """Value [N] and gradient of a divergence, out of `class_log_probs` of both sides; the same on every rank."""
    assert kernel.top_k is not None
    tail = kernel.top_k.tail
    if tail is Tail.RENORM:
        student_logp_NK, teacher_logp_NK = (
            logp_NK[:, :-1].log_softmax(dim=1) for logp_NK in (student_logp_NK, teacher_logp_NK)
        )
    value_NK, slope_NK = divergence_terms(kernel, student_logp_Nv=student_logp_NK, teacher_logp_Nv=teacher_logp_NK)
    student_NK = student_logp_NK.exp()
    if tail is Tail.DROP or tail is None:
        constant_N1 = -derivative_at_agreement(kernel) * student_NK[:, -1:]
        value_NK, slope_NK = value_NK[:, :-1], torch.cat((slope_NK[:, :-1], constant_N1), dim=1)
    total_N1 = slope_NK.sum(dim=1, keepdim=True)
    gradient_NK = torch.addcmul(slope_NK, student_NK, total_N1, value=-1).mul_(weight_N[:, None])
    zeros_N = torch.zeros_like(weight_N)
    term = SupportTerm(
        support=support,
        gradient_NS=gradient_NK if tail is Tail.RENORM else gradient_NK[:, :-1],
        tail_gradient_N=zeros_N if tail is Tail.RENORM else gradient_NK[:, -1],
        tail_logp_N=zeros_N if tail is Tail.RENORM else student_logp_NK[:, -1],
    )
    return value_NK.sum(dim=1), term
