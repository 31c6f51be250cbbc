"""One sweep over the routed rows: loss, statistics and gradients, without a [T, V] tensor.

A chunk of rows goes through: student logits (and its teachers'), local statistics, one gather, a second one
where a kernel needs the global log-probs first, the gradient written over the student's logits, and where it goes from
there. Sequence-level ratios come out of a pass before.

Legend: T tokens, N rows of a chunk, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from megatron_bridge.losses.inputs import SweepInputs, SweepTotals
from megatron_bridge.losses.logit_gradient import LogitGradient
from megatron_bridge.losses.row_groups import RowGroup, even_chunks, group_rows
from megatron_bridge.losses.sampled import (
    TargetTerm,
    clipped_importance,
    k3_estimate,
    negative_log_likelihood,
    policy_gradient,
    truncated_importance,
)
from megatron_bridge.losses.sequence import anchor_logp, sequence_log_ratios
from megatron_bridge.losses.views import OpenChunk, open_group_chunk
from megatron_bridge.losses.wide import WideChannel, wide_channels
from trace_dsl.lowering.fused import CispoKernel, K3Kernel, NllKernel, PolicyGradientKernel, is_sequence_level


@torch.no_grad()
def sweep(inputs: SweepInputs) -> SweepTotals:
    """Evaluate every routed row once; `inputs.student` takes the gradient.

    Collectives over tp_group: one all-gather per chunk, a second one per chunk with a kernel of the second gather; for
    sequence-level ratios, one per chunk of their responses before. No routed row: none.
    """
    totals = SweepTotals.zeros(inputs)
    log_ratios = sequence_log_ratios(inputs)
    for group in group_rows(inputs.routing, evaluate_all=inputs.evaluate_all):
        for rows_N in even_chunks(group.rows_N, inputs.chunk_rows):
            _evaluate_chunk(inputs, group, rows_N, log_ratios, totals)
    inputs.buffers.clear()
    return totals


def _evaluate_chunk(
    inputs: SweepInputs, group: RowGroup, rows_N: Tensor, log_ratios: dict[int, Tensor], totals: SweepTotals
) -> None:
    opened = open_group_chunk(inputs, group, rows_N)
    statistics = opened.views[0].statistics
    totals.logp_T[rows_N] = statistics.target_logp_N
    totals.entropy_T[rows_N] = statistics.entropy_N
    if not group.weighted:
        return
    target_slope_N = _add_target_terms(inputs, group, rows_N, opened, log_ratios, totals)
    wide = wide_channels(inputs, group, opened, rows_N)
    for entry in wide:
        weight_N = inputs.routing.weight_CT[entry.channel, rows_N].to(entry.value_N.dtype)
        totals.value_CT[entry.channel, rows_N] = entry.value_N
        totals.loss_C[entry.channel] += (weight_N * entry.value_N).sum(dtype=torch.float64)
    if inputs.student.wants_gradient:
        inputs.student.add_gradient_(rows_N, _gradient_(opened, target_slope_N, wide, rows_N, totals))


def _gradient_(
    opened: OpenChunk, target_slope_N: Tensor, wide: list[WideChannel], rows_N: Tensor, totals: SweepTotals
) -> LogitGradient:
    """d loss / d logits of the call's temperature, [N, v]; uses up all views, and books the sizes of the parts."""
    body: LogitGradient | None = None
    for number, view in enumerate(opened.views):
        entries = [entry for entry in wide if entry.view == number]
        gradient, norm_WN = view.chunk.gradient_(
            view.statistics,
            target_slope_N=target_slope_N if number == 0 else torch.zeros_like(target_slope_N),
            terms=[entry.term for entry in entries],
        )
        for entry, norm_N in zip(entries, norm_WN, strict=True):
            totals.gradient_norm_CT[entry.channel, rows_N] = norm_N * view.factor
        if body is None:
            body = gradient
        else:
            body = LogitGradient(body_Nv=body.written_().add_(gradient.written_(), alpha=view.factor))
    assert body is not None
    return body


