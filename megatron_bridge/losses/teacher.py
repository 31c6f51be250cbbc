"""A teacher's hidden rows, and its logits formed chunk by chunk on the rank that needs them.

Legend: T tokens, R teacher rows, N rows of a chunk, H the teacher's hidden size, v = V / tp.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_bridge.losses import gemm
from trace_dsl.lowering.fused import FusedRouting


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherHidden:
    """A teacher at the tokens that need it.

    rows_T: int64 [R], which tokens of the call, each at most once; hidden_RH: its final hidden rows there;
    output_weight_vH: this rank's shard of its own output weight, cut as the student's. Gradients never reach
    it.
    """

    rows_T: Tensor
    hidden_RH: Tensor
    output_weight_vH: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherLogits:
    """A teacher ready for a sweep: position_T[t] is the row of hidden_RH for token t, -1 without one."""

    name: str
    hidden_RH: Tensor
    weight_vH: Tensor
    position_T: Tensor
    temperature: float
    dtype: torch.dtype

    @classmethod
    def of(
        cls,
        name: str,
        teacher: TeacherHidden,
        *,
        routing: FusedRouting,
        shard: int,
        columns: int,
        temperature: float,
        dtype: torch.dtype,
    ) -> TeacherLogits:
        """Check a teacher against the routing: `shard` padded columns on this rank, `columns` true ones.

        Raises ValueError where shapes disagree or a routed token has no hidden row.
        """
        rows_T, hidden_RH, weight_vH = (
            teacher.rows_T,
            teacher.hidden_RH.detach(),
            teacher.output_weight_vH.detach(),
        )
        if rows_T.shape != hidden_RH.shape[:1]:
            raise ValueError(f"rows_T of teacher {name!r} is {tuple(rows_T.shape)}: expected ({hidden_RH.shape[0]},)")
        if weight_vH.shape != (shard, hidden_RH.shape[1]):
            raise ValueError(
                f"output weight of teacher {name!r} is {tuple(weight_vH.shape)}: expected ({shard}, "
                f"{hidden_RH.shape[1]}), the student's vocabulary shard by the teacher's hidden size"
            )
        position_T = torch.full_like(routing.row_of_T, -1)
        position_T[rows_T] = torch.arange(rows_T.numel(), dtype=position_T.dtype, device=position_T.device)
        needed = routing.teacher_tokens(name)
        missing = int((position_T[needed] < 0).sum())
        if missing:
            raise ValueError(
                f"teacher {name!r} has no hidden row for {missing} of {needed.numel()} tokens that need it"
            )
        return cls(
            name=name,
            hidden_RH=hidden_RH,
            weight_vH=gemm.operand(weight_vH[:columns], dtype),
            position_T=position_T,
            temperature=temperature,
            dtype=dtype,
        )

    def at(self, rows_N: Tensor, buffers: gemm.Buffers) -> Tensor:
        """Logits of the given tokens over this rank's true columns, [N, v], in the buffer of this teacher's name."""
        hidden_NH = gemm.operand(self.hidden_RH[self.position_T[rows_N]], self.dtype)
        return gemm.logits(
            hidden_NH,
            self.weight_vH,
            temperature=self.temperature,
            dtype=self.dtype,
            out_Nv=buffers.take(f"teacher {self.name}", hidden_NH, self.weight_vH.shape[0], self.dtype),
        )
