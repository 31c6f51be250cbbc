"""The routed loss at the output layer: every channel's kernel at every token it is routed to, fused with the
logits.

Legend: T response tokens of the micro-batch, H hidden, V vocabulary, v = V_padded / tp (this rank's shard), C
channels, R rows of a teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron_bridge.losses.call import NO_POLICIES, sweep_inputs
from megatron_bridge.losses.inputs import SweepInputs
from megatron_bridge.losses.megatron_gradients import (
    add_to_main_grad,
    check_main_grad,
    gather_sequence,
    reduce_scatter_sequence,
)
from megatron_bridge.losses.results import RoutedLoss
from megatron_bridge.losses.student import LinearStudent
from megatron_bridge.losses.sweep import sweep
from megatron_bridge.losses.teacher import HiddenTeacherRows, TeacherHidden
from trace_dsl.lowering.fused import FusedRouting

_NO_TEACHERS: Mapping[str, TeacherHidden] = MappingProxyType({})


class _RoutedLinear(torch.autograd.Function):
    """The sweep computes the gradients in the forward; the backward only scales them, or adds them to main_grad."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: Tensor,
        output_weight_vH: Tensor,
        inputs: SweepInputs,
        sequence_parallel: bool,
        gradient_accumulation_fusion: bool,
    ) -> tuple[Tensor, ...]:
        totals = sweep(inputs)
        student = inputs.student
        assert isinstance(student, LinearStudent)
        student.finish()
        hidden_gradient, weight_gradient = student.hidden_gradient_TH, student.weight_gradient_vH
        if hidden_gradient is not None:
            hidden_gradient = _reduced(hidden_gradient, inputs, sequence_parallel).to(hidden_TH.dtype)
        ctx.fused_weight = output_weight_vH if gradient_accumulation_fusion else None
        if weight_gradient is not None and not gradient_accumulation_fusion:
            weight_gradient = weight_gradient.to(output_weight_vH.dtype)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*totals.tensors)
        return totals.loss_C.sum().to(student.dtype), *totals.tensors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if loss_gradient is None:
            return (None,) * 5
        hidden_TH, weight_vH = ctx.saved_tensors
        unit = not loss_gradient.is_cuda and loss_gradient == 1  # a GPU's number is not worth waiting for
        if hidden_TH is not None and not unit:
            hidden_TH = hidden_TH * loss_gradient.to(hidden_TH.dtype)
        if weight_vH is None:
            return hidden_TH, None, None, None, None
        if ctx.fused_weight is not None:
            weight_vH = add_to_main_grad(ctx.fused_weight, weight_vH, loss_gradient)
        elif not unit:
            weight_vH = weight_vH * loss_gradient.to(weight_vH.dtype)
        return hidden_TH, weight_vH, None, None, None


