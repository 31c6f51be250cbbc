"""The logits of one chunk of rows at one temperature, and the passes over them.

A pass runs over blocks of rows, so that its temporaries stay small; the logits themselves are the only
tensors of the chunk's size. They change meaning in place: logits, then log-probs, then the gradient.

Legend: N rows of a chunk, H hidden, v columns of the vocabulary on this rank, C channels, K packed
statistics, W terms of the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from megatron_bridge.losses.kernels import MIXTURE_COLUMNS, WideTerm, logit_gradient_, mixture_statistics
from megatron_bridge.losses.logit_gradient import LogitGradient, TargetPart
from megatron_bridge.losses.statistics import (
    ChunkStatistics,
    column_blocks,
    exponentiate_,
    local_statistics_,
    row_blocks,
)
from megatron_bridge.losses.support import Support, SupportChoice, SupportTerm, candidates
from megatron_bridge.losses.triton_choice import covers_kernels, covers_terms, runs_in_triton
from trace_dsl.lowering.fused import DivergenceKernel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkLogits:
    """Logits of the student and, by name, of every teacher of the rows, [N, v] each.

    first_column: the token id of this rank's first column; owned: the rows (int64, at most N of them) whose target
    is a column of this rank, and owned_column which one; narrow: no kernel of these rows needs more than the target's
    log-prob, so the first pass leaves exponentials; slopes_held: the teachers whose logits have become a kernel's g.
    """

    student_Nv: Tensor
    teachers_Nv: Mapping[str, Tensor]
    first_column: int
    owned: Tensor
    owned_column: Tensor
    narrow: bool = False
    slopes_held: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls, student_Nv: Tensor, teachers_Nv: Mapping[str, Tensor], *, target_N: Tensor, first_column: int
    ) -> ChunkLogits:
        """`target_N` are token ids of the whole vocabulary."""
        column_N = target_N - first_column
        owned = ((column_N >= 0) & (column_N < student_Nv.shape[1])).nonzero()[:, 0]
        return cls(
            student_Nv=student_Nv,
            teachers_Nv=teachers_Nv,
            first_column=first_column,
            owned=owned,
            owned_column=column_N[owned],
        )

    def scaled(self, factor: float, teachers: Sequence[str]) -> tuple[ChunkLogits, Tensor]:
        """A copy with the logits, the named teachers' alone, less their maximum and times `factor`; and the maxima of
        student and teachers, [N, 1 + teachers]. Before the first pass.

        Scaling logits around 1e4 would round away what their differences are made of.
        """
        logits = [self.student_Nv, *(self.teachers_Nv[name] for name in teachers)]
        if self.student_Nv.shape[1] == 0:
            lowest = torch.finfo(self.student_Nv.dtype).min
            maxima_NK = self.student_Nv.new_full((len(self.student_Nv), len(logits)), lowest)
        else:
            maxima_NK = torch.stack([logits_Nv.amax(dim=1) for logits_Nv in logits], dim=1)
        student_Nv, *teachers_Nv = (
            (logits_Nv - maxima_NK[:, k, None]).mul_(factor) for k, logits_Nv in enumerate(logits)
        )
        teachers_of = dict(zip(teachers, teachers_Nv, strict=True))
        return replace(self, student_Nv=student_Nv, teachers_Nv=teachers_of, slopes_held=set()), maxima_NK

    def with_teachers(self, teachers: Sequence[str], *, narrow: bool) -> ChunkLogits:
        """The same logits, of the named teachers alone; `narrow` ones have none."""
        assert not (narrow and teachers)
        return replace(self, teachers_Nv={name: self.teachers_Nv[name] for name in teachers}, narrow=narrow)

    def _blocks(self) -> list[slice]:
        rows, columns = self.student_Nv.shape
        return list(row_blocks(rows, columns, self.student_Nv.device))

    def _tiles(self) -> list[tuple[slice, slice]]:
        """As `_blocks`, with rows too wide for one block cut as well."""
        columns = self.student_Nv.shape[1]
        return [(b, cut) for b in self._blocks() for cut in column_blocks(columns, self.student_Nv.device)]

    def _target_logits(self, logits_Nv: Tensor) -> Tensor:
        """[N]: the target's logit where it is a column of this rank, else 0."""
        target_logit_N = logits_Nv.new_zeros(logits_Nv.shape[0])
        target_logit_N[self.owned] = logits_Nv[self.owned, self.owned_column]
        return target_logit_N

    def teacher_target_logits(self, teacher: str) -> Tensor:
        """This rank's part of a teacher's logit of the target, [N, 1]. Before the first pass."""
        return self._target_logits(self.teachers_Nv[teacher])[:, None]

    def candidates(self, choice: SupportChoice) -> Tensor:
        """This rank's candidates for a top-k support, [N, 2 size]. Before the first pass."""
        logits_Nv = self.student_Nv if choice.teacher is None else self.teachers_Nv[choice.teacher]
        return torch.cat([candidates(logits_Nv[b], choice.size, self.first_column) for b in self._blocks()])

    def local_statistics(self) -> Tensor:
        """First pass: packed statistics of this rank's columns, [N, K]; rows become relative to their
        maximum."""
        target_logit_N = self._target_logits(self.student_Nv)
        if runs_in_triton(self.student_Nv):
            from megatron_bridge.losses import triton_statistics

            return triton_statistics.local_statistics_(
                self.student_Nv, list(self.teachers_Nv.values()), target_logit_N, exponentials=self.narrow
            )
        if self.narrow:
            return exponentiate_(self.student_Nv, target_logit_N)
        packed = [
            local_statistics_(self.student_Nv[b], [u[b] for u in self.teachers_Nv.values()], target_logit_N[b])
            for b in self._blocks()
        ]
        return torch.cat(packed)

    def mixture_statistics(self, kernel: DivergenceKernel, statistics: ChunkStatistics, *, shared: bool) -> Tensor:
        """Second pass, where a kernel needs the global softmax: [N, MIXTURE_COLUMNS] of this rank.

        In torch, the logits of a teacher that is not `shared` with another kernel become this one's g, which the last
        pass would compute again: `slopes_held` has its name.
        """
        teacher_Nv, shift_N = self._with_shifts(statistics)[kernel.teacher]
        if runs_in_triton(self.student_Nv) and covers_kernels([kernel]):
            from megatron_bridge.losses import triton_statistics

            return triton_statistics.mixture_statistics(
                kernel,
                student_Nv=self.student_Nv,
                student_shift_N=statistics.student.shift_N.contiguous(),
                teacher_Nv=teacher_Nv,
                teacher_shift_N=shift_N,
            )
        held = not shared and kernel.pclip is None
        total_NK = self.student_Nv.new_zeros(len(self.student_Nv), MIXTURE_COLUMNS)
        for b, columns in self._tiles():
            total_NK[b] += mixture_statistics(
                kernel,
                student_logp_Nv=self.student_Nv[b, columns] - statistics.student.shift_N[b, None],
                teacher_logp_Nv=teacher_Nv[b, columns] - shift_N[b, None],
                slope_out_Nv=teacher_Nv[b, columns] if held else None,
            )
        if held:
            self.slopes_held.add(kernel.teacher)
        return total_NK

    def _with_shifts(self, statistics: ChunkStatistics) -> dict[str, tuple[Tensor, Tensor]]:
        return {
            name: (logits_Nv, teacher.softmax.shift_N.contiguous())
            for (name, logits_Nv), teacher in zip(self.teachers_Nv.items(), statistics.teachers, strict=True)
        }

    def support_log_probs(self, teacher: str, support: Support, statistics: ChunkStatistics) -> Tensor:
        """Second pass, where there is a top-k support: this rank's log-probs of both sides, [N, 2 (S + 1)]."""
        softmax = statistics.teachers[list(self.teachers_Nv).index(teacher)].softmax
        sides = []
        for logits_Nv, side in (
            (self.student_Nv, statistics.student),
            (self.teachers_Nv[teacher], softmax),
        ):
            parts = [support.at(b).log_probs_(logits_Nv[b] - side.shift_N[b, None]) for b in self._blocks()]
            sides.append(torch.cat(parts))
        return torch.cat(sides, dim=1)

    def gradient_(
        self, statistics: ChunkStatistics, *, target_slope_N: Tensor, terms: Sequence[WideTerm]
    ) -> tuple[LogitGradient, Tensor]:
        """Last pass: the student's logits become d loss / d logits, [N, v]; the teachers' are used up.

        Also, [terms, N], the sum of each term's absolute gradients over this rank's columns.
        """
        if self.narrow:
            target = TargetPart(
                scale_N=-target_slope_N * torch.exp(-statistics.student.shift_N),
                row_n=self.owned,
                column_n=self.owned_column,
                slope_n=target_slope_N[self.owned],
            )
            return LogitGradient(body_Nv=self.student_Nv, target=target), self.student_Nv.new_zeros(0)
        if runs_in_triton(self.student_Nv) and covers_terms(terms):
            from megatron_bridge.losses import triton_gradient

            norm_WN = triton_gradient.logit_gradient_(
                self.student_Nv,
                statistics.student.shift_N.contiguous(),
                self._with_shifts(statistics),
                target_slope_N=target_slope_N,
                terms=terms,
            )
        else:
            norm_WN = self._write_gradient_(statistics, target_slope_N, terms)
        self.student_Nv[self.owned, self.owned_column] += target_slope_N[self.owned]
        return LogitGradient(body_Nv=self.student_Nv), norm_WN

    def _write_gradient_(
        self, statistics: ChunkStatistics, target_slope_N: Tensor, terms: Sequence[WideTerm]
    ) -> Tensor:
        sampled = target_slope_N.is_cuda or bool(target_slope_N.any())  # a GPU is not waited for
        supports = any(isinstance(term, SupportTerm) for term in terms)  # their columns are the whole row's
        teachers = self._with_shifts(statistics)
        norm_WN = self.student_Nv.new_zeros(len(terms), len(self.student_Nv))
        for b, columns in [(b, slice(None)) for b in self._blocks()] if supports else self._tiles():
            student_logp_Nv = self.student_Nv[b, columns].sub_(statistics.student.shift_N[b, None])
            teacher_logp_Nv = {}
            for name, (logits_Nv, shift_N) in teachers.items():
                part_Nv = logits_Nv[b, columns]
                teacher_logp_Nv[name] = part_Nv if name in self.slopes_held else part_Nv.sub_(shift_N[b, None])
            norm_WN[:, b] += logit_gradient_(
                student_logp_Nv,
                teacher_logp_Nv,
                target_slope_N=target_slope_N[b] if sampled else None,
                terms=[term.at(b) for term in terms],
            )
        return norm_WN
