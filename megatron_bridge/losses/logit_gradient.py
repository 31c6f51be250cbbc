"""d loss / d logits of a chunk, in the form in which the products with it cost least.

Legend: N rows of a chunk, H hidden, v columns of the vocabulary on this rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TargetPart:
    """What rows of policy gradients and likelihoods alone have: scale_N multiplies the rows of `LogitGradient.body_Nv`,
    slope_n is added at row_n and column_n, the targets that are columns of this rank."""

    scale_N: Tensor
    row_n: Tensor
    column_n: Tensor
    slope_n: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogitGradient:
    """body_Nv is the gradient, or with `target` the exponentials that it is made of."""

    body_Nv: Tensor
    target: TargetPart | None = None

    def written_(self) -> Tensor:
        """The gradient as one tensor, [N, v], over body_Nv."""
        if self.target is not None:
            self.body_Nv.mul_(self.target.scale_N[:, None])
            self.body_Nv[self.target.row_n, self.target.column_n] += self.target.slope_n
        return self.body_Nv