def _reduced(gradient_TH: Tensor, inputs: SweepInputs, sequence_parallel: bool) -> Tensor:
    """The hidden gradient summed over tp: whole, or at this rank's rows."""
    group = inputs.tp_group
    if group is None:
        return gradient_TH
    if sequence_parallel:
        if not inputs.has_weight:
            return gradient_TH[: len(gradient_TH) // group.size()]
        return reduce_scatter_sequence(gradient_TH, group)
    if inputs.has_weight:
        dist.all_reduce(gradient_TH, group=group)
    return gradient_TH


def routed_linear_loss(
    hidden_TH: Tensor,
    output_weight_vH: Tensor,
    *,
    target_T: Tensor,
    old_logp_T: Tensor | None,
    routing: FusedRouting,
    teacher_hidden: Mapping[str, TeacherHidden] = _NO_TEACHERS,
    proximal_logp_T: Tensor | None = None,
    reference_logp: Mapping[str, Tensor] = NO_POLICIES,
    temperature: float = 1.0,
    vocab_size: int | None = None,
    tp_group: dist.ProcessGroup | None = None,
    chunk_rows: int | None = None,
    evaluate_all: bool = False,
    sequence_parallel: bool = False,
    gradient_accumulation_fusion: bool = False,
) -> RoutedLoss:
    """sum_c sum_t weight[c, t] kernel_c[t], with its gradient to the hidden rows and the output weight.

    Row t of `hidden_TH` predicts `target_T[t]` (global token ids); logits = hidden @ weight^T / temperature,
    for teachers too. The kernels' formulas stand in `megatron_bridge.losses.sampled`, `kernels` (divergences) and
    `support` (top-k). Weights, advantages, other policies' log-probs and teachers are constants. Nothing is averaged
    here: denominators are inside the weights, so calls over any cut of the tokens add up. Values are in nats.

    A divergence with a `temperature` of its own divides student's and teacher's logits by it in place of the call's;
    nothing is multiplied by its square.

    A sequence-level ratio is a mean over a whole response, so its tokens (`row_of_T`) must all be in one call; where
    the routing has `written_T`, a response that is cut is refused.

    output_weight_vH: rank i of `tp_group` holds rows i v .. (i + 1) v of the padded weight; columns from
    `vocab_size` on are padding: they belong to no softmax and get a zero gradient. Log-probs of the targets under other
    policies, each [T] and allowed to hold NaN where nothing reads them: `old_logp_T`, the policy that wrote the
    rollouts, for policy gradients and k3(to=old); `proximal_logp_T`, the policy before its updates as the trainer
    computes it, for `tis`; `reference_logp`, by name, for k3. Rows without weight cost nothing and get a gradient of
    exactly zero; `evaluate_all` evaluates their log-prob and entropy all the same. Without a gradient to compute
    (no_grad, or nothing requires one) only values are computed.

    sequence_parallel: `hidden_TH` holds this rank's T / tp rows alone, rank after rank of `tp_group`; everything else
    is still for all T tokens. The rows are gathered once, and their gradient comes back cut the same way.
    gradient_accumulation_fusion: the weight's gradient is added to `output_weight_vH.main_grad` in the backward,
    without being rounded to the weight's dtype, as Megatron's output layer does it; it must be the parameter itself.

    Precision: operands float32 or bfloat16; logits, statistics and the accumulated gradients are float32, the
    loss is summed in float64 and returned in float32. (float64 operands: float64 throughout.) Where a teacher
    is the student itself, its divergence gradient is exactly zero (a dropped tail excepted, which has none that is).
    Nothing is clamped: a loss that overflows is returned so.

    Memory: [chunk_rows, v] float32 for the student and for each teacher of a chunk, once more for each other
    temperature of its kernels, plus the two gradients, which wait for the backward: the hidden one in the operands'
    dtype, the weight's too, or in float32 where it is added to main_grad.

    Collectives over `tp_group`, forward: one all-gather of packed statistics a chunk, one more a chunk with a jsd, skl
    or srkl kernel, a pointwise clip or a top-k support, one all-reduce of the hidden gradient; for sequence-level
    ratios, one all-gather a chunk of the tokens of their responses; with `sequence_parallel`, one all-gather of the
    hidden rows, and a reduce-scatter in place of the all-reduce. Backward: none. All tp ranks must pass the
    same routing, targets, log-probs, `chunk_rows` and requires_grad, so that they issue the same ones;
    other ranks are free. The gradient of `hidden_TH` is complete on every tp rank: what produced it must not
    reduce it over tp again (`sequence_parallel`: it is complete at the rank's own rows).

    Raises ValueError for shapes that disagree, targets outside the vocabulary at a routed row, a missing
    teacher, teacher row or policy, a response that is cut, an option of a kernel outside its range; TypeError for
    dtypes.

    Sources: fused linear cross-entropy (Liger-Kernel, arXiv 2410.10989), cut to vocabulary shards.
    """
    if hidden_TH.dtype != output_weight_vH.dtype:
        raise TypeError(
            f"hidden rows are {hidden_TH.dtype}, the output weight {output_weight_vH.dtype}: expected equal"
        )
    world = tp_group.size() if tp_group is not None and sequence_parallel else 1
    tokens = target_T.shape[0]
    if tokens % world:
        raise ValueError(f"{tokens} targets do not divide over {world} ranks: sequence_parallel needs equal shards")
    if hidden_TH.shape != (tokens // world, output_weight_vH.shape[1]):
        raise ValueError(
            f"hidden_TH is {tuple(hidden_TH.shape)}: expected {(tokens // world, output_weight_vH.shape[1])} for "
            f"{tokens} targets" + (f" on {world} ranks" if world > 1 else "")
        )
    wants = tuple(torch.is_grad_enabled() and tensor.requires_grad for tensor in (hidden_TH, output_weight_vH))

    if gradient_accumulation_fusion and wants[1]:
        check_main_grad(output_weight_vH)

    def student(columns: int) -> LinearStudent:
        rows_TH = hidden_TH.detach()
        if world > 1:
            assert tp_group is not None
            rows_TH = gather_sequence(rows_TH, tp_group)
        return LinearStudent.of(
            rows_TH, output_weight_vH.detach(), columns=columns, temperature=temperature, wants=wants
        )

    inputs = sweep_inputs(
        student,
        HiddenTeacherRows.of,
        teacher_hidden,
        shard=output_weight_vH.shape[0],
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
    return RoutedLoss.of(
        _RoutedLinear.apply(hidden_TH, output_weight_vH, inputs, sequence_parallel, gradient_accumulation_fusion)
    )
