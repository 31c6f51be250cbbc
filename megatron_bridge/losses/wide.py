"""Divergences and entropies of a chunk: values, and what their gradients need.

Most follow from the statistics of the first gather. A kernel that needs the global log-probs first (mixtures, pointwise
clips, top-k supports) adds its part to one second gather of the chunk.

Legend: N rows of a chunk, r ranks, K packed numbers, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_bridge.losses.inputs import SweepInputs
from megatron_bridge.losses.kernels import (
    MIXTURE_COLUMNS,
    ClippedTerm,
    DivergenceTerm,
    EntropyTerm,
    WideTerm,
    needs_global_softmax,
)
from megatron_bridge.losses.row_groups import RowGroup
from megatron_bridge.losses.statistics import gather_statistics
from megatron_bridge.losses.support import SupportChoice, class_log_probs, evaluate_support
from megatron_bridge.losses.views import OpenChunk, View
from trace_dsl.lowering.fused import DivergenceKernel
from trace_dsl.model import DivergenceKind


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WideChannel:
    """One channel's value at the rows of a chunk, and its term of the gradient on view number `view`."""

    channel: int
    view: int
    value_N: Tensor
    term: WideTerm


def wide_channels(inputs: SweepInputs, group: RowGroup, opened: OpenChunk, rows_N: Tensor) -> list[WideChannel]:
    """Every divergence and entropy of a group. Collectives: one all-gather where a kernel needs the second one."""
    kernels, weight_CT = inputs.routing.kernels, inputs.routing.weight_CT
    found = []
    for channel in group.wide:
        if not isinstance(kernels[channel], DivergenceKernel):
            entropy_N = opened.views[0].statistics.entropy_N
            term = EntropyTerm(weight_N=weight_CT[channel, rows_N].to(entropy_N.dtype), entropy_N=entropy_N)
            found.append(WideChannel(channel=channel, view=0, value_N=-entropy_N, term=term))
    second: list[tuple[int, int, Tensor]] = []
    for number, view in enumerate(opened.views):
        teachers = dict(zip(view.chunk.teachers_Nv, view.statistics.teachers, strict=True))
        for channel in view.channels:
            kernel = kernels[channel]
            assert isinstance(kernel, DivergenceKernel)
            if kernel.top_k is not None or needs_global_softmax(kernel):
                second.append((number, channel, _local_part(inputs, opened, view, kernel)))
                continue
            statistics = teachers[kernel.teacher]
            forward = kernel.kind is DivergenceKind.FKL
            value_N = statistics.kl_teacher_student_N if forward else statistics.kl_student_teacher_N
            term = DivergenceTerm(
                kernel=kernel, weight_N=weight_CT[channel, rows_N].to(value_N.dtype), mean_slope_N=value_N
            )
            found.append(WideChannel(channel=channel, view=number, value_N=value_N, term=term))
    for (number, channel, _), part_rNK in zip(second, _gathered(second, inputs.tp_group), strict=True):
        weight_N = weight_CT[channel, rows_N].to(part_rNK.dtype)
        kernel = kernels[channel]
        assert isinstance(kernel, DivergenceKernel)
        value_N, term = _from_gathered(inputs, opened, opened.views[number], kernel, part_rNK, weight_N)
        found.append(WideChannel(channel=channel, view=number, value_N=value_N, term=term))
    return found


def _local_part(inputs: SweepInputs, opened: OpenChunk, view: View, kernel: DivergenceKernel) -> Tensor:
    """What this rank sends for a kernel of the second gather."""
    if kernel.top_k is None:
        users = [inputs.routing.kernels[channel].teacher for channel in view.channels]  # type: ignore[union-attr]
        return view.chunk.mixture_statistics(kernel, view.statistics, shared=users.count(kernel.teacher) > 1)
    support = opened.supports[SupportChoice.of(kernel, inputs.vocabulary)]
    return view.chunk.support_log_probs(kernel.teacher, support, view.statistics)


def _gathered(second: list[tuple[int, int, Tensor]], tp_group: dist.ProcessGroup | None) -> tuple[Tensor, ...]:
    if not second:
        return ()
    parts = [part_NK for _, _, part_NK in second]
    return gather_statistics(torch.cat(parts, dim=1), tp_group).split([part.shape[1] for part in parts], dim=2)


def _from_gathered(
    inputs: SweepInputs, opened: OpenChunk, view: View, kernel: DivergenceKernel, part_rNK: Tensor, weight_N: Tensor
) -> tuple[Tensor, WideTerm]:
    if kernel.top_k is not None:
        student_logp_NK, teacher_logp_NK = (class_log_probs(side_rNK) for side_rNK in part_rNK.chunk(2, dim=2))
        return evaluate_support(
            kernel,
            opened.supports[SupportChoice.of(kernel, inputs.vocabulary)],
            student_logp_NK=student_logp_NK,
            teacher_logp_NK=teacher_logp_NK,
            weight_N=weight_N,
        )
    assert part_rNK.shape[2] == MIXTURE_COLUMNS
    value_N, mean_slope_N = part_rNK.sum(dim=0).unbind(dim=1)
    if kernel.pclip is not None:
        return value_N, ClippedTerm(kernel=kernel, weight_N=weight_N, mean_slope_N=mean_slope_N)
    held = kernel.teacher in view.chunk.slopes_held
    return value_N, DivergenceTerm(kernel=kernel, weight_N=weight_N, mean_slope_N=mean_slope_N, slope_held=held)
