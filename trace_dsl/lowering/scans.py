"""Scans along a response, from its first token to its last; nothing passes from one response to the next.

Legend: T tokens, R rollouts, L the longest response.
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from trace_dsl.terms import Scan


def scan_responses(scan: Scan, value_T: Tensor, length_R: Tensor, amount: float | None) -> Tensor:
    """float64 [T]: the scan of every response.

    cumcount(p): tokens so far, this one included, at which p holds; until(p): holds before the first token at which p
    holds, and everywhere without one; window_min(x, n), window_mean(x, n): over this token and the n - 1 before it,
    as far as there are; reward_to_go(x, gamma): sum of gamma^k x over this token (k = 0) and those after it.
    """
    if len(value_T) == 0:
        return value_T
    row_T = torch.repeat_interleave(torch.arange(len(length_R)), length_R)
    at_T = torch.arange(len(value_T)) - (length_R.cumsum(0) - length_R)[row_T]
    value_RL = torch.zeros(len(length_R), int(length_R.max()), dtype=torch.float64)
    value_RL[row_T, at_T] = value_T
    return _scan(scan, value_RL, length_R, amount)[row_T, at_T]


def _scan(scan: Scan, value_RL: Tensor, length_R: Tensor, amount: float | None) -> Tensor:
    match scan:
        case Scan.CUMCOUNT:
            return value_RL.cumsum(1)
        case Scan.UNTIL:
            return (value_RL.cumsum(1) == 0).double()
        case Scan.WINDOW_MIN:
            assert amount is not None
            before = torch.full((len(value_RL), int(amount) - 1), torch.inf, dtype=torch.float64)
            return torch.cat((before, value_RL), 1).unfold(1, int(amount), 1).amin(-1)
        case Scan.WINDOW_MEAN:
            assert amount is not None
            before = torch.zeros(len(value_RL), int(amount) - 1, dtype=torch.float64)
            summed_RL = torch.cat((before, value_RL), 1).unfold(1, int(amount), 1).sum(-1)
            return summed_RL / torch.arange(1, value_RL.shape[1] + 1).clamp(max=int(amount))
        case Scan.REWARD_TO_GO:
            assert amount is not None
            result_RL = value_RL.clone()  # places behind a response hold 0 and add nothing
            for at in range(value_RL.shape[1] - 2, -1, -1):
                result_RL[:, at] += amount * result_RL[:, at + 1]
            return result_RL
        case Scan.LATCH:
            raise ValueError("latch carries state across steps; it is no scan along a response")
        case _:
            assert_never(scan)
