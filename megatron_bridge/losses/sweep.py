"""One sweep over the routed rows: loss, statistics and both gradients, without a [T, V] tensor.

A chunk of rows goes through: student logits (and its teachers'), local statistics, one gather, a second one
where a mixture divergence needs the global log-probs first, the gradient written over the student's logits,
and two products.

Legend: T tokens, N rows of a chunk, H hidden, v columns of the vocabulary on this rank (v = V / tp, less
padding), C channels, r ranks of `tp_group`, K packed statistics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_bridge.losses import gemm
from megatron_bridge.losses.chunk import ChunkLogits
from megatron_bridge.losses.kernels import (
    MIXTURE_COLUMNS,
    DivergenceTerm,
    EntropyTerm,
    TargetTerm,
    clipped_importance,
    negative_log_likelihood,
    policy_gradient,
)
from megatron_bridge.losses.row_groups import RowGroup, group_rows
from megatron_bridge.losses.statistics import ChunkStatistics, combine_statistics, gather_statistics
from megatron_bridge.losses.teacher import TeacherLogits
from trace_dsl.lowering.fused import CispoKernel, DivergenceKernel, FusedRouting, NllKernel, PolicyGradientKernel
from trace_dsl.model import DivergenceKind


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepInputs:
    """What one call evaluates. `shard` counts the padded columns of this rank, `columns` the true ones."""

    hidden_TH: Tensor
    output_weight_vH: Tensor
    target_T: Tensor
    old_logp_T: Tensor | None
    routing: FusedRouting
    teachers: Mapping[str, TeacherLogits]
    temperature: float
    shard: int
    columns: int
    tp_group: dist.ProcessGroup | None
    chunk_rows: int
    evaluate_all: bool
    hidden_gradient: bool
    weight_gradient: bool

    @property
    def rank(self) -> int:
        return 0 if self.tp_group is None else self.tp_group.rank()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepTotals:
    """Accumulators of a sweep; the gradients are None where nobody asked, and hidden's is summed over tp at
    the end."""

    loss_C: Tensor
    value_CT: Tensor
    logp_T: Tensor
    entropy_T: Tensor
    clipped_T: Tensor
    hidden_gradient_TH: Tensor | None
    weight_gradient_vH: Tensor | None

    @classmethod
    def zeros(cls, inputs: SweepInputs, dtype: torch.dtype) -> SweepTotals:
        device, (channels, tokens) = inputs.hidden_TH.device, inputs.routing.weight_CT.shape
        missing = torch.full((channels + 2, tokens), torch.nan, dtype=dtype, device=device)
        hidden = torch.zeros(inputs.hidden_TH.shape, dtype=dtype, device=device) if inputs.hidden_gradient else None
        weight = (
            torch.zeros(inputs.output_weight_vH.shape, dtype=dtype, device=device) if inputs.weight_gradient else None
        )
        return cls(
            loss_C=torch.zeros(channels, dtype=torch.float64, device=device),
            value_CT=missing[2:],
            logp_T=missing[0],
            entropy_T=missing[1],
            clipped_T=torch.zeros(tokens, dtype=torch.bool, device=device),
            hidden_gradient_TH=hidden,
            weight_gradient_vH=weight,
        )


@torch.no_grad()
def sweep(inputs: SweepInputs) -> SweepTotals:
    """Evaluate every routed row once.

    Collectives over tp_group: one all-gather per chunk, a second one per chunk with a jsd, skl or srkl
    kernel, and, with a gradient of hidden, one all-reduce of it. No routed row: none.
    """
    dtype = gemm.compute_dtype(inputs.hidden_TH.dtype)
    weight_vH = gemm.operand(inputs.output_weight_vH[: inputs.columns], dtype)
    totals = SweepTotals.zeros(inputs, dtype)
    touched = False
    for group in group_rows(inputs.routing, evaluate_all=inputs.evaluate_all):
        touched |= group.weighted
        buffers = gemm.Buffers()
        for rows_N in group.rows_N.split(inputs.chunk_rows):
            _evaluate_chunk(inputs, weight_vH, group, rows_N, totals, buffers, dtype)
    if touched and totals.hidden_gradient_TH is not None and inputs.tp_group is not None:
        dist.all_reduce(totals.hidden_gradient_TH, group=inputs.tp_group)
    return totals


def _evaluate_chunk(
    inputs: SweepInputs,
    weight_vH: Tensor,
    group: RowGroup,
    rows_N: Tensor,
    totals: SweepTotals,
    buffers: gemm.Buffers,
    dtype: torch.dtype,
) -> None:
    hidden_NH = gemm.operand(inputs.hidden_TH[rows_N], dtype)
    out_Nv = buffers.take("student", hidden_NH, inputs.columns, dtype)
    chunk = ChunkLogits.of(
        gemm.logits(hidden_NH, weight_vH, temperature=inputs.temperature, dtype=dtype, out_Nv=out_Nv),
        {name: inputs.teachers[name].at(rows_N, buffers) for name in group.teachers},
        target_N=inputs.target_T[rows_N],
        first_column=inputs.rank * inputs.shard,
        narrow=not group.wide,
    )
    gathered_rNK = gather_statistics(chunk.local_statistics(), inputs.tp_group)
    statistics = combine_statistics(gathered_rNK, inputs.rank)
    totals.logp_T[rows_N] = statistics.target_logp_N
    totals.entropy_T[rows_N] = statistics.entropy_N
    if not group.weighted:
        return
    target_slope_N = _add_target_terms(inputs, rows_N, statistics, totals)
    terms = _add_wide_terms(inputs, group, rows_N, chunk, statistics, totals)
    if not (inputs.hidden_gradient or inputs.weight_gradient):
        return
    gradient_Nv = chunk.gradient_(statistics, target_slope_N=target_slope_N, terms=terms)
    if inputs.temperature != 1.0:
        gradient_Nv /= inputs.temperature
    if totals.hidden_gradient_TH is not None:
        totals.hidden_gradient_TH[rows_N] = gemm.product(gradient_Nv, weight_vH, dtype)
    if totals.weight_gradient_vH is not None:
        gemm.add_product_(totals.weight_gradient_vH[: inputs.columns], gradient_Nv.t(), hidden_NH)


def _add_wide_terms(
    inputs: SweepInputs,
    group: RowGroup,
    rows_N: Tensor,
    chunk: ChunkLogits,
    statistics: ChunkStatistics,
    totals: SweepTotals,
) -> list[EntropyTerm | DivergenceTerm]:
    """Book the divergences and entropies of a chunk; return what their gradients need."""
    kernels = inputs.routing.kernels
    value_N, mean_slope_N = {}, {}
    teachers = dict(zip(group.teachers, statistics.teachers, strict=True))
    mixtures = {}
    for channel in group.wide:
        kernel = kernels[channel]
        if not isinstance(kernel, DivergenceKernel):
            value_N[channel] = -statistics.entropy_N
        elif kernel.kind is DivergenceKind.FKL:
            value_N[channel] = mean_slope_N[channel] = teachers[kernel.teacher].kl_teacher_student_N
        elif kernel.kind is DivergenceKind.RKL:
            value_N[channel] = mean_slope_N[channel] = teachers[kernel.teacher].kl_student_teacher_N
        else:
            mixtures[channel] = kernel
    if mixtures:
        users = Counter(kernel.teacher for c in group.wide if isinstance(kernel := kernels[c], DivergenceKernel))
        shared = {teacher for teacher, count in users.items() if count > 1}
        local_NK = chunk.mixture_statistics(tuple(mixtures.values()), statistics, shared=shared)
        global_NK = gather_statistics(local_NK, inputs.tp_group).sum(dim=0)
        for channel, pair_N2 in zip(mixtures, global_NK.split(MIXTURE_COLUMNS, dim=1), strict=True):
            value_N[channel], mean_slope_N[channel] = pair_N2.unbind(dim=1)

    terms: list[EntropyTerm | DivergenceTerm] = []
    for channel in group.wide:
        weight_N = inputs.routing.weight_CT[channel, rows_N].to(value_N[channel].dtype)
        totals.value_CT[channel, rows_N] = value_N[channel]
        totals.loss_C[channel] += (weight_N * value_N[channel]).sum(dtype=torch.float64)
        kernel = kernels[channel]
        if isinstance(kernel, DivergenceKernel):
            terms.append(
                DivergenceTerm(
                    kernel=kernel,
                    weight_N=weight_N,
                    mean_slope_N=mean_slope_N[channel],
                    slope_held=kernel.teacher in chunk.slopes_held,
                )
            )
        else:
            terms.append(EntropyTerm(weight_N=weight_N, entropy_N=statistics.entropy_N))
    return terms


def _add_target_terms(inputs: SweepInputs, rows_N: Tensor, statistics: ChunkStatistics, totals: SweepTotals) -> Tensor:
    """Book the kernels of the sampled token's log-prob; return d loss / d logp, [N]."""
    logp_N, routing = statistics.target_logp_N, inputs.routing
    target_slope_N = torch.zeros_like(logp_N)
    for channel, kernel in enumerate(routing.kernels):
        if isinstance(kernel, PolicyGradientKernel | CispoKernel):
            assert inputs.old_logp_T is not None
            evaluate = policy_gradient if isinstance(kernel, PolicyGradientKernel) else clipped_importance
            term: TargetTerm = evaluate(
                kernel,
                logp_N=logp_N,
                old_logp_N=inputs.old_logp_T[rows_N].to(logp_N.dtype),
                advantage_N=routing.advantage_CT[channel, rows_N].to(logp_N.dtype),
            )
        elif isinstance(kernel, NllKernel):
            term = negative_log_likelihood(logp_N=logp_N)
        else:
            continue
        weight_N = routing.weight_CT[channel, rows_N].to(logp_N.dtype)
        live = weight_N != 0  # where it is 0, nothing of the term may reach the sum, not even a NaN
        totals.value_CT[channel, rows_N] = torch.where(live, term.value_N, torch.nan)
        totals.loss_C[channel] += torch.where(live, weight_N * term.value_N, 0.0).sum(dtype=torch.float64)
        target_slope_N += torch.where(live, weight_N * term.slope_N, 0.0)
        if term.clipped_N is not None:
            totals.clipped_T[rows_N] |= live & term.clipped_N
    return target_slope_N
