"""Softmax statistics over a vocabulary that is cut over ranks, and the one gather that joins them.

Every rank reduces its own columns: the largest logit, the logarithm of the sum of exponentials below it, and
expectations under its own softmax. With M = max over ranks of max_r,

    log_sum = log sum_r exp(max_r - M + log_sum_r)        the global log-sum-exp is M + log_sum
    share_r = exp(max_r - M + log_sum_r - log_sum)        the mass on rank r
    E[f]    = sum_r share_r E_r[f]

so no MAX collective is needed. The maximum travels apart from the logarithm, and all logits are held relative
to it: logits around 1e4 lose nothing beyond what they lost in the product that made them.

Legend: N rows of a chunk, v columns of the vocabulary on this rank, r ranks of `tp_group`, K packed
statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

# Element-wise work runs over blocks of rows, so that its temporaries stay in cache (CPU) or small (CUDA).
BLOCK_ELEMENTS = {"cpu": 1 << 16, "cuda": 1 << 26}

STUDENT_COLUMNS = 4  # max, log_sum, E_student[logit - max], logit of the target
TEACHER_COLUMNS = 4  # max, log_sum, E_teacher[difference], E_student[difference]


def row_blocks(rows: int, columns: int, device: torch.device, *, blocks: int = 1) -> Iterator[slice]:
    """Slices that cut `rows` into at most so many times BLOCK_ELEMENTS elements, at least one row."""
    step = max(1, blocks * BLOCK_ELEMENTS.get(device.type, BLOCK_ELEMENTS["cuda"]) // max(1, columns))
    return (slice(start, min(rows, start + step)) for start in range(0, rows, step))


def column_blocks(columns: int, device: torch.device) -> Iterator[slice]:
    """Slices that cut `columns` into equal blocks of at most BLOCK_ELEMENTS elements."""
    limit = BLOCK_ELEMENTS.get(device.type, BLOCK_ELEMENTS["cuda"])
    step = -(-columns // max(1, -(-columns // limit)))
    return (slice(start, min(columns, start + step)) for start in range(0, columns, max(1, step)))


def local_statistics_(student_logits_Nv: Tensor, teacher_logits_Nv: list[Tensor], target_logit_N: Tensor) -> Tensor:
    """Statistics of this rank's columns, [N, STUDENT_COLUMNS + TEACHER_COLUMNS * teachers], in the logits'
    dtype.

    In place: every row of logits becomes relative to its own largest one. `difference` is teacher minus student, both
    so centred. A rank without columns (all of them padding) has no mass: max = the lowest
    finite number.
    """
    rows, columns = student_logits_Nv.shape
    if columns == 0:
        packed_NK = student_logits_Nv.new_zeros(rows, STUDENT_COLUMNS + TEACHER_COLUMNS * len(teacher_logits_Nv))
        packed_NK[:, 0::4] = torch.finfo(packed_NK.dtype).min
        return packed_NK
    maxima = [logits_Nv.amax(dim=1) for logits_Nv in (student_logits_Nv, *teacher_logits_Nv)]
    sums_KN = torch.stack(
        [
            _sums_(student_logits_Nv[:, cut], [u[:, cut] for u in teacher_logits_Nv], maxima)
            for cut in column_blocks(columns, student_logits_Nv.device)
        ]
    ).sum(dim=0)
    student_sum_N, student_mean_N = sums_KN[0], sums_KN[1] / sums_KN[0]
    packed = [maxima[0], student_sum_N.log(), student_mean_N, target_logit_N]
    for max_N, sums_3N in zip(maxima[1:], sums_KN[2:].unflatten(0, (-1, 3)), strict=True):
        sum_N, under_teacher_N, under_student_N = sums_3N
        packed += [max_N, sum_N.log(), under_teacher_N / sum_N, under_student_N / student_sum_N]
    return torch.stack(packed, dim=1)


def _sums_(student_Nv: Tensor, teachers_Nv: list[Tensor], maxima: list[Tensor]) -> Tensor:
    """Make every side relative to its maximum, in place; [K, N]: the sum of exponentials and E[logit] of the student,
    then of each teacher the sum of exponentials and E[difference] under teacher and student, all to be divided."""
    student_exp_Nv = student_Nv.sub_(maxima[0][:, None]).exp()
    sums = [student_exp_Nv.sum(dim=1), torch.linalg.vecdot(student_exp_Nv, student_Nv)]
    for teacher_Nv, max_N in zip(teachers_Nv, maxima[1:], strict=True):
        teacher_exp_Nv = teacher_Nv.sub_(max_N[:, None]).exp()
        difference_Nv = teacher_Nv - student_Nv
        sums += [
            teacher_exp_Nv.sum(dim=1),
            torch.linalg.vecdot(teacher_exp_Nv, difference_Nv),
            torch.linalg.vecdot(student_exp_Nv, difference_Nv),
        ]
    return torch.stack(sums)


def exponentiate_(logits_Nv: Tensor, target_logit_N: Tensor) -> Tensor:
    """`local_statistics_` of rows without teachers whose kernels need no more than the target's log-prob: in place,
    every logit becomes the exponential of its distance to the row's largest."""
    rows, columns = logits_Nv.shape
    if columns == 0:
        return local_statistics_(logits_Nv, [], target_logit_N)
    device = logits_Nv.device
    blocks = [(b, cut) for b in row_blocks(rows, columns, device, blocks=2) for cut in column_blocks(columns, device)]
    scratch = logits_Nv.new_empty(max((b.stop - b.start) * (cut.stop - cut.start) for b, cut in blocks))
    max_N, sum_N, total_N = logits_Nv.new_zeros(3, rows)
    for b, cut in blocks:
        block_Nv = logits_Nv[b, cut]
        if cut.start == 0:
            torch.amax(logits_Nv[b], 1, out=max_N[b])
        centered_Nv = scratch[: block_Nv.numel()].view(block_Nv.shape)
        torch.sub(block_Nv, max_N[b, None], out=centered_Nv)
        torch.exp(centered_Nv, out=block_Nv)
        sum_N[b] += block_Nv.sum(dim=1)
        total_N[b] += centered_Nv.mul_(block_Nv).sum(dim=1)
    return torch.stack((max_N, sum_N.log(), total_N / sum_N, target_logit_N), dim=1)


