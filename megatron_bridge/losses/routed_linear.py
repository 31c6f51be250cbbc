"""The routed loss at the output layer: every channel's kernel at every token it is routed to, fused with the
logits.

Legend: T response tokens of the micro-batch, H hidden, V vocabulary, v = V_padded / tp (this rank's shard), C
channels, R rows of a teacher.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, assert_never

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron_bridge.losses import gemm
from megatron_bridge.losses.kernels import MIXTURES
from megatron_bridge.losses.statistics import default_chunk_rows
from megatron_bridge.losses.sweep import SweepInputs, sweep
from megatron_bridge.losses.teacher import TeacherHidden, TeacherLogits
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
from trace_dsl.model import RatioLevel

_NO_TEACHERS: Mapping[str, TeacherHidden] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenStatistics:
    """Detached per-token numbers, the same on every tp rank. NaN means "not evaluated", never zero.

    logp_T: log-prob of the target; entropy_T: entropy of the student; both at rows with weight on some
    channel, or at all rows with `evaluate_all`. value_CT: each kernel's value where its channel has weight.
    clipped_T: a clip made the policy gradient zero there.
    """

    logp_T: Tensor
    entropy_T: Tensor
    value_CT: Tensor
    clipped_T: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoutedLoss:
    """loss: scalar with a gradient; loss_C: detached float64, what each channel adds to it."""

    loss: Tensor
    loss_C: Tensor
    stats: TokenStatistics


class _RoutedLinear(torch.autograd.Function):
    """The sweep computes the gradients in the forward; the backward only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden_TH: Tensor, output_weight_vH: Tensor, inputs: SweepInputs) -> tuple[Tensor, ...]:
        totals = sweep(inputs)
        gradients = (totals.hidden_gradient_TH, totals.weight_gradient_vH)
        ctx.save_for_backward(*(None if g is None else g.to(hidden_TH.dtype) for g in gradients))
        ctx.set_materialize_grads(False)
        statistics = (totals.loss_C, totals.logp_T, totals.entropy_T, totals.value_CT, totals.clipped_T)
        ctx.mark_non_differentiable(*statistics)
        return totals.loss_C.sum().to(gemm.compute_dtype(hidden_TH.dtype)), *statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor | None, *_: None) -> tuple[Tensor | None, Tensor | None, None]:
        gradients = ctx.saved_tensors
        if loss_gradient is None:
            return None, None, None
        if not loss_gradient.is_cuda and loss_gradient == 1:  # a GPU's number is not worth waiting for
            return *gradients, None
        hidden_TH, weight_vH = (None if g is None else g * loss_gradient.to(g.dtype) for g in gradients)
        return hidden_TH, weight_vH, None


def routed_linear_loss(
    hidden_TH: Tensor,
    output_weight_vH: Tensor,
    *,
    target_T: Tensor,
    old_logp_T: Tensor | None,
    routing: FusedRouting,
    teacher_hidden: Mapping[str, TeacherHidden] = _NO_TEACHERS,
    temperature: float = 1.0,
    vocab_size: int | None = None,
    tp_group: dist.ProcessGroup | None = None,
    chunk_rows: int | None = None,
    evaluate_all: bool = False,
) -> RoutedLoss:
    """sum_c sum_t weight[c, t] kernel_c[t], with its gradient to the hidden rows and the output weight.

    Row t of `hidden_TH` predicts `target_T[t]` (global token ids); logits = hidden @ weight^T / temperature,
    for teachers too. The kernels' formulas stand in `megatron_bridge.losses.kernels`;
    `trace_dsl.lowering.fused` says which a routing may hold. Weights, advantages, `old_logp_T` and teachers
    are constants. Nothing is averaged here: denominators are inside the weights, so calls over any cut of the
    tokens add up. Values are in nats.

    output_weight_vH: rank i of `tp_group` holds rows i v .. (i + 1) v of the padded weight; columns from
    `vocab_size` on are padding: they belong to no softmax and get a zero gradient. `old_logp_T` may be None
    without a policy gradient, and may hold NaN where no policy gradient is routed. Rows without weight cost
    nothing and get a gradient of exactly zero; `evaluate_all` evaluates their log-prob and entropy all the
    same. Without a gradient to compute (no_grad, or nothing requires one) only values are computed.

    Precision: operands float32 or bfloat16; logits, statistics and the accumulated gradients are float32, the
    loss is summed in float64 and returned in float32. (float64 operands: float64 throughout.) Where a teacher
    is the student itself, its divergence gradient is exactly zero. Nothing is clamped: a loss that overflows
    is returned so.

    Memory: [chunk_rows, v] float32 for the student and for each teacher of a chunk, plus the two gradients.
    `chunk_rows` None is `statistics.default_chunk_rows`, by device and v.

    Collectives over `tp_group`, forward: one all-gather of packed statistics a chunk, one more a chunk with a
    jsd, skl or srkl kernel, one all-reduce of the hidden gradient. Backward: none. All tp ranks must pass the
    same routing, targets, old log-probs, `chunk_rows` and requires_grad, so that they issue the same ones;
    other ranks are free. The gradient of `hidden_TH` is complete on every tp rank: what produced it must not
    reduce it over tp again.

    Raises ValueError for shapes that disagree, targets outside the vocabulary at a routed row, a missing
    teacher or teacher row, a divergence parameter outside (0, 1); TypeError for dtypes; NotImplementedError,
    naming it, for what this loss does not compute yet: sequence-level ratios, mixed anchors, truncated importance
    sampling, top-k supports, pointwise clips, a temperature other than the call's, k3.

    Sources: fused linear cross-entropy (Liger-Kernel, arXiv 2410.10989), cut to vocabulary shards.
    """
    world, rank = (1, 0) if tp_group is None else (tp_group.size(), tp_group.rank())
    shard = output_weight_vH.shape[0]
    true_size = shard * world if vocab_size is None else vocab_size
    _check(
        hidden_TH,
        output_weight_vH,
        target_T,
        old_logp_T,
        routing,
        temperature,
        true_size,
        shard * world,
        chunk_rows,
    )
    dtype = gemm.compute_dtype(hidden_TH.dtype)
    columns = min(max(true_size - rank * shard, 0), shard)
    names = dict.fromkeys(
        kernel.teacher
        for kernel, weight_T in zip(routing.kernels, routing.weight_CT, strict=True)
        if isinstance(kernel, DivergenceKernel) and bool((weight_T != 0).any())
    )
    for name in names:
        if name not in teacher_hidden:
            raise ValueError(f"no hidden rows of teacher {name!r}: given are {sorted(teacher_hidden) or 'none'}")
    default_rows = default_chunk_rows(target_T.numel(), shard, hidden_TH.device.type)
    inputs = SweepInputs(
        hidden_TH=hidden_TH.detach(),
        output_weight_vH=output_weight_vH.detach(),
        target_T=target_T,
        old_logp_T=None if old_logp_T is None else old_logp_T.detach(),
        routing=routing,
        teachers={
            name: TeacherLogits.of(
                name,
                teacher_hidden[name],
                routing=routing,
                shard=shard,
                columns=columns,
                temperature=temperature,
                dtype=dtype,
            )
            for name in names
        },
        temperature=temperature,
        shard=shard,
        columns=columns,
        tp_group=tp_group if world > 1 else None,
        chunk_rows=default_rows if chunk_rows is None else chunk_rows,
        evaluate_all=evaluate_all,
        hidden_gradient=torch.is_grad_enabled() and hidden_TH.requires_grad,
        weight_gradient=torch.is_grad_enabled() and output_weight_vH.requires_grad,
    )
    loss, loss_C, logp_T, entropy_T, value_CT, clipped_T = _RoutedLinear.apply(hidden_TH, output_weight_vH, inputs)
    stats = TokenStatistics(logp_T=logp_T, entropy_T=entropy_T, value_CT=value_CT, clipped_T=clipped_T)
    return RoutedLoss(loss=loss, loss_C=loss_C, stats=stats)


