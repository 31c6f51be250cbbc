"""Which rows go through the output layer together.

Rows are grouped by the kernels that need the whole vocabulary (divergences, entropy) or a teacher's log-prob (mixed
anchors), so that every row of a chunk needs the same teachers' logits and no other; other kernels of the sampled
token's log-prob cost nothing and are not told apart.

Legend: T tokens, N rows of a group, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from trace_dsl.lowering.fused import (
    DivergenceKernel,
    EntropyKernel,
    FusedKernel,
    FusedRouting,
    is_sequence_level,
    teacher_of,
)

_MAX_FLAGS = 62  # bits of a signature in an int64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowGroup:
    """rows_N: int64 token indices; wide: the channels of whole-vocabulary kernels at every one of them; anchored: the
    token-level channels with a mixed anchor there; teachers: those that these channels need, in their order.

    `weighted` is False for rows that no channel weighs and that are evaluated for their statistics only.
    """

    rows_N: Tensor
    wide: tuple[int, ...]
    anchored: tuple[int, ...]
    teachers: tuple[str, ...]
    weighted: bool


def group_rows(routing: FusedRouting, *, evaluate_all: bool) -> Iterator[RowGroup]:
    """Groups in a fixed order, the same on ranks with the same routing; rows in token order.

    A row without weight is in no group unless `evaluate_all`.
    """
    kernels = routing.kernels
    told_apart = [channel for channel, kernel in enumerate(kernels) if _is_wide(kernel) or _is_anchored(kernel)]
    live_CT = routing.weight_CT != 0
    weighted_T = live_CT.any(dim=0)
    for rows_N, flags in rows_by_flags(weighted_T, [live_CT[channel] for channel in told_apart]):
        fed = [told_apart[flag] for flag in flags]
        yield RowGroup(
            rows_N=rows_N,
            wide=tuple(channel for channel in fed if _is_wide(kernels[channel])),
            anchored=tuple(channel for channel in fed if _is_anchored(kernels[channel])),
            teachers=tuple(dict.fromkeys(name for channel in fed if (name := teacher_of(kernels[channel])))),
            weighted=True,
        )
    if evaluate_all:
        rows_N = (~weighted_T).nonzero()[:, 0]
        if len(rows_N):
            yield RowGroup(rows_N=rows_N, wide=(), anchored=(), teachers=(), weighted=False)


def rows_by_flags(takes_T: Tensor, flags: Sequence[Tensor]) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """The rows of `takes_T` (bool) that have the same of the boolean `flags`, and which ones they have.

    Raises ValueError past 62 flags.
    """
    if len(flags) > _MAX_FLAGS:
        raise ValueError(
            f"{len(flags)} channels with a divergence, an entropy or a mixed anchor, which a call groups its rows by: "
            f"at most {_MAX_FLAGS} fit; let routes share kernels with the same arguments (each distinct one is a "
            "channel), or give the channels to several calls, whose losses add up"
        )
    signature_T = takes_T.long() - 1
    for bit, flag_T in enumerate(flags):
        signature_T += (flag_T & takes_T).long() << bit
    for signature in signature_T.unique().tolist():  # sorted
        if signature >= 0:
            yield (
                (signature_T == signature).nonzero()[:, 0],
                tuple(bit for bit in range(len(flags)) if signature >> bit & 1),
            )


def even_chunks(rows_N: Tensor, limit: int) -> tuple[Tensor, ...]:
    """As few chunks of at most `limit` rows as there can be, of equal sizes but for the last."""
    chunks = max(1, -(-len(rows_N) // limit))
    return rows_N.split(max(1, -(-len(rows_N) // chunks)))


def _is_wide(kernel: FusedKernel) -> bool:
    return isinstance(kernel, DivergenceKernel | EntropyKernel)


def _is_anchored(kernel: FusedKernel) -> bool:
    """Whether the row itself needs a teacher's log-prob; a sequence-level ratio has had it before."""
    return not _is_wide(kernel) and teacher_of(kernel) is not None and not is_sequence_level(kernel)
