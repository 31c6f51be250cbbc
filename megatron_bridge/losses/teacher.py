"""A teacher's hidden rows or logits, taken chunk by chunk on the rank that needs them.

Legend: T tokens, R teacher rows, N rows of a chunk, H the teacher's hidden size, v = V / tp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from megatron_bridge.losses import gemm
from megatron_bridge.losses.student import given_logits
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
    """A teacher at the tokens that need it: rows_T as in `TeacherHidden`, logits_Rv cut as the student's."""

    rows_T: Tensor
    logits_Rv: Tensor


class TeacherRows(Protocol):
    """A teacher ready for a sweep."""

    def at(self, rows_N: Tensor, buffers: gemm.Buffers, name: str) -> Tensor:
        """Logits of the given tokens over this rank's true columns at the call's temperature, in the named buffer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HiddenTeacherRows:
    """position_T[t] is the row of hidden_RH for token t, -1 without one."""

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
    ) -> HiddenTeacherRows:
        """Check a teacher against the routing: `shard` padded columns on this rank, `columns` true ones.

        Raises ValueError where shapes disagree or a routed token has no hidden row, TypeError for dtypes.
        """
        hidden_RH, weight_vH = teacher.hidden_RH.detach(), teacher.output_weight_vH.detach()
        if hidden_RH.dtype != weight_vH.dtype:
            raise TypeError(
                f"hidden rows of teacher {name!r} are {hidden_RH.dtype}, its output weight {weight_vH.dtype}: "
                "expected equal"
            )
        _check_dtype(f"hidden rows and output weight of teacher {name!r}", weight_vH.dtype, dtype)
        if weight_vH.shape != (shard, hidden_RH.shape[1]):
            raise ValueError(
                f"output weight of teacher {name!r} is {tuple(weight_vH.shape)}: expected ({shard}, "
                f"{hidden_RH.shape[1]}), the student's vocabulary shard by the teacher's hidden size"
            )
        return cls(
            hidden_RH=hidden_RH,
            weight_vH=gemm.operand(weight_vH[:columns], dtype),
            position_T=_positions(name, teacher.rows_T, len(hidden_RH), routing, "hidden row"),
            temperature=temperature,
            dtype=dtype,
        )

    def at(self, rows_N: Tensor, buffers: gemm.Buffers, name: str) -> Tensor:
        hidden_NH = gemm.operand(self.hidden_RH[self.position_T[rows_N]], self.dtype)
        out_Nv = buffers.take(name, len(rows_N), len(self.weight_vH), dtype=self.dtype, device=rows_N.device)
        return gemm.logits(hidden_NH, self.weight_vH, temperature=self.temperature, dtype=self.dtype, out_Nv=out_Nv)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GivenTeacherRows:
    """position_T[t] is the row of logits_Rv for token t, -1 without one."""

    logits_Rv: Tensor
    columns: int
    position_T: Tensor
    temperature: float
    dtype: torch.dtype

    @classmethod
    def of(
        cls,
        name: str,
        teacher: TeacherLogits,
        *,
        routing: FusedRouting,
        shard: int,
        columns: int,
        temperature: float,
        dtype: torch.dtype,
    ) -> GivenTeacherRows:
        """As `HiddenTeacherRows.of`."""
        logits_Rv = teacher.logits_Rv.detach()
        _check_dtype(f"logits of teacher {name!r}", logits_Rv.dtype, dtype)
        if logits_Rv.shape[1:] != (shard,):
            raise ValueError(
                f"logits of teacher {name!r} are {tuple(logits_Rv.shape)}: expected [rows, {shard}], the student's "
                "vocabulary shard"
            )
        return cls(
            logits_Rv=logits_Rv,
            columns=columns,
            position_T=_positions(name, teacher.rows_T, len(logits_Rv), routing, "row of logits"),
            temperature=temperature,
            dtype=dtype,
        )

    def at(self, rows_N: Tensor, buffers: gemm.Buffers, name: str) -> Tensor:
        out_Nv = buffers.take(name, len(rows_N), self.columns, dtype=self.dtype, device=rows_N.device)
        return given_logits(self.logits_Rv, self.position_T[rows_N], temperature=self.temperature, out_Nv=out_Nv)


def _check_dtype(what: str, given: torch.dtype, dtype: torch.dtype) -> None:
    """A teacher is computed in the student's precision: neither may be rounded to the other's in silence."""
    computed = gemm.compute_dtype(given, what)
    if computed != dtype:
        raise TypeError(
            f"{what} are {given}, computed in {computed}, and the student is computed in {dtype}: cast one of them "
            "(float64 goes with float64 alone)"
        )


def _positions(name: str, rows_T: Tensor, rows: int, routing: FusedRouting, what: str) -> Tensor:
    if rows_T.shape != (rows,):
        raise ValueError(f"rows_T of teacher {name!r} is {tuple(rows_T.shape)}: expected ({rows},)")
    position_T = torch.full_like(routing.row_of_T, -1)
    position_T[rows_T] = torch.arange(rows, dtype=position_T.dtype, device=position_T.device)
    needed = routing.teacher_tokens(name)
    missing = int((position_T[needed] < 0).sum())
    if missing:
        raise ValueError(f"teacher {name!r} has no {what} for {missing} of {needed.numel()} tokens that need it")
    return position_T
