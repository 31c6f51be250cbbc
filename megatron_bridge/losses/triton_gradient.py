"""`kernels.logit_gradient_` as one Triton kernel: every term of a chunk in one read and one write.

Legend: N rows of a chunk, v columns of the vocabulary on this rank, W terms, b blocks of columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from megatron_bridge.losses.kernels import DivergenceTerm, EntropyTerm
from megatron_bridge.losses.triton_math import ENTROPY, FKL, RKL, coded, log_mixture_ratios, mixture_slope
from megatron_bridge.losses.triton_statistics import block_columns


@triton.jit
def _gradient_block(
    student,
    teachers,
    student_shift,
    teacher_shifts,
    target_slope,
    weights,
    means,
    norms,
    rows,
    columns,
    TERMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    place = row * columns + column
    student_logp = tl.load(student + place, mask=inside, other=0.0) - tl.load(student_shift + row)
    student_prob = tl.exp(student_logp)
    gradient = student_prob * -tl.load(target_slope + row)
    for index in tl.static_range(len(TERMS)):
        weight = tl.load(weights + index * rows + row)
        mean = tl.load(means + index * rows + row)
        if TERMS[index][0] == ENTROPY:
            part = (student_logp + mean) * student_prob
        else:
            teacher_logp = tl.load(teachers[TERMS[index][1]] + place, mask=inside, other=0.0)
            teacher_logp -= tl.load(teacher_shifts[TERMS[index][1]] + row)
            if TERMS[index][0] == FKL:
                part = student_prob - tl.exp(teacher_logp)
            elif TERMS[index][0] == RKL:
                part = (student_logp - teacher_logp - mean) * student_prob
            else:
                over_student, over_teacher = log_mixture_ratios(teacher_logp - student_logp, TERMS[index][2])
                slope = mixture_slope(over_student, over_teacher, TERMS[index][0], TERMS[index][3])
                part = (slope - mean) * student_prob
        part *= weight
        gradient += part
        size = tl.sum(tl.where(inside, tl.abs(part), 0.0), axis=0)
        tl.store(norms + (index * tl.num_programs(1) + tl.program_id(1)) * rows + row, size)
    tl.store(student + place, gradient, mask=inside)


def logit_gradient_(
    student_Nv: Tensor,
    student_shift_N: Tensor,
    teachers: Mapping[str, tuple[Tensor, Tensor]],
    *,
    target_slope_N: Tensor,
    terms: Sequence[EntropyTerm | DivergenceTerm],
) -> Tensor:
    """As `kernels.logit_gradient_`, for contiguous float32 logits that are centred; the teachers' stay as they are.

    A log-prob is the logit minus the shift; `teachers` holds (logits_Nv, shift_N) by name. One launch.
    """
    rows, columns = student_Nv.shape
    names = list(teachers)
    codes, weights, means = [], [], []
    for term in terms:
        weights.append(term.weight_N)
        if isinstance(term, EntropyTerm):
            codes.append((ENTROPY.value, 0, 0.5, 0.5))
            means.append(term.entropy_N)
        else:
            kind, share, parameter = coded(term.kernel)
            codes.append((kind, names.index(term.kernel.teacher), share, parameter))
            means.append(term.mean_slope_N)
    nothing_N = target_slope_N[None]  # a pointer for a kernel without terms, which reads none
    block = block_columns(columns)
    blocks = triton.cdiv(columns, block)
    norm_WbN = student_Nv.new_empty(len(terms), blocks, rows)
    _gradient_block[(rows, blocks)](
        student_Nv,
        tuple(logits_Nv for logits_Nv, _ in teachers.values()),
        student_shift_N,
        tuple(shift_N for _, shift_N in teachers.values()),
        target_slope_N,
        torch.stack(weights) if weights else nothing_N,
        torch.stack(means) if means else nothing_N,
        norm_WbN if terms else nothing_N,
        rows,
        columns,
        TERMS=tuple(codes),
        BLOCK=block,
    )
    return norm_WbN.sum(dim=1)
