"""The logits of a chunk at every temperature its kernels ask for, and the first gather that joins their statistics.

The output layer is multiplied once; a view at another temperature than the call's is a scaled copy. What a chunk sends
in its first gather: the statistics of each view, the targets' logits of teachers that are anchors, the candidates of
top-k supports.

Legend: N rows of a chunk, v columns of the vocabulary on this rank, r ranks, K packed numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_bridge.losses.chunk import ChunkLogits
from megatron_bridge.losses.inputs import SweepInputs
from megatron_bridge.losses.row_groups import RowGroup
from megatron_bridge.losses.statistics import (
    TEACHER_COLUMNS,
    ChunkStatistics,
    combine_statistics,
    gather_statistics,
)
from megatron_bridge.losses.support import Support, SupportChoice
from trace_dsl.lowering.fused import DivergenceKernel, EntropyKernel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """A chunk at one temperature: `factor` times the call's logits, and the divergence channels evaluated on it."""

    factor: float
    channels: tuple[int, ...]
    chunk: ChunkLogits
    statistics: ChunkStatistics


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenChunk:
    """A chunk after its first gather. The first view is the call's own; anchors: a teacher's log-prob of the target."""

    views: tuple[View, ...]
    anchors: dict[str, Tensor]
    supports: dict[SupportChoice, Support]


def open_chunk(inputs: SweepInputs, rows_N: Tensor, teachers: tuple[str, ...]) -> OpenChunk:
    """Rows at the call's temperature, with log-probs of the target under `teachers`.

    Collectives: one all-gather.
    """
    return _open(inputs, _logits(inputs, rows_N, teachers), {1.0: ()}, teachers, (), narrow=not teachers)


def open_group_chunk(inputs: SweepInputs, group: RowGroup, rows_N: Tensor) -> OpenChunk:
    """Rows of a group, with what its channels need. Collectives: one all-gather."""
    kernels = inputs.routing.kernels
    by_factor: dict[float, tuple[int, ...]] = {1.0: ()}
    choices: dict[SupportChoice, None] = {}
    for channel in group.wide:
        kernel = kernels[channel]
        if not isinstance(kernel, DivergenceKernel):
            continue
        factor = 1.0 if kernel.temperature is None else inputs.temperature / kernel.temperature
        by_factor[factor] = (*by_factor.get(factor, ()), channel)
        if kernel.top_k is not None:
            choices[SupportChoice.of(kernel, inputs.vocabulary)] = None
    anchors = dict.fromkeys(kernels[channel].anchor.teacher for channel in group.anchored)  # type: ignore[union-attr]
    chunk = _logits(inputs, rows_N, group.teachers)
    entropy = any(isinstance(kernels[channel], EntropyKernel) for channel in group.wide)
    narrow = not (by_factor[1.0] or entropy or anchors)
    return _open(inputs, chunk, by_factor, tuple(anchors), tuple(choices), narrow=narrow)


def _logits(inputs: SweepInputs, rows_N: Tensor, teachers: tuple[str, ...]) -> ChunkLogits:
    return ChunkLogits.of(
        inputs.student.logits(rows_N, inputs.buffers),
        {
            name: inputs.teachers[name].at(rows_N, inputs.buffers, f"teacher {place}")
            for place, name in enumerate(teachers)
        },
        target_N=inputs.target_T[rows_N],
        first_column=inputs.first_column,
    )


def _open(
    inputs: SweepInputs,
    chunk: ChunkLogits,
    by_factor: dict[float, tuple[int, ...]],
    anchors: tuple[str, ...],
    choices: tuple[SupportChoice, ...],
    *,
    narrow: bool,
) -> OpenChunk:
    kernels = inputs.routing.kernels
    extra = [*(chunk.teacher_target_logits(name) for name in anchors), *(chunk.candidates(c) for c in choices)]
    teachers_of = {
        factor: [n for n in chunk.teachers_Nv if n in {kernels[c].teacher for c in channels}]  # type: ignore[union-attr]
        for factor, channels in by_factor.items()
    }
    scaled = [chunk.scaled(factor, names) for factor, names in teachers_of.items() if factor != 1.0]
    read = {*teachers_of[1.0], *anchors}
    main = chunk.with_teachers([name for name in chunk.teachers_Nv if name in read], narrow=narrow)
    chunks, local = [main], [main.local_statistics()]
    for view, maxima_NK in scaled:
        statistics_NK = view.local_statistics()
        statistics_NK[:, 0::TEACHER_COLUMNS] = maxima_NK
        chunks.append(view)
        local.append(statistics_NK)
    local += extra
    gathered_rNK = gather_statistics(local[0] if len(local) == 1 else torch.cat(local, dim=1), inputs.tp_group)
    parts = gathered_rNK.split([part.shape[1] for part in local], dim=2)
    views = tuple(
        View(
            factor=factor,
            channels=channels,
            chunk=view,
            statistics=combine_statistics(part_rNK, inputs.rank, factor),
        )
        for (factor, channels), view, part_rNK in zip(by_factor.items(), chunks, parts, strict=False)
    )
    rest = parts[len(views) :]
    anchor_logp = {}
    for name, logit_rN1 in zip(anchors, rest, strict=False):
        softmax = views[0].statistics.teachers[list(main.teachers_Nv).index(name)].softmax
        anchor_logp[name] = logit_rN1[:, :, 0].sum(dim=0) - softmax.max_N - softmax.log_sum_N
    columns = main.student_Nv.shape[1]
    supports = {
        choice: Support.of(part_rNK, first_column=inputs.first_column, columns=columns)
        for choice, part_rNK in zip(choices, rest[len(anchors) :], strict=True)
    }
    return OpenChunk(views=views, anchors=anchor_logp, supports=supports)
