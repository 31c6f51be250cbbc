"""What a step sums up over the tokens of its micro-batches."""

from __future__ import annotations

import pytest
import torch

from megatron_bridge.losses import RoutedLoss, TokenStatistics
from megatron_bridge.training.microbatch import MicroBatch, Sequences
from megatron_bridge.training.step_sums import Credit, credit_of, token_sums
from trace_dsl.lowering.fused import (
    CispoKernel,
    DivergenceKernel,
    FusedKernel,
    FusedRouting,
    NllKernel,
    PolicyGradientKernel,
)
from trace_dsl.model import DivergenceKind

FKL = DivergenceKernel(DivergenceKind.FKL, "teacher")


def batch_of(routing: FusedRouting) -> MicroBatch:
    """Tokens of one response with an old log-prob of 0, drawn with the weights of now."""
    nothing_t, tokens = torch.zeros(0, dtype=torch.int64), routing.weight_CT.shape[1]
    return MicroBatch(
        rollouts=(),
        place_T=torch.arange(tokens),
        sequences=Sequences(
            ids_bs=nothing_t[None], places_s=nothing_t, here_t=nothing_t, at_t=nothing_t, row_t=nothing_t
        ),
        row_T=torch.zeros(tokens, dtype=torch.int64),
        target_T=torch.zeros(tokens, dtype=torch.int64),
        old_logp_T=torch.zeros(tokens),
        proximal_logp_T=None,
        fresh_T=torch.ones(tokens, dtype=torch.bool),
        annotated_T=torch.arange(tokens) < 2,
        routing=routing,
    )


@pytest.mark.parametrize("kernel", [PolicyGradientKernel(0.2, 0.2), CispoKernel(0.2)], ids=["grpo", "cispo"])
def test_clips_are_counted_among_the_tokens_that_have_a_ratio(kernel: FusedKernel) -> None:
    """Four tokens with a divergence, two of them and a third with a ratio, one clipped: a third, not a quarter."""
    weight_CT = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5, 0.5, 0.0]])
    batch = batch_of(
        FusedRouting(
            kernels=(FKL, kernel),
            weight_CT=weight_CT,
            advantage_CT=torch.ones(2, 6),
            row_of_T=torch.zeros(6, dtype=torch.int64),
        )
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


def test_losses_that_share_a_kernel_are_told_apart() -> None:
    """On one kernel two losses weigh 3 to 1 at the first token; at the second they cancel, so it is not evaluated; at
    the third only the second one has weight. The last token has no weight at all."""
    nan = torch.nan
    routing = FusedRouting(
        kernels=(NllKernel(), FKL),
        weight_CT=torch.tensor([[0.5, 0.0, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0]]),
        advantage_CT=torch.zeros(2, 4),
        row_of_T=torch.zeros(4, dtype=torch.int64),
        losses=3,
        channel_of_P=(0, 1, 0),
        loss_PT=torch.tensor([[0, 0, -1, -1], [1, -1, -1, -1], [2, 2, 2, -1]], dtype=torch.int16),
        part_PT=torch.tensor([[0.375, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.125, -0.5, 0.25, 0.0]]),
    )
    result = RoutedLoss(
        loss=torch.tensor(0.0),
        loss_C=torch.zeros(2, dtype=torch.float64),
        stats=TokenStatistics(
            logp_T=torch.zeros(4),
            entropy_T=torch.zeros(4),
            value_CT=torch.tensor([[8.0, nan, 4.0, nan], [2.0, nan, nan, nan]]),
            clipped_CT=torch.tensor([[True, False, True, False], [False] * 4]),
            gradient_norm_CT=torch.tensor([[4.0, nan, 1.0, nan], [3.0, nan, nan, nan]]),
        ),
    )
    sums = token_sums(result, batch_of(routing))
    assert sums["loss_L"].tolist() == [3.0, 2.0, 2.0]
    assert sums["gradient_L"].tolist() == [3.0, 3.0, 2.0]
    assert sums["clipped_L"].tolist() == [1.0, 0.0, 2.0]


def test_credit_is_the_mean_gradient_inside_spans_and_outside() -> None:
    """Two channels; a channel without weight at a token has no part in it. The first two tokens are in a span."""
    batch = batch_of(
        FusedRouting(
            kernels=(FKL, PolicyGradientKernel(0.2, 0.2)),
            weight_CT=torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.5, 0.0]]),
            advantage_CT=torch.ones(2, 5),
            row_of_T=torch.zeros(5, dtype=torch.int64),
        )
    )
    result = RoutedLoss(
        loss=torch.tensor(0.0),
        loss_C=torch.zeros(2, dtype=torch.float64),
        stats=TokenStatistics(
            logp_T=torch.zeros(5),
            entropy_T=torch.ones(5),
            value_CT=torch.zeros(2, 5),
            clipped_CT=torch.zeros(2, 5, dtype=torch.bool),
            gradient_norm_CT=torch.tensor([[8.0, 4.0, 100.0, 100.0, 100.0], [100.0, 2.0, 1.0, 2.0, 100.0]]),
        ),
    )
    credit = credit_of(token_sums(result, batch))
    assert (credit.inside, credit.outside, credit.concentration) == (7.0, 1.0, 7.0)


def test_credit_without_spans_has_no_inside() -> None:
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    sums = {"inside": zero, "outside": one, "gradient_inside": zero, "gradient_outside": one}
    assert credit_of(sums) == Credit(inside=None, outside=1.0)
    assert credit_of(sums).concentration is None
    assert Credit(inside=1.0, outside=0.0).concentration is None
