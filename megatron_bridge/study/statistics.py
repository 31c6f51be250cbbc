"""Intervals and tests over seeds and problems. Legend: S seeds, P problems, of which each run solved some.

`solved_SP` says of each whether it was solved, or at which share of several evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

Solved = NDArray[np.bool_] | NDArray[np.float64]  # [S, P]

RESAMPLES = 4000
COVERAGE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and its bootstrap interval of 95%."""

    mean: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A method against another on the same seeds and problems. p: two-sided, of `sign_flip`; least_p: the smallest
    p that so many seeds can give.
    """

    difference: Interval
    p: float
    least_p: float

    @property
    def told_apart(self) -> bool:
        """Whether the interval of the difference leaves out zero."""
        return self.difference.low > 0 or self.difference.high < 0


def accuracy_interval(solved_SP: Solved, *, seed: int = 0) -> Interval:
    """Of the mean accuracy, over seeds and problems both drawn with replacement (a two-way bootstrap)."""
    return _interval(solved_SP.astype(np.float64), seed)


def compare(solved_SP: Solved, other_SP: Solved, *, seed: int = 0) -> Comparison:
    """Paired: row s of both is the same seed, column p the same problem. Raises ValueError for other shapes."""
    if solved_SP.shape != other_SP.shape:
        raise ValueError(f"seeds x problems are {solved_SP.shape} and {other_SP.shape}: a paired test needs the same")
    difference_SP = solved_SP.astype(np.float64) - other_SP.astype(np.float64)
    by_seed = difference_SP.mean(1)
    return Comparison(
        difference=_interval(difference_SP, seed), p=sign_flip(by_seed), least_p=2.0 ** (1 - len(by_seed))
    )


def sign_flip(difference_S: NDArray[np.float64]) -> float:
    """The exact two-sided permutation test of paired differences: the share of all 2^S sign choices whose mean is at
    least as far from zero.
    """
    observed = abs(float(difference_S.sum()))
    sums = [abs(float(np.dot(signs, difference_S))) for signs in product((-1.0, 1.0), repeat=len(difference_S))]
    return sum(one >= observed - 1e-12 for one in sums) / len(sums)


def _interval(values_SP: NDArray[np.float64], seed: int) -> Interval:
    of_seed, of_problem = _resamples(*values_SP.shape, seed)
    means = ((of_seed @ values_SP) * of_problem).sum(1)
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(mean=float(values_SP.mean()), low=float(low), high=float(high))


@lru_cache(maxsize=4)
def _resamples(seeds: int, problems: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often each seed [B, S] and each problem [B, P] is drawn in each of B resamples, as shares."""
    rng = np.random.default_rng(seed)
    of_seed = rng.multinomial(seeds, [1 / seeds] * seeds, size=RESAMPLES) / seeds
    of_problem = rng.multinomial(problems, [1 / problems] * problems, size=RESAMPLES) / problems
    return of_seed, of_problem
