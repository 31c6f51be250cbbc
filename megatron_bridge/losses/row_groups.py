"""Which rows go through the output layer together.

Rows are grouped by the kernels that need the whole vocabulary (divergences, entropy), so that every row of a
chunk needs the same teachers' logits and no other; kernels of the sampled token's log-prob alone cost nothing
and are not told apart.

Legend: T tokens, N rows of a group, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trace_dsl.lowering.fused import DivergenceKernel, EntropyKernel, FusedRouting

_MAX_WIDE = 62  # bits of a signature in an int64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowGroup:
    """rows_N: int64 token indices; wide: the channels of whole-vocabulary kernels at every one of them;
    teachers: those that the wide channels need, in their order.

    `weighted` is False for rows that no channel weighs and that are evaluated for their statistics only.
    """

    rows_N: Tensor
    wide: tuple[int, ...]
    teachers: tuple[str, ...]
    weighted: bool


def wide_channels(routing: FusedRouting) -> tuple[int, ...]:
    """Channels whose kernel needs the whole vocabulary. Raises ValueError past 62 of them."""
    wide = tuple(
        channel
        for channel, kernel in enumerate(routing.kernels)
        if isinstance(kernel, DivergenceKernel | EntropyKernel)
    )
    if len(wide) > _MAX_WIDE:
        raise ValueError(f"{len(wide)} divergence and entropy channels: at most {_MAX_WIDE} in one loss")
    return wide


def group_rows(routing: FusedRouting, *, evaluate_all: bool) -> Iterator[RowGroup]:
    """Groups in a fixed order, the same on ranks with the same routing; rows in token order.

    A row without weight is in no group unless `evaluate_all`.
    """
    wide = wide_channels(routing)
    live_CT = routing.weight_CT != 0
    signature_T = torch.full_like(routing.row_of_T, -1)
    signature_T[live_CT.any(dim=0)] = 0
    for bit, channel in enumerate(wide):
        signature_T += live_CT[channel].to(signature_T.dtype) << bit
    for signature in signature_T.unique().tolist():  # sorted
        if signature < 0 and not evaluate_all:
            continue
        fed = tuple(channel for bit, channel in enumerate(wide) if signature > 0 and signature >> bit & 1)
        divergences = (kernel for c in fed if isinstance(kernel := routing.kernels[c], DivergenceKernel))
        yield RowGroup(
            rows_N=(signature_T == signature).nonzero()[:, 0],
            wide=fed,
            teachers=tuple(dict.fromkeys(kernel.teacher for kernel in divergences)),
            weighted=signature >= 0,
        )
