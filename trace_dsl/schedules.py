"""Schedules as pure functions of progress, so that a resumed run weighs every token as the unbroken one did.

A weight is zero before `start`, linear from 0 to w during `ramp`, held at w during `warmup` (hold, as the paper means
the word: arXiv 2605.10194, equation 2), then goes down to `floor` over the anneal's length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import assert_never

from trace_dsl.terms import Anneal, Length, RunFraction, Schedule, Shape, Steps, Tokens

# `exp` falls by exp(-EXP_RATE) over its length, shifted and scaled so that it starts at w and ends exactly at
# the floor.
EXP_RATE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is: `step` optimizer steps done of `total_steps`, `tokens` response tokens trained so far."""

    step: int
    total_steps: int
    tokens: float = 0.0


def _lengths(schedule: Schedule) -> tuple[Length, ...]:
    anneal = schedule.anneal
    tail = () if anneal is None or anneal.length is None else (anneal.length,)
    return (schedule.start, schedule.ramp, schedule.warmup, *tail)


def counts_tokens(schedule: Schedule) -> bool:
    """Whether the schedule runs over trained tokens, so that its weights at a step are not known before the run."""
    return any(isinstance(length, Tokens) for length in _lengths(schedule))


def mixes_units(schedule: Schedule) -> bool:
    """Whether some lengths count tokens and others steps: such a schedule would depend on the run's history."""
    by_steps = any(not isinstance(length, Tokens) and length != Steps(0) for length in _lengths(schedule))
    open_ended = schedule.anneal is not None and schedule.anneal.length is None
    return counts_tokens(schedule) and (by_steps or open_ended)


def depends_on_length(schedule: Schedule) -> bool:
    """Whether the schedule's weights by steps are others in a longer run."""
    open_ended = schedule.anneal is not None and schedule.anneal.length is None
    return open_ended or any(isinstance(length, RunFraction) for length in _lengths(schedule))


def share_of_run(schedule: Schedule) -> float:
    """How much of the run the lengths that are shares of it take together."""
    return math.fsum(length.fraction for length in _lengths(schedule) if isinstance(length, RunFraction))


def _amount(length: Length, total_steps: int) -> float:
    """A length in the schedule's own unit, steps or tokens."""
    match length:
        case Steps(count):
            return count
        case RunFraction(fraction):
            return round(fraction * total_steps, 9)  # 7% of 100 is 7, not the 7.000000000000001 of binary
        case Tokens(count):
            return count
        case _:
            assert_never(length)


def phase_ends(schedule: Schedule, total_steps: int) -> tuple[float, ...]:
    """Where a schedule's start, ramp, hold and anneal end, in its own unit."""
    return tuple(accumulate(_amount(length, total_steps) for length in _lengths(schedule)))


def _fall(anneal: Anneal, share: float) -> float:
    """How much of the way from the floor (0) to w (1) is left after `share` of the anneal, 0 <= share < 1."""
    match anneal.shape:
        case Shape.LINEAR:
            return 1.0 - share
        case Shape.COS:
            return 0.5 * (1.0 + math.cos(math.pi * share))
        case Shape.EXP:
            end = math.exp(-EXP_RATE)
            return (math.exp(-EXP_RATE * share) - end) / (1.0 - end)
        case Shape.STEP:
            return 1.0
        case _:
            assert_never(anneal.shape)


def weight_function(schedule: Schedule, total_steps: int) -> Callable[[float], float]:
    """The schedule's weight as a function of the position: steps done, or tokens trained if it counts tokens.

    Boundaries: the weight is 0 at `start` when there is a ramp (the ramp reaches w at start + ramp); it is w up to
    and without start + ramp + warmup, where the anneal begins at its first value, w; it is `floor` from the anneal's
    end on.
    """
    start, ramp, warmup = (_amount(x, total_steps) for x in (schedule.start, schedule.ramp, schedule.warmup))
    weight, floor, anneal = schedule.weight, schedule.floor, schedule.anneal
    length = 0.0
    if anneal is not None:
        rest = max(total_steps - start - ramp - warmup, 0.0)
        length = rest if anneal.length is None else _amount(anneal.length, total_steps)

    def weight_at_position(position: float) -> float:
        position -= start
        if position < 0:
            return 0.0
        if position < ramp:
            return weight * position / ramp
        position -= ramp + warmup
        if anneal is None or position < 0:
            return weight
        if position >= length:
            return floor
        return floor + (weight - floor) * _fall(anneal, position / length)

    return weight_at_position


def weight_at(schedule: Schedule, at: Progress) -> float:
    """The schedule's weight at `at`; see `weight_function`."""
    return weight_function(schedule, at.total_steps)(at.tokens if counts_tokens(schedule) else at.step)
