"""The routed loss over logits that an engine hands out: the same kernels, with the gradient to the logits.

Legend: T response tokens of the micro-batch, V vocabulary, v = V_padded / tp (this rank's shard), C channels, R rows
of a teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron_bridge.losses import gemm
from megatron_bridge.losses.call import NO_POLICIES, sweep_inputs
from megatron_bridge.losses.inputs import SweepInputs
from megatron_bridge.losses.results import RoutedLoss
from megatron_bridge.losses.student import GivenStudent
from megatron_bridge.losses.sweep import sweep
from megatron_bridge.losses.teacher import GivenTeacherRows, TeacherLogits
from trace_dsl.lowering.fused import FusedRouting


class _RoutedLogits(torch.autograd.Function):
    """The sweep computes the gradient in the forward; the backward only scales it."""

    @staticmethod
    def forward(ctx: Any, logits_Tv: Tensor, inputs: SweepInputs) -> tuple[Tensor, ...]:
        totals = sweep(inputs)
        assert isinstance(inputs.student, GivenStudent)
        ctx.save_for_backward(inputs.student.gradient_Tv)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*totals.tensors)
        return totals.loss_C.sum().to(inputs.student.dtype), *totals.tensors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor | None, *_: None) -> tuple[Tensor | None, None]:
        (gradient_Tv,) = ctx.saved_tensors
        if loss_gradient is None or gradient_Tv is None:
            return None, None
        return gradient_Tv * loss_gradient.to(gradient_Tv.dtype), None


def routed_logits_loss(
    student_logits_Tv: Tensor,
    *,
    target_T: Tensor,
    old_logp_T: Tensor | None,
    routing: FusedRouting,
    teacher_logits: Mapping[str, TeacherLogits] | None = None,
    proximal_logp_T: Tensor | None = None,
    reference_logp: Mapping[str, Tensor] = NO_POLICIES,
    temperature: float = 1.0,
    vocab_size: int | None = None,
    tp_group: dist.ProcessGroup | None = None,
    chunk_rows: int | None = None,
    evaluate_all: bool = False,
) -> RoutedLoss:
    """sum_c sum_t weight[c, t] kernel_c[t], with its gradient to the logits.

    For engines that give logits and not hidden rows; everything else is as in `routed_linear_loss`, which needs no
    [T, v] tensor and should be taken where it can be. Row t of `student_logits_Tv`, before any temperature, predicts
    `target_T[t]`; rank i of `tp_group` holds columns i v .. (i + 1) v of the padded vocabulary. `teacher_logits` are
    constants, on the rows that need them.

    Precision: statistics and gradient are computed in float32 (float64 for float64), and the gradient is returned in
    the logits' dtype. bfloat16 logits are taken as they are: close teachers lose most of their gradient in them.

    Memory: the gradient [T, v], and chunks of float32 logits as there.

    Collectives over `tp_group`, forward: the all-gathers of `routed_linear_loss`; no all-reduce, the gradient of a
    rank's columns is its own. Backward: none.

    Raises as `routed_linear_loss`.
    """
    if student_logits_Tv.dim() != 2 or len(student_logits_Tv) != target_T.shape[0]:
        raise ValueError(
            f"student_logits_Tv is {tuple(student_logits_Tv.shape)}: expected [{target_T.shape[0]}, vocabulary shard] "
            f"for {target_T.shape[0]} targets"
        )
    logits_Tv = student_logits_Tv.detach()
    wanted = torch.is_grad_enabled() and student_logits_Tv.requires_grad

    def student(columns: int) -> GivenStudent:
        return GivenStudent(
            logits_Tv=logits_Tv,
            columns=columns,
            temperature=temperature,
            dtype=gemm.compute_dtype(logits_Tv.dtype, "logits"),
            gradient_Tv=torch.zeros_like(logits_Tv) if wanted else None,
        )

    inputs = sweep_inputs(
        student,
        GivenTeacherRows.of,
        teacher_logits or {},
        shard=logits_Tv.shape[1],
        target_T=target_T,
        old_logp_T=old_logp_T,
        proximal_logp_T=proximal_logp_T,
        reference_logp=reference_logp,
        routing=routing,
        temperature=temperature,
        vocab_size=vocab_size,
        tp_group=tp_group,
        chunk_rows=chunk_rows,
        evaluate_all=evaluate_all,
    )
    return RoutedLoss.of(_RoutedLogits.apply(student_logits_Tv, inputs))
