"""Where the student's logits come from and where their gradient goes: the output layer, or logits that are given.

Legend: T tokens, N rows of a chunk, H hidden, v padded columns of the vocabulary on this rank.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from megatron_bridge.losses import gemm
from megatron_bridge.losses.logit_gradient import LogitGradient

STUDENT = "student"  # whose buffer it is


class Student(Protocol):
    """The rows of a call. `dtype` is that of logits and statistics, `columns` the true columns of this rank."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def wants_gradient(self) -> bool: ...

    def logits(self, rows_N: Tensor, buffers: gemm.Buffers) -> Tensor:
        """Logits of the given rows over this rank's true columns at the call's temperature, in the student's buffer."""

    def add_gradient_(self, rows_N: Tensor, gradient: LogitGradient) -> None:
        """Take d loss / d `logits(rows_N)`, which is used up. Each row comes once in a sweep."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearStudent:
    """Hidden rows and the output weight; weight_vH has the true columns alone, as an operand of `gemm`.

    hidden_gradient_TH is this rank's part, weight_gradient_vH has the padded columns too; None where nobody asked. The
    weight's has no numbers before `finish`: the first chunk writes it, others add to it.
    """

    hidden_TH: Tensor
    weight_vH: Tensor
    temperature: float
    dtype: torch.dtype
    hidden_gradient_TH: Tensor | None
    weight_gradient_vH: Tensor | None
    started: list[bool] = field(default_factory=list)  # holds True once the weight's gradient has numbers

    @classmethod
    def of(
        cls, hidden_TH: Tensor, output_weight_vH: Tensor, *, columns: int, temperature: float, wants: tuple[bool, bool]
    ) -> LinearStudent:
        """`wants`: whether the hidden rows and the weight need a gradient."""
        dtype = gemm.compute_dtype(hidden_TH.dtype)
        device = hidden_TH.device
        hidden = torch.zeros(hidden_TH.shape, dtype=dtype, device=device) if wants[0] else None
        weight = torch.empty(output_weight_vH.shape, dtype=dtype, device=device) if wants[1] else None
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

    def add_gradient_(self, rows_N: Tensor, gradient: LogitGradient) -> None:
        # a bfloat16 operand would round what must cancel against the target; CUDA's index_add is not deterministic
        exact = self.weight_vH.dtype == self.dtype and not self.weight_vH.is_cuda
        target = gradient.target if exact else None
        body_Nv = gradient.written_() if target is None else gradient.body_Nv
        if self.hidden_gradient_TH is not None:
            part_NH = gemm.product(body_Nv, self.weight_vH, self.dtype)
            if target is not None:
                part_NH *= target.scale_N[:, None]
                part_NH[target.row_n] += target.slope_n[:, None] * self.weight_vH[target.column_n]
            if self.temperature != 1.0:
                part_NH /= self.temperature
            self.hidden_gradient_TH[rows_N] = part_NH
        if self.weight_gradient_vH is not None:
            hidden_NH = gemm.operand(self.hidden_TH[rows_N], self.dtype)
            if self.temperature != 1.0:
                if exact:
                    hidden_NH = hidden_NH / self.temperature
                else:
                    body_Nv /= self.temperature
            scaled_NH = hidden_NH if target is None else hidden_NH * target.scale_N[:, None]
            total_vH = self.weight_gradient_vH[: len(self.weight_vH)]
            gemm.add_product_(total_vH, body_Nv.t(), scaled_NH, fresh=not self.started)
            if target is not None:
                total_vH.index_add_(0, target.column_n, target.slope_n[:, None] * hidden_NH[target.row_n])
            self.started.append(True)

    def finish(self) -> None:
        """After the last chunk: zeros where no chunk has written."""
        if self.weight_gradient_vH is not None:
            self.weight_gradient_vH[len(self.weight_vH) if self.started else 0 :].zero_()


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

    def add_gradient_(self, rows_N: Tensor, gradient: LogitGradient) -> None:
        assert self.gradient_Tv is not None
        gradient_Nv = gradient.written_()
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
