"""The logits of one chunk of rows, and the three passes over them.

A pass runs over blocks of rows, so that its temporaries stay small; the logits themselves are the only
tensors of the chunk's size. They change meaning in place: logits, then log-probs, then the gradient.

Legend: N rows of a chunk, H hidden, v columns of the vocabulary on this rank, C channels, K packed
statistics.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from megatron_bridge.losses.kernels import (
    DivergenceTerm,
    EntropyTerm,
    logit_gradient_,
    mixture_statistics,
)
from megatron_bridge.losses.statistics import ChunkStatistics, local_statistics_, row_blocks
from megatron_bridge.losses.triton_choice import covers_kernels, covers_terms, runs_in_triton
from trace_dsl.lowering.fused import DivergenceKernel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkLogits:
    """Logits of the student and, by name, of every teacher of the rows, [N, v] each.

    owned: the rows (int64, at most N of them) whose target is a column of this rank, and owned_column which
    one; narrow: no kernel of these rows needs more than the target's log-prob, so the first pass leaves
    exponentials.
    """

    student_Nv: Tensor
    teachers_Nv: Mapping[str, Tensor]
    owned: Tensor
    owned_column: Tensor
    narrow: bool
    slopes_held: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        student_Nv: Tensor,
        teachers_Nv: Mapping[str, Tensor],
        *,
        target_N: Tensor,
        first_column: int,
        narrow: bool,
    ) -> ChunkLogits:
        """`target_N` are token ids of the whole vocabulary, `first_column` is this rank's first one."""
        column_N = target_N - first_column
        owned = ((column_N >= 0) & (column_N < student_Nv.shape[1])).nonzero()[:, 0]
        return cls(
            student_Nv=student_Nv, teachers_Nv=teachers_Nv, owned=owned, owned_column=column_N[owned], narrow=narrow
        )

    def _blocks(self) -> list[slice]:
        rows, columns = self.student_Nv.shape
        return list(row_blocks(rows, columns, self.student_Nv.device))

    def local_statistics(self) -> Tensor:
        """First pass: packed statistics of this rank's columns, [N, K]; rows become relative to their
        maximum."""
        target_logit_N = self.student_Nv.new_zeros(self.student_Nv.shape[0])
        target_logit_N[self.owned] = self.student_Nv[self.owned, self.owned_column]
        if runs_in_triton(self.student_Nv):
            from megatron_bridge.losses import triton_statistics

            return triton_statistics.local_statistics_(
                self.student_Nv, list(self.teachers_Nv.values()), target_logit_N, exponentials=self.narrow
            )
        packed = [
            local_statistics_(
                self.student_Nv[b],
                [u[b] for u in self.teachers_Nv.values()],
                target_logit_N[b],
                exponentials=self.narrow,
            )
            for b in self._blocks()
        ]
        return torch.cat(packed)

    def mixture_statistics(
        self, kernels: Sequence[DivergenceKernel], statistics: ChunkStatistics, *, shared: Container[str]
    ) -> Tensor:
        """Second pass, where there are jsd, skl or srkl kernels: [N, MIXTURE_COLUMNS * kernels] of this rank.

        In torch, the logits of a teacher that is not `shared` with another kernel become its kernel's g, which the
        last pass would compute again: `slopes_held` has its name.
        """
        if runs_in_triton(self.student_Nv) and covers_kernels(kernels):
            from megatron_bridge.losses import triton_statistics

            return triton_statistics.mixture_statistics(
                kernels,
                student_Nv=self.student_Nv,
                student_shift_N=statistics.student.shift_N.contiguous(),
                teachers=self._with_shifts(statistics),
            )
        packed = []
        for b in self._blocks():
            student_logp_Nv = self.student_Nv[b] - statistics.student.shift_N[b, None]
            teacher_logp_Nv = {
                name: logits_Nv[b] - teacher.softmax.shift_N[b, None]
                for (name, logits_Nv), teacher in zip(self.teachers_Nv.items(), statistics.teachers, strict=True)
            }
            parts = [
                mixture_statistics(
                    kernel,
                    student_logp_Nv=student_logp_Nv,
                    teacher_logp_Nv=teacher_logp_Nv[kernel.teacher],
                    slope_out_Nv=None if kernel.teacher in shared else self.teachers_Nv[kernel.teacher][b],
                )
                for kernel in kernels
            ]
            packed.append(torch.cat(parts, dim=1))
        self.slopes_held.update(kernel.teacher for kernel in kernels if kernel.teacher not in shared)
        return torch.cat(packed)

    def _with_shifts(self, statistics: ChunkStatistics) -> dict[str, tuple[Tensor, Tensor]]:
        return {
            name: (logits_Nv, teacher.softmax.shift_N.contiguous())
            for (name, logits_Nv), teacher in zip(self.teachers_Nv.items(), statistics.teachers, strict=True)
        }

    def gradient_(
        self, statistics: ChunkStatistics, *, target_slope_N: Tensor, terms: Sequence[EntropyTerm | DivergenceTerm]
    ) -> Tensor:
        """Last pass: the student's logits become d loss / d logits, [N, v]; the teachers' are used up."""
        if self.narrow:
            self.student_Nv.mul_((-target_slope_N * torch.exp(-statistics.student.shift_N))[:, None])
        elif runs_in_triton(self.student_Nv) and covers_terms(terms):
            from megatron_bridge.losses import triton_gradient

            triton_gradient.logit_gradient_(
                self.student_Nv,
                statistics.student.shift_N.contiguous(),
                self._with_shifts(statistics),
                target_slope_N=target_slope_N,
                terms=terms,
            )
        else:
            self._write_gradient_(statistics, target_slope_N, terms)
        self.student_Nv[self.owned, self.owned_column] += target_slope_N[self.owned]
        return self.student_Nv

    def _write_gradient_(
        self, statistics: ChunkStatistics, target_slope_N: Tensor, terms: Sequence[EntropyTerm | DivergenceTerm]
    ) -> None:
        for b in self._blocks():
            student_logp_Nv = self.student_Nv[b].sub_(statistics.student.shift_N[b, None])
            teacher_logp_Nv = {
                name: logits_Nv[b] if name in self.slopes_held else logits_Nv[b].sub_(teacher.softmax.shift_N[b, None])
                for (name, logits_Nv), teacher in zip(self.teachers_Nv.items(), statistics.teachers, strict=True)
            }
            logit_gradient_(
                student_logp_Nv,
                teacher_logp_Nv,
                target_slope_N=target_slope_N[b],
                terms=[term.at(b) for term in terms],
            )
