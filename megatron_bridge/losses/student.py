"""Where the student's logits come from and where their gradient goes: the output layer, or logits that are given.

Legend: T tokens, N rows of a chunk, H hidden, v padded columns of the vocabulary on this rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from megatron_bridge.losses import gemm

STUDENT = "student"  # whose buffer it is


class Student(Protocol):
    """The rows of a call. `dtype` is that of logits and statistics, `columns` the true columns of this rank."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def wants_gradient(self) -> bool: ...

    def logits(self, rows_N: Tensor, buffers: gemm.Buffers) -> Tensor:
        """Logits of the given rows over this rank's true columns at the call's temperature, in the student's buffer."""

    def add_gradient_(self, rows_N: Tensor, gradient_Nv: Tensor) -> None:
        """Take d loss / d `logits(rows_N)`, which is used up. Each row comes once in a sweep."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearStudent:
    """Hidden rows and the output weight; weight_vH has the true columns alone, as an operand of `gemm`.

    hidden_gradient_TH is this rank's part, weight_gradient_vH has the padded columns too; None where nobody asked.
    """

    hidden_TH: Tensor
    weight_vH: Tensor
    temperature: float
    dtype: torch.dtype
    hidden_gradient_TH: Tensor | None
    weight_gradient_vH: Tensor | None

    @classmethod
    def of(
        cls, hidden_TH: Tensor, output_weight_vH: Tensor, *, columns: int, temperature: float, wants: tuple[bool, bool]
    ) -> LinearStudent:
        """`wants`: whether the hidden rows and the weight need a gradient."""
        dtype = gemm.compute_dtype(hidden_TH.dtype)
        hidden, weight = (
            torch.zeros(tensor.shape, dtype=dtype, device=tensor.device) if wanted else None
            for tensor, wanted in zip((hidden_TH, output_weight_vH), wants, strict=True)
        )
        return cls(
            hidden_TH=hidden_TH,
            weight_vH=gemm.operand(output_weight_vH[:columns], dtype),
            temperature=temperature,
            dtype=dtype,
            hidden_gradient_TH=hidden,
            weight_gradient_vH=weight,
        )

    @property
    def wants_gradient(self) -> bool:
        return self.hidden_gradient_TH is not None or self.weight_gradient_vH is not None

    def logits(self, rows_N: Tensor, buffers: gemm.Buffers) -> Tensor:
        hidden_NH = gemm.operand(self.hidden_TH[rows_N], self.dtype)
        out_Nv = buffers.take(STUDENT, len(rows_N), len(self.weight_vH), dtype=self.dtype, device=self.hidden_TH.device)
        return gemm.logits(hidden_NH, self.weight_vH, temperature=self.temperature, dtype=self.dtype, out_Nv=out_Nv)

    def add_gradient_(self, rows_N: Tensor, gradient_Nv: Tensor) -> None:
        if self.temperature != 1.0:
            gradient_Nv /= self.temperature
        if self.hidden_gradient_TH is not None:
            self.hidden_gradient_TH[rows_N] = gemm.product(gradient_Nv, self.weight_vH, self.dtype)
        if self.weight_gradient_vH is not None:
            hidden_NH = gemm.operand(self.hidden_TH[rows_N], self.dtype)
            columns = len(self.weight_vH)
            gemm.add_product_(self.weight_gradient_vH[:columns], gradient_Nv.t(), hidden_NH)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GivenStudent:
    """Logits as an engine hands them out, padding included; gradient_Tv in their dtype, None where nobody asked."""

    logits_Tv: Tensor
    columns: int
    temperature: float
    dtype: torch.dtype
    gradient_Tv: Tensor | None

    @property
    def wants_gradient(self) -> bool:
        return self.gradient_Tv is not None

    def logits(self, rows_N: Tensor, buffers: gemm.Buffers) -> Tensor:
        out_Nv = buffers.take(STUDENT, len(rows_N), self.columns, dtype=self.dtype, device=self.logits_Tv.device)
        return given_logits(self.logits_Tv, rows_N, temperature=self.temperature, out_Nv=out_Nv)

    def add_gradient_(self, rows_N: Tensor, gradient_Nv: Tensor) -> None:
        assert self.gradient_Tv is not None
        if self.temperature != 1.0:
            gradient_Nv /= self.temperature
        self.gradient_Tv[rows_N, : self.columns] = gradient_Nv.to(self.gradient_Tv.dtype)


def given_logits(logits_Rv: Tensor, rows_N: Tensor, *, temperature: float, out_Nv: Tensor) -> Tensor:
    """Some rows of given logits over their first columns, divided by the temperature: copied into `out_Nv`."""
    true_Rv = logits_Rv[:, : out_Nv.shape[1]]
    if true_Rv.dtype == out_Nv.dtype:
        torch.index_select(true_Rv, 0, rows_N, out=out_Nv)
    else:
        out_Nv.copy_(true_Rv.index_select(0, rows_N))
    return out_Nv if temperature == 1.0 else out_Nv.div_(temperature)
