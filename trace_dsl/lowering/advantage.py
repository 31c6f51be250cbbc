"""Advantages from rewards, group by group.

`group` is (R - mean) / std over the rollouts of one prompt (GRPO, arXiv 2402.03300; std with Bessel's correction) or
R - mean without the scale (Dr. GRPO, arXiv 2503.20783); `loo` subtracts the mean of the others (RLOO, arXiv
2402.14740); `none` is the reward. A group whose rewards are all equal, a group of one among
them, has advantage exactly zero.
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from trace_dsl.model import AdvantageEstimator, EstimatorKind


def group_ids(group_R: Tensor, source_R: tuple[str, ...]) -> Tensor:
    """int64 [R]: dense numbers of (prompt, rollout source) pairs; extra rollouts never share a baseline with plain
    ones.
    """
    numbers: dict[tuple[int, str], int] = {}
    pairs = zip(group_R.tolist(), source_R, strict=True)
    return torch.tensor([numbers.setdefault(pair, len(numbers)) for pair in pairs], dtype=torch.int64)


def estimate_advantage(reward_R: Tensor, group_R: Tensor, estimator: AdvantageEstimator) -> Tensor:
    """float64 [R]: the advantage of each rollout; `group_R` as from `group_ids`."""
    reward_R = reward_R.double()
    if estimator.kind is EstimatorKind.NONE or len(reward_R) == 0:
        return reward_R
    groups = int(group_R.max()) + 1
    zeros_G = torch.zeros(groups, dtype=torch.float64)
    size_G = zeros_G.index_add(0, group_R, torch.ones_like(reward_R))
    centered_R = reward_R - (zeros_G.index_add(0, group_R, reward_R) / size_G)[group_R]
    others_R = (size_G - 1)[group_R]
    # rewards that are all equal may leave a rounding error behind: their advantage is zero by definition
    high_G = zeros_G.scatter_reduce(0, group_R, reward_R, "amax", include_self=False)
    low_G = zeros_G.scatter_reduce(0, group_R, reward_R, "amin", include_self=False)
    centered_R = torch.where((high_G == low_G)[group_R], 0.0, centered_R)
    match estimator.kind:
        case EstimatorKind.GROUP:
            if estimator.scale_by_std:
                squared_G = zeros_G.index_add(0, group_R, centered_R**2)
                std_R = (squared_G[group_R] / others_R.clamp(min=1)).sqrt()
                centered_R = torch.where(std_R > 0, centered_R / torch.where(std_R > 0, std_R, 1.0), 0.0)
        case EstimatorKind.LEAVE_ONE_OUT:
            # R - mean of the others = (R - mean of all) n / (n - 1)
            centered_R = centered_R * (others_R + 1) / others_R.clamp(min=1)
        case _:
            assert_never(estimator.kind)
    return centered_R
