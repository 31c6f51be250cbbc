"""The first pass, for sequence-level ratios: log-probs of whole responses, without a gradient.

Legend: T tokens, N rows of a chunk, R responses.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from megatron_bridge.losses.inputs import PolicyLogProbs, SweepInputs
from megatron_bridge.losses.row_groups import even_chunks, rows_by_flags
from megatron_bridge.losses.views import open_chunk
from trace_dsl.lowering.fused import FusedRouting, PolicyGradientKernel, is_sequence_level


def sequence_log_ratios(inputs: SweepInputs) -> dict[int, Tensor]:
    """For every sequence-level channel with weight, the mean log-ratio of each token's response, [T].

    Collectives: one all-gather a chunk of the tokens of those responses; no such channel: none.
    """
    routing = inputs.routing
    channels = {
        channel: kernel
        for channel, kernel in enumerate(routing.kernels)
        if is_sequence_level(kernel) and channel in inputs.live
    }
    if not channels:
        return {}
    tokens_of = {channel: routing.sequence_tokens(channel) for channel in channels}
    needed: dict[str, Tensor] = {}
    for channel, kernel in channels.items():
        assert isinstance(kernel, PolicyGradientKernel)
        if kernel.anchor is not None:
            name = kernel.anchor.teacher
            needed[name] = tokens_of[channel] | needed.get(name, torch.zeros_like(tokens_of[channel]))
    logp_T = torch.full(inputs.target_T.shape, torch.nan, dtype=inputs.student.dtype, device=inputs.target_T.device)
    teacher_logp_T = {name: logp_T.clone() for name in needed}
    names = tuple(needed)
    everything_T = torch.stack(list(tokens_of.values())).any(dim=0)
    for group_N, flags in rows_by_flags(everything_T, list(needed.values())):
        teachers = tuple(names[flag] for flag in flags)
        for rows_N in even_chunks(group_N, inputs.chunk_rows):
            opened = open_chunk(inputs, rows_N, teachers)
            logp_T[rows_N] = opened.views[0].statistics.target_logp_N
            for name, anchor_N in opened.anchors.items():
                teacher_logp_T[name][rows_N] = anchor_N
    ratios = {}
    for channel, kernel in channels.items():
        assert isinstance(kernel, PolicyGradientKernel)
        anchor_T = anchor_logp(kernel, inputs.policies, slice(None), teacher_logp_T, logp_T.dtype)
        ratios[channel] = _mean_by_response(logp_T - anchor_T, tokens_of[channel], routing)
    return ratios


def anchor_logp(
    kernel: PolicyGradientKernel,
    policies: PolicyLogProbs,
    rows: Tensor | slice,
    teacher_logp: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> Tensor:
    """The log-prob that the ratio is taken to; `teacher_logp` are at `rows` already."""
    old_T = policies.old_T if kernel.tis is None else policies.proximal_T
    assert old_T is not None
    old = old_T[rows].to(dtype)
    if kernel.anchor is None:
        return old
    return kernel.anchor.share * old + (1.0 - kernel.anchor.share) * teacher_logp[kernel.anchor.teacher]


def _mean_by_response(value_T: Tensor, takes_T: Tensor, routing: FusedRouting) -> Tensor:
    """[T]: the mean over a response's taken tokens at each of its tokens, NaN where it has none; summed in float64."""
    row_t = routing.row_of_T[takes_T]
    rows = int(routing.row_of_T.max()) + 1
    sum_R = torch.zeros(rows, dtype=torch.float64, device=value_T.device)
    count_R = torch.bincount(row_t, minlength=rows)
    sum_R.index_add_(0, row_t, value_T[takes_T].double())
    return (sum_R / count_R)[routing.row_of_T].to(value_T.dtype)
