"""`statistics.local_statistics_` and the mixtures' statistics as Triton kernels, one program a row.

A row is read twice, first for its largest logit: what is centred on the final maximum cancels exactly where teacher
and student agree, which running maxima do not. Sums are kept a lane and joined at the end, in float32.

Legend: N rows of a chunk, v columns of the vocabulary on this rank, K packed statistics.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from megatron_bridge.losses.kernels import MIXTURE_COLUMNS
from megatron_bridge.losses.statistics import STUDENT_COLUMNS, TEACHER_COLUMNS
from megatron_bridge.losses.triton_math import JSD, SKL, coded, log_mixture_ratios, mixture_slope
from trace_dsl.lowering.fused import DivergenceKernel

MAX_BLOCK = 1024  # with 4 warps no kernel spills a register on sm_90; with 4096 columns two do


def block_columns(columns: int) -> int:
    """Columns that a program works on at a time: a power of two, at most MAX_BLOCK."""
    return min(MAX_BLOCK, triton.next_power_of_2(columns))


@triton.jit
def _row_maximum(logits, first, columns, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    maximum = tl.full([BLOCK], float("-inf"), tl.float32)
    for start in range(0, columns, BLOCK):
        inside = start + lanes < columns
        maximum = tl.maximum(maximum, tl.load(logits + first + start + lanes, mask=inside, other=float("-inf")))
    return tl.max(maximum, axis=0)


@triton.jit
def _student_row(logits, target_logit, packed, columns, width, EXPONENTIALS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    first = row * columns
    maximum = _row_maximum(logits, first, columns, BLOCK)
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    weighted = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        inside = start + lanes < columns
        centered = tl.load(logits + first + start + lanes, mask=inside, other=maximum) - maximum
        exponential = tl.where(inside, tl.exp(centered), 0.0)
        total += exponential
        weighted += exponential * centered
        tl.store(logits + first + start + lanes, exponential if EXPONENTIALS else centered, mask=inside)
    mass = tl.sum(total, axis=0)
    packed += row * width
    tl.store(packed, maximum)
    tl.store(packed + 1, tl.log(mass))
    tl.store(packed + 2, tl.sum(weighted, axis=0) / mass)
    tl.store(packed + 3, tl.load(target_logit + row))


@triton.jit
def _teacher_row(logits, student, packed, columns, width, place, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    first = row * columns
    maximum = _row_maximum(logits, first, columns, BLOCK)
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    student_total = tl.zeros([BLOCK], tl.float32)
    under_teacher = tl.zeros([BLOCK], tl.float32)
    under_student = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        inside = start + lanes < columns
        centered = tl.load(logits + first + start + lanes, mask=inside, other=maximum) - maximum
        student_centered = tl.load(student + first + start + lanes, mask=inside, other=0.0)
        exponential = tl.where(inside, tl.exp(centered), 0.0)
        student_exponential = tl.where(inside, tl.exp(student_centered), 0.0)
        difference = centered - student_centered
        total += exponential
        student_total += student_exponential
        under_teacher += exponential * difference
        under_student += student_exponential * difference
        tl.store(logits + first + start + lanes, centered, mask=inside)
    mass = tl.sum(total, axis=0)
    packed += row * width + place
    tl.store(packed, maximum)
    tl.store(packed + 1, tl.log(mass))
    tl.store(packed + 2, tl.sum(under_teacher, axis=0) / mass)
    tl.store(packed + 3, tl.sum(under_student, axis=0) / tl.sum(student_total, axis=0))


def local_statistics_(
    student_logits_Nv: Tensor, teacher_logits_Nv: Sequence[Tensor], target_logit_N: Tensor, *, exponentials: bool
) -> Tensor:
    """As `statistics.local_statistics_`, or with `exponentials` `exponentiate_`; at least one row and column, float32,
    contiguous.

    Launches: one, and one a teacher.
    """
    rows, columns = student_logits_Nv.shape
    width = STUDENT_COLUMNS + TEACHER_COLUMNS * len(teacher_logits_Nv)
    packed_NK = torch.empty(rows, width, dtype=torch.float32, device=student_logits_Nv.device)
    block = block_columns(columns)
    _student_row[(rows,)](
        student_logits_Nv, target_logit_N, packed_NK, columns, width, EXPONENTIALS=exponentials, BLOCK=block
    )
    for index, logits_Nv in enumerate(teacher_logits_Nv):
        place = STUDENT_COLUMNS + TEACHER_COLUMNS * index
        _teacher_row[(rows,)](logits_Nv, student_logits_Nv, packed_NK, columns, width, place, BLOCK=block)
    return packed_NK


@triton.jit
def _mixture_row(
    student,
    teacher,
    student_shift,
    teacher_shift,
    packed,
    columns,
    KIND: tl.constexpr,
    SHARE: tl.constexpr,
    PARAMETER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    first = row * columns
    student_offset = tl.load(student_shift + row)
    teacher_offset = tl.load(teacher_shift + row)
    lanes = tl.arange(0, BLOCK)
    kl_student_mix = tl.zeros([BLOCK], tl.float32)
    kl_teacher_mix = tl.zeros([BLOCK], tl.float32)
    slope_sum = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        inside = start + lanes < columns
        student_logp = tl.load(student + first + start + lanes, mask=inside, other=0.0) - student_offset
        teacher_logp = tl.load(teacher + first + start + lanes, mask=inside, other=0.0) - teacher_offset
        over_student, over_teacher = log_mixture_ratios(teacher_logp - student_logp, SHARE)
        student_prob = tl.where(inside, tl.exp(student_logp), 0.0)
        teacher_prob = tl.where(inside, tl.exp(teacher_logp), 0.0)
        kl_student_mix -= student_prob * over_student
        kl_teacher_mix -= teacher_prob * over_teacher
        slope_sum += student_prob * mixture_slope(over_student, over_teacher, KIND, PARAMETER)
    if KIND == JSD:
        value = PARAMETER * tl.sum(kl_teacher_mix, axis=0) + (1.0 - PARAMETER) * tl.sum(kl_student_mix, axis=0)
    elif KIND == SKL:
        value = tl.sum(kl_teacher_mix, axis=0)
    else:
        value = tl.sum(kl_student_mix, axis=0)
    tl.store(packed + 2 * row, value)
    tl.store(packed + 2 * row + 1, tl.sum(slope_sum, axis=0))


def mixture_statistics(
    kernel: DivergenceKernel,
    *,
    student_Nv: Tensor,
    student_shift_N: Tensor,
    teacher_Nv: Tensor,
    teacher_shift_N: Tensor,
) -> Tensor:
    """This rank's part of a kernel's value and E_student[g], [N, 2]: as `kernels.mixture_statistics`.

    Logits are centred, a log-prob is the logit minus the shift. Launches: one.
    """
    rows, columns = student_Nv.shape
    packed_NK = torch.empty(rows, MIXTURE_COLUMNS, dtype=torch.float32, device=student_Nv.device)
    kind, share, parameter = coded(kernel)
    _mixture_row[(rows,)](
        student_Nv,
        teacher_Nv,
        student_shift_N,
        teacher_shift_N,
        packed_NK,
        columns,
        KIND=kind,
        SHARE=share,
        PARAMETER=parameter,
        BLOCK=block_columns(columns),
    )
    return packed_NK
