"""What the routed loss returns.

Legend: T tokens, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenStatistics:
    """Detached per-token numbers, the same on every tp rank but for the last. NaN means "not evaluated", never zero.

    logp_T: log-prob of the target; entropy_T: entropy of the student; both at rows with weight on some
    channel, or at all rows with `evaluate_all`. value_CT: each kernel's value where its channel has weight.
    clipped_CT: a clip made the policy gradient zero there, or bounded the weight of a cispo. gradient_norm_CT: the sum
    over the vocabulary of |d (weight value) / d logit|, logits at the call's temperature: this rank's part, those of
    the tp ranks add up to it; evaluated with a gradient alone.
    """

    logp_T: Tensor
    entropy_T: Tensor
    value_CT: Tensor
    clipped_CT: Tensor
    gradient_norm_CT: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoutedLoss:
    """loss: scalar with a gradient; loss_C: detached float64, what each channel adds to it."""

    loss: Tensor
    loss_C: Tensor
    stats: TokenStatistics

    @classmethod
    def of(cls, outputs: tuple[Tensor, ...]) -> RoutedLoss:
        """Out of what the autograd functions of this package return."""
        loss, loss_C, logp_T, entropy_T, value_CT, clipped_CT, gradient_norm_CT = outputs
        stats = TokenStatistics(
            logp_T=logp_T,
            entropy_T=entropy_T,
            value_CT=value_CT,
            clipped_CT=clipped_CT,
            gradient_norm_CT=gradient_norm_CT,
        )
        return cls(loss=loss, loss_C=loss_C, stats=stats)