def _add_target_terms(
    inputs: SweepInputs,
    group: RowGroup,
    rows_N: Tensor,
    opened: OpenChunk,
    log_ratios: dict[int, Tensor],
    totals: SweepTotals,
) -> Tensor:
    """Book the kernels of the sampled token's log-prob; return d loss / d logp, [N]."""
    logp_N, routing = opened.views[0].statistics.target_logp_N, inputs.routing
    target_slope_N = torch.zeros_like(logp_N)
    for channel in sorted(inputs.live):  # the others' policies may not be there
        kernel = routing.kernels[channel]
        match kernel:
            case PolicyGradientKernel():
                term = _policy_gradient(inputs, group, rows_N, channel, opened, log_ratios)
            case CispoKernel():
                assert inputs.policies.old_T is not None
                term = clipped_importance(
                    kernel,
                    logp_N=logp_N,
                    old_logp_N=inputs.policies.old_T[rows_N].to(logp_N.dtype),
                    advantage_N=routing.advantage_CT[channel, rows_N].to(logp_N.dtype),
                )
            case NllKernel():
                term = negative_log_likelihood(logp_N=logp_N)
            case K3Kernel():
                reference_T = inputs.policies.named(kernel.to)
                assert reference_T is not None
                term = k3_estimate(logp_N=logp_N, reference_logp_N=reference_T[rows_N].to(logp_N.dtype))
            case _:
                continue
        if term is None:
            continue
        weight_N = routing.weight_CT[channel, rows_N].to(logp_N.dtype)
        live = weight_N != 0  # where it is 0, nothing of the term may reach the sum, not even a NaN
        totals.value_CT[channel, rows_N] = torch.where(live, term.value_N, torch.nan)
        totals.loss_C[channel] += torch.where(live, weight_N * term.value_N, 0.0).sum(dtype=torch.float64)
        slope_N = torch.where(live, weight_N * term.slope_N, 0.0)
        target_slope_N += slope_N
        if inputs.student.wants_gradient:
            totals.gradient_norm_CT[channel, rows_N] = torch.where(
                live, _target_norm(inputs, slope_N, logp_N), torch.nan
            )
        if term.clipped_N is not None:
            totals.clipped_CT[channel, rows_N] = live & term.clipped_N
    return target_slope_N


def _target_norm(inputs: SweepInputs, slope_N: Tensor, logp_N: Tensor) -> Tensor:
    """The sum over the vocabulary of |slope (onehot - student)|, as the first tp rank's part."""
    return slope_N.abs() * -2.0 * logp_N.expm1() if inputs.rank == 0 else torch.zeros_like(slope_N)


def _policy_gradient(
    inputs: SweepInputs,
    group: RowGroup,
    rows_N: Tensor,
    channel: int,
    opened: OpenChunk,
    log_ratios: dict[int, Tensor],
) -> TargetTerm | None:
    """A policy gradient at the rows of a chunk; None where it has no weight at any of them for sure."""
    kernel, policies = inputs.routing.kernels[channel], inputs.policies
    assert isinstance(kernel, PolicyGradientKernel)
    logp_N = opened.views[0].statistics.target_logp_N
    if is_sequence_level(kernel):
        log_ratio_N = log_ratios[channel][rows_N]
    elif kernel.anchor is not None and channel not in group.anchored:
        return None
    else:
        log_ratio_N = logp_N - anchor_logp(kernel, policies, rows_N, opened.anchors, logp_N.dtype)
    importance_N = None
    if kernel.tis is not None:
        assert policies.proximal_T is not None
        assert policies.old_T is not None
        importance_N = truncated_importance(
            kernel.tis,
            proximal_logp_N=policies.proximal_T[rows_N].to(logp_N.dtype),
            old_logp_N=policies.old_T[rows_N].to(logp_N.dtype),
        )
    return policy_gradient(
        kernel,
        log_ratio_N=log_ratio_N,
        advantage_N=inputs.routing.advantage_CT[channel, rows_N].to(logp_N.dtype),
        importance_N=importance_N,
    )
