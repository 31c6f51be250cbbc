"""Rollouts in order, asked for ahead of training where the run file allows it (`rollout.staleness`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from megatron_bridge.rollout.engine import RolloutError
from megatron_bridge.training.collect import PendingRollouts, Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The global batch of one iteration. staleness: iterations that its oldest token lies behind; wait_seconds: what
    training waited; draw_seconds: what drawing took.

    With staleness the second may be longer than the first: training went on meanwhile.
    """

    rollouts: list[Rollout]
    staleness: int
    wait_seconds: float
    draw_seconds: float


class Ahead:
    """Iterations from `first` to `last` (not included), up to `staleness` of them asked for before their turn."""

    def __init__(self, begin: Callable[[int], PendingRollouts], *, first: int, last: int, staleness: int) -> None:
        """`begin(iteration)` asks for an iteration's rollouts."""
        self._begin, self._next, self._last, self._staleness = begin, first, last, staleness
        self._asked: deque[tuple[int, PendingRollouts]] = deque()
        self._taken: tuple[tuple[int, PendingRollouts], ...] = ()

    def take(self) -> PendingRollouts:
        """The rollouts of the next iteration; asks for those that may be drawn while it is trained on."""
        while self._next < self._last and len(self._asked) <= self._staleness:
            self._asked.append((self._next, self._begin(self._next)))
            self._next += 1
        self._taken = (self._asked.popleft(),)
        return self._taken[0][1]

    def untrained(self, iteration: int) -> list[tuple[int, PendingRollouts]]:
        """What was asked for of `iteration`, which is the next to be trained on, and of later ones."""
        return [one for one in (*self._taken, *self._asked) if one[0] >= iteration]


def iterations_behind(version: int, *, step: int, minibatches: int) -> int:
    """How many iterations before `step` the weights of step `version` drew."""
    return -(-(step - version) // minibatches)


def staleness_of(rollouts: Sequence[Rollout], *, step: int, minibatches: int, allowed: int) -> int:
    """How many iterations the oldest token of a batch lies behind `step`. Raises RolloutError above `allowed`."""
    oldest = min((version for r in rollouts for version in r.weight_versions), default=step)
    behind = iterations_behind(oldest, step=step, minibatches=minibatches)
    if behind > allowed or oldest > step:
        raise RolloutError(
            f"step {step} would train on tokens drawn after {oldest} steps, {behind} iterations away: "
            f"rollout.staleness allows {allowed}"
        )
    return behind
