"""Intervals that hold what they say, and tests that are exact."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from megatron_bridge.study.statistics import accuracy_interval, compare, sign_flip


def test_the_sign_flip_test_counts_every_choice_of_signs() -> None:
    difference = np.array([3.0, 1.0, 2.0, -1.0])
    sums = [abs(sum(s * d for s, d in zip(signs, difference, strict=True))) for signs in product((1, -1), repeat=4)]
    assert sign_flip(difference) == sum(one >= 5.0 for one in sums) / 16
    assert sign_flip(np.ones(5)) == 2 / 32
    assert sign_flip(np.zeros(3)) == 1.0


def test_the_interval_holds_the_true_accuracy_about_as_often_as_it_says() -> None:
    """Seeds differ with a standard deviation of 0.05, problems in difficulty; 150 studies of 8 seeds x 100 problems."""
    rng = np.random.default_rng(1)
    held = 0
    for n in range(150):
        difficulty = rng.beta(2, 2, size=100)
        of_seed = rng.normal(0, 0.05, size=8)
        chance = np.clip(difficulty[None] + of_seed[:, None], 0, 1)
        interval = accuracy_interval(rng.random((8, 100)) < chance, seed=n)
        held += interval.low <= 0.5 <= interval.high
    assert 0.9 <= held / 150 <= 1.0


def test_pairs_take_out_what_problems_share() -> None:
    """Hard problems are hard for both: the paired interval is far smaller than those of the two accuracies."""
    rng = np.random.default_rng(2)
    easy = rng.random(400) < 0.5
    baseline = np.repeat(easy[None], 5, axis=0)
    better = baseline | (rng.random((5, 400)) < 0.05)
    found = compare(better, baseline)
    assert found.told_apart
    assert found.difference.low > 0
    assert accuracy_interval(better).overlaps(accuracy_interval(baseline))
    assert found.p == found.least_p == 2 / 32
    assert not compare(baseline, baseline).told_apart


def test_shares_of_several_evaluations() -> None:
    """Seeds that solve a quarter, a half and three quarters of one problem, always."""
    interval = accuracy_interval(np.array([[0.25], [0.5], [0.75]]))
    assert interval.mean == pytest.approx(0.5)
    assert 0.25 <= interval.low < 0.5 < interval.high <= 0.75
    assert accuracy_interval(np.full((2, 3), 0.3)).low == pytest.approx(0.3)


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match=r"seeds x problems are \(2, 4\) and \(3, 4\)"):
        compare(np.zeros((2, 4), dtype=bool), np.zeros((3, 4), dtype=bool))