def gather_statistics(local_NK: Tensor, tp_group: dist.ProcessGroup | None) -> Tensor:
    """Every rank's packed statistics, [r, N, K]. Collectives: one all-gather of N*K numbers; none without a
    group."""
    if tp_group is None or tp_group.size() == 1:
        return local_NK[None]
    gathered_rNK = local_NK.new_empty(tp_group.size(), *local_NK.shape)
    dist.all_gather_into_tensor(gathered_rNK.flatten(0, 1), local_NK.contiguous(), group=tp_group)
    return gathered_rNK


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GlobalSoftmax:
    """One side's softmax over the whole vocabulary; log-prob of a centred local logit = logit - shift_N."""

    max_N: Tensor
    log_sum_N: Tensor
    offset_rN: Tensor  # max_r - max
    share_rN: Tensor
    shift_N: Tensor

    @classmethod
    def of(cls, max_rN: Tensor, log_sum_rN: Tensor, rank: int, factor: float = 1.0) -> GlobalSoftmax:
        """`factor` multiplies the maxima, after their difference is taken; the logs are of logits that have it."""
        max_N = max_rN.amax(dim=0)
        offset_rN = max_rN - max_N
        if factor != 1.0:
            offset_rN = (offset_rN * factor).clamp(min=torch.finfo(offset_rN.dtype).min / 4)
        log_sum_N = torch.logsumexp(offset_rN + log_sum_rN, dim=0)
        return cls(
            max_N=max_N,
            log_sum_N=log_sum_N,
            offset_rN=offset_rN,
            share_rN=(offset_rN + log_sum_rN - log_sum_N).exp(),
            shift_N=log_sum_N - offset_rN[rank],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherStatistics:
    """kl_teacher_student_N = KL(teacher || student), kl_student_teacher_N = KL(student || teacher)."""

    softmax: GlobalSoftmax
    kl_teacher_student_N: Tensor
    kl_student_teacher_N: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkStatistics:
    student: GlobalSoftmax
    target_logp_N: Tensor
    entropy_N: Tensor
    teachers: tuple[TeacherStatistics, ...]


def combine_statistics(gathered_rNK: Tensor, rank: int, factor: float = 1.0) -> ChunkStatistics:
    """Global statistics of a chunk out of every rank's packed ones; the same bits on every rank but for
    shift_N. Of a scaled view (`ChunkLogits.scaled`) the target's log-prob is not to be read.

    entropy = log_sum - E_student[logit - M];  KL(teacher || student) = E_teacher[difference] -
    log_sum_teacher + log_sum_student;  KL(student || teacher) = -E_student[difference] - log_sum_student +
    log_sum_teacher. A KL smaller than about 1e-7 can come out as a rounding error of either sign; nothing
    here hides it.
    """
    columns = gathered_rNK.unbind(dim=2)
    student = GlobalSoftmax.of(columns[0], columns[1], rank, factor)
    teachers = []
    for first in range(STUDENT_COLUMNS, len(columns), TEACHER_COLUMNS):
        max_rN, log_sum_rN, under_teacher_rN, under_student_rN = columns[first : first + TEACHER_COLUMNS]
        teacher = GlobalSoftmax.of(max_rN, log_sum_rN, rank, factor)
        centering_rN = teacher.offset_rN - student.offset_rN
        log_sum_ratio_N = teacher.log_sum_N - student.log_sum_N
        teachers.append(
            TeacherStatistics(
                softmax=teacher,
                kl_teacher_student_N=(teacher.share_rN * (under_teacher_rN + centering_rN)).sum(dim=0)
                - log_sum_ratio_N,
                kl_student_teacher_N=log_sum_ratio_N
                - (student.share_rN * (under_student_rN + centering_rN)).sum(dim=0),
            )
        )
    return ChunkStatistics(
        student=student,
        target_logp_N=columns[3].sum(dim=0) - student.max_N - student.log_sum_N,
        entropy_N=student.log_sum_N - (student.share_rN * (columns[2] + student.offset_rN)).sum(dim=0),
        teachers=tuple(teachers),
    )
