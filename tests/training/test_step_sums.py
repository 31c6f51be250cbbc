"""What a step sums up over the tokens of its micro-batches."""

from __future__ import annotations

import pytest
import torch

from megatron_bridge.losses import RoutedLoss, TokenStatistics
from megatron_bridge.training.microbatch import MicroBatch, Sequences
from megatron_bridge.training.step_sums import token_sums
from trace_dsl.lowering.fused import CispoKernel, DivergenceKernel, FusedKernel, FusedRouting, PolicyGradientKernel
from trace_dsl.model import DivergenceKind

FKL = DivergenceKernel(DivergenceKind.FKL, "teacher")


@pytest.mark.parametrize("kernel", [PolicyGradientKernel(0.2, 0.2), CispoKernel(0.2)], ids=["grpo", "cispo"])
def test_clips_are_counted_among_the_tokens_that_have_a_ratio(kernel: FusedKernel) -> None:
    """Four tokens with a divergence, two of them and a third with a ratio, one clipped: a third, not a quarter."""
    nothing_t = torch.zeros(0, dtype=torch.int64)
    weight_CT = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5, 0.5, 0.0]])
    batch = MicroBatch(
        rollouts=(),
        place_T=torch.arange(6),
        sequences=Sequences(
            ids_bs=nothing_t[None], places_s=nothing_t, here_t=nothing_t, at_t=nothing_t, row_t=nothing_t
        ),
        row_T=torch.zeros(6, dtype=torch.int64),
        target_T=torch.zeros(6, dtype=torch.int64),
        old_logp_T=torch.zeros(6),
        proximal_logp_T=None,
        fresh_T=torch.ones(6, dtype=torch.bool),
        routing=FusedRouting(
            kernels=(FKL, kernel),
            weight_CT=weight_CT,
            advantage_CT=torch.ones(2, 6),
            row_of_T=torch.zeros(6, dtype=torch.int64),
        ),
    )
    result = RoutedLoss(
        loss=torch.tensor(0.0),
        loss_C=torch.zeros(2, dtype=torch.float64),
        stats=TokenStatistics(
            logp_T=torch.zeros(6),
            entropy_T=torch.ones(6),
            value_CT=torch.zeros(2, 6),
            clipped_CT=torch.tensor([[False] * 6, [False, False, True, False, False, False]]),
            gradient_norm_CT=torch.ones(2, 6),
        ),
    )
    sums = token_sums(result, batch)
    assert (float(sums["clipped"]), float(sums["ratios"]), float(sums["evaluated"])) == (1.0, 3.0, 5.0)