def _check(
    hidden_TH: Tensor,
    output_weight_vH: Tensor,
    target_T: Tensor,
    old_logp_T: Tensor | None,
    routing: FusedRouting,
    temperature: float,
    true_size: int,
    padded_size: int,
    chunk_rows: int | None,
) -> None:
    if hidden_TH.dtype != output_weight_vH.dtype:
        raise TypeError(
            f"hidden rows are {hidden_TH.dtype}, the output weight {output_weight_vH.dtype}: expected equal"
        )
    if not routing.weight_CT.is_floating_point():
        raise TypeError(f"weight_CT is {routing.weight_CT.dtype}: expected a floating dtype, weights are not masks")
    tokens, channels = target_T.shape[0], len(routing.kernels)
    expected = {
        "hidden_TH": (hidden_TH, (tokens, output_weight_vH.shape[1])),
        "weight_CT": (routing.weight_CT, (channels, tokens)),
        "advantage_CT": (routing.advantage_CT, (channels, tokens)),
        "row_of_T": (routing.row_of_T, (tokens,)),
    }
    if old_logp_T is not None:
        expected["old_logp_T"] = (old_logp_T, (tokens,))
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}: expected {shape} for {tokens} targets")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}: expected a finite number above 0")
    if not 0 < true_size <= padded_size:
        raise ValueError(f"vocab_size is {true_size}: expected 1 to {padded_size}, the padded vocabulary of all shards")
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows is {chunk_rows}: expected at least 1")
    routed_target = target_T[(routing.weight_CT != 0).any(dim=0)]
    outside = int(((routed_target < 0) | (routed_target >= true_size)).sum())
    if outside:
        raise ValueError(f"{outside} routed targets are outside the vocabulary 0 .. {true_size - 1}")
    for kernel in routing.kernels:
        _check_kernel(kernel, old_logp_T, temperature)


def _check_kernel(kernel: FusedKernel, old_logp_T: Tensor | None, temperature: float) -> None:
    """Refuse by name what this loss does not compute; nothing is left out in silence."""
    refused: dict[str, bool] = {}
    match kernel:
        case PolicyGradientKernel():
            refused = {
                "the sequence-level ratio": kernel.level is RatioLevel.SEQUENCE,
                "an anchor mixed with a teacher": kernel.anchor is not None,
                "truncated importance sampling": kernel.tis is not None,
            }
        case DivergenceKernel():
            refused = {
                "a top-k support": kernel.top_k is not None,
                "a pointwise clip": kernel.pclip is not None,
                f"another temperature than {temperature:g}": kernel.temperature not in (None, temperature),
            }
        case K3Kernel():
            refused = {"k3": True}
        case CispoKernel() | NllKernel() | EntropyKernel():
            pass
        case _:
            assert_never(kernel)
    for what, asked in refused.items():
        if asked:
            raise NotImplementedError(f"{kernel}: {what} is not implemented")
    if isinstance(kernel, PolicyGradientKernel | CispoKernel) and old_logp_T is None:
        raise ValueError(f"{kernel} needs old_logp_T, which is None")
    if isinstance(kernel, DivergenceKernel) and kernel.kind in MIXTURES:
        parameter = kernel.parameter
        if parameter is None or not 0 < parameter < 1:
            raise ValueError(
                f"{kernel.kind} has parameter {parameter}: expected a number between 0 and 1, ends excluded"
            )
