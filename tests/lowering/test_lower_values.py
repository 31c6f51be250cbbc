"""`lower` on batches small enough to compute by hand: advantages, weights at a step, reductions, empty batches."""

from __future__ import annotations

import math

import pytest
import torch

from tests.lowering.by_hand import TRACE, batch_of, lowered, weights
from trace_dsl.lowering.fused import DivergenceKernel, PolicyGradientKernel

torch.set_num_threads(1)

# ---------------------------------------------------------------------------------------------------------- advantages


def advantages(text: str, reward: list[float], group: list[int] | None = None) -> list[float]:
    found = lowered(text + "rest: grpo()\n", batch_of([1] * len(reward), reward=reward, group=group))
    assert found.routing.advantage_CT[0].tolist() == found.advantage_R.float().tolist()
    return found.advantage_R.tolist()


def test_group_advantage() -> None:
    """Rewards 1 0 0 0: mean 1/4, squares 9/16 + 3/16 = 3/4, std = sqrt(3/4 / 3) = 1/2, so 3/2 and -1/2."""
    assert advantages("", [1.0, 0.0, 0.0, 0.0]) == [1.5, -0.5, -0.5, -0.5]
    assert advantages("advantage = group(scale=none)\n", [1.0, 0.0, 0.0, 0.0]) == [0.75, -0.25, -0.25, -0.25]
    # against the mean of the others: 1 - 0, and 0 - 1/3
    assert advantages("advantage = loo\n", [1.0, 0.0, 0.0, 0.0]) == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])
    assert advantages("advantage = none\n", [1.0, 0.25]) == [1.0, 0.25]


def test_groups_do_not_mix() -> None:
    """Groups {2, 0} and {1, 1}, interleaved: std of 2 and 0 is sqrt(2)."""
    root = math.sqrt(0.5)
    assert advantages("", [2.0, 1.0, 0.0, 1.0], [7, 3, 7, 3]) == pytest.approx([root, 0.0, -root, 0.0])


@pytest.mark.parametrize("estimator", ["group()", "group(scale=none)", "loo"])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3, 1e6 + 0.1])
def test_equal_rewards_are_exactly_zero(estimator: str, reward: float) -> None:
    for size in (2, 3, 7):
        assert advantages(f"advantage = {estimator}\n", [reward] * size) == [0.0] * size


def test_group_of_one_is_exactly_zero() -> None:
    """Its rewards are all equal."""
    assert advantages("", [1.0]) == [0.0]
    assert advantages("advantage = loo\n", [1.0]) == [0.0]
    assert advantages("advantage = group(scale=none)\n", [0.7, 0.7], [0, 1]) == [0.0, 0.0]


def test_rewards_that_almost_agree_are_whitened_all_the_same() -> None:
    """There is no epsilon: 1 and 1 + 2^-20 give -1/sqrt(2) and 1/sqrt(2)."""
    assert advantages("", [1.0, 1.0 + 2**-20]) == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)])


def test_policy_gradients_of_one_route_keep_their_advantages() -> None:
    found = lowered("rest: grpo() + pg(adv=reward * 3)\n", batch_of([1, 1], reward=[1.0, 0.0])).routing
    first, second = found.kernels
    assert isinstance(first, PolicyGradientKernel)
    assert isinstance(second, PolicyGradientKernel)
    assert first != second
    root = math.sqrt(0.5)
    assert found.advantage_CT.tolist() == [pytest.approx([root, -root]), [3.0, 0.0]]


# ----------------------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    "step, kl, rho",
    [(0, 0.5, 0.0), (9, 0.5, 0.0), (10, 0.5, 0.0), (25, 0.25, 0.5), (37, 0.05, 0.9), (40, 0.0, 1.0), (99, 0.0, 1.0)],
)
def test_the_policy_gradient_returns_as_the_divergence_goes(step: int, kl: float, rho: float) -> None:
    """rho = 1 - kl / 0.5. One response of 8 tokens: 25% of it, tokens 2 and 3, are the error; every weight / 8."""
    found = lowered(TRACE, batch_of([8], spans=[(0, "error", 2, 5)]), step)
    *divergence, gradient = found.routing.kernels
    assert [isinstance(one, DivergenceKernel) for one in divergence] == ([True] if kl else [])
    assert isinstance(gradient, PolicyGradientKernel)
    *kl_CT, gradient_T = found.routing.weight_CT.tolist()
    for kl_T in kl_CT:
        assert kl_T == pytest.approx([0, 0, kl / 8, kl / 8, 0, 0, 0, 0])
    assert gradient_T == pytest.approx([1 / 8] * 2 + [rho / 8] * 2 + [1 / 8] * 4, abs=1e-7)
    assert found.routing.teacher_tokens("teacher").tolist() == ([2, 3] if kl else [])
    assert found.losses[0].tokens == (2 if kl else 0)
    assert found.losses[0].weight_sum == pytest.approx(2 * kl)


