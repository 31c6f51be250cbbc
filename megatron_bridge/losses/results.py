"""What the routed loss returns.

Legend: T tokens, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenStatistics:
    """Detached per-token numbers, the same on every tp rank. NaN means "not evaluated", never zero.

    logp_T: log-prob of the target; entropy_T: entropy of the student; both at rows with weight on some
    channel, or at all rows with `evaluate_all`. value_CT: each kernel's value where its channel has weight.
    clipped_T: a clip made the policy gradient zero there.
    """

    logp_T: Tensor
    entropy_T: Tensor
    value_CT: Tensor
    clipped_T: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoutedLoss:
    """loss: scalar with a gradient; loss_C: detached float64, what each channel adds to it."""

    loss: Tensor
    loss_C: Tensor
    stats: TokenStatistics

    @classmethod
    def of(cls, outputs: tuple[Tensor, ...]) -> RoutedLoss:
        """Out of what the autograd functions of this package return."""
        loss, loss_C, logp_T, entropy_T, value_CT, clipped_T = outputs
        stats = TokenStatistics(logp_T=logp_T, entropy_T=entropy_T, value_CT=value_CT, clipped_T=clipped_T)
        return cls(loss=loss, loss_C=loss_C, stats=stats)