@pytest.mark.parametrize(
    "arguments, step, wanted",
    [
        ("start=5", 4, 0.0),
        ("start=5", 5, 2.0),
        ("start=5, ramp=10", 5, 0.0),
        ("start=5, ramp=10", 10, 1.0),  # half of the ramp
        ("start=5, ramp=10", 15, 2.0),
        ("warmup=10", 99, 2.0),  # no anneal: held
        ("anneal=linear, floor=1", 50, 1.5),  # to the end of the run
        ("warmup=20, anneal=linear", 60, 1.0),  # half of the 80 steps left
        ("warmup=20, anneal=cos(40)", 40, 1.0),  # (1 + cos(pi/2)) / 2
        ("anneal=cos(40)", 10, 1 + math.sqrt(0.5)),
        ("anneal=exp(40), floor=1", 0, 2.0),
        ("anneal=exp(40)", 20, 2 * (math.exp(-2.5) - math.exp(-5)) / (1 - math.exp(-5))),
        ("anneal=exp(40), floor=1", 40, 1.0),
        ("anneal=step(40), floor=1", 39, 2.0),
        ("anneal=step(40), floor=1", 40, 1.0),
        ("start=10%", 9, 0.0),
        ("start=10%", 10, 2.0),
        ("start=7%", 7, 2.0),  # 7% of 100 steps is 7, though 0.07 * 100 is a little more in binary
        ("anneal=step(14%), floor=1", 14, 1.0),
    ],
)
def test_schedule(arguments: str, step: int, wanted: float) -> None:
    assert weights(f"rest: nll(w=2, {arguments})\n", batch_of([1]), step) == pytest.approx([wanted])


def test_schedule_in_tokens() -> None:
    """Half of the anneal's 1000 tokens are trained, whatever the step."""
    text = "rest: nll(w=2, start=500 tokens, anneal=linear(1e3 tokens))\n"
    assert weights(text, batch_of([1]), step=3, tokens=1000.0) == pytest.approx([1.0])
    assert weights(text, batch_of([1]), step=99, tokens=499.0) == [0.0]


# --------------------------------------------------------------------------------------------------------- expressions


def test_reductions() -> None:
    """Rewards 1 0 | 4, lengths 1 1 2: mean over the group 1/2 | 4, over the batch 5/3."""
    batch = batch_of([1, 1, 2], reward=[1.0, 0.0, 4.0], group=[0, 0, 1])

    def times_length(weight: str) -> list[float]:
        """Weights with the denominator (length x 3 responses) taken out."""
        found = weights(f"rest: nll(w={weight})\n", batch)
        return [value * size for value, size in zip(found, (3, 3, 6, 6), strict=True)]

    assert times_length("mean(reward, over=group)") == pytest.approx([0.5, 0.5, 4, 4])
    assert times_length("reward - max(reward, over=group)") == pytest.approx([0, -1, 0, 0])
    assert times_length("sum(pos, over=row) + len") == pytest.approx([1, 1, 3, 3])  # positions 0 | 0 | 0 1
    e = math.e
    assert times_length("softmax(reward, over=group)") == pytest.approx([e / (e + 1), 1 / (e + 1), 1, 1])


def test_reductions_over_the_batch() -> None:
    """One value a step, measured on the batch: rewards 1 0 4 have the mean 5/3; positions 0 0 0 1 the mean 1/4."""
    batch = batch_of([1, 1, 2], reward=[1.0, 0.0, 4.0], group=[0, 0, 1])
    assert weights("rest: nll(w=mean(reward, over=batch), per=token)\n", batch) == pytest.approx([5 / 12] * 4)
    assert weights("rest: nll(w=mean(pos, over=batch), per=token)\n", batch) == pytest.approx([1 / 16] * 4)
    # above the mean 5/3 stands only the last rollout
    found = lowered("rest when reward > mean(reward, over=batch): nll()\n", batch)
    assert found.route_of_T.tolist() == [-1, -1, 0, 0]
    found = lowered("rest when mean(reward, over=batch) > 1: nll()\n", batch)
    assert found.route_of_T.tolist() == [0] * 4


def test_top_takes_the_earlier_of_equals() -> None:
    """old_logp falls along a response; 50% of 4 tokens are 2."""
    found = lowered("rest when top(old_logp, 50%, over=row): nll()\n", batch_of([4]))
    assert found.route_of_T.tolist() == [0, 0, -1, -1]
    found = lowered("rest when top(reward, 50%, over=batch): nll()\n", batch_of([1] * 4, reward=[1.0] * 4))
    assert found.route_of_T.tolist() == [0, 0, -1, -1]


# --------------------------------------------------------------------------------------------------------------- edges


def test_empty_batch() -> None:
    found = lowered(TRACE, batch_of([]))
    assert found.routing.weight_CT.shape == (0, 0)
    assert found.route_of_T.tolist() == found.advantage_R.tolist() == []
    assert found.routing.teacher_tokens("teacher").tolist() == []


def test_batch_of_empty_responses() -> None:
    found = lowered(TRACE, batch_of([0, 0], reward=[1.0, 0.0]))
    assert found.routing.weight_CT.shape == (0, 0)
    assert found.advantage_R.tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])


def test_an_empty_response_counts_as_a_response() -> None:
    """It has a reward, so it moves the group's mean, and it is one of the 2 responses."""
    found = lowered("rest: grpo()\n", batch_of([2, 0], reward=[1.0, 0.0]))
    assert found.routing.weight_CT.tolist() == [[0.25, 0.25]]
    assert found.routing.row_of_T.tolist() == [0, 0]
    assert found.routing.advantage_CT[0].tolist() == pytest.approx([math.sqrt(0.5)] * 2)


def test_dtypes() -> None:
    found = lowered(TRACE, batch_of([8], spans=[(0, "error", 2, 5)]))
    assert found.routing.weight_CT.dtype is found.routing.advantage_CT.dtype is torch.float32
    assert found.routing.row_of_T.dtype is found.route_of_T.dtype is torch.int64
    assert not found.routing.weight_CT.requires_grad
