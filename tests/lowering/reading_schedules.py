"""The weight of a schedule at a step, written from the documents: no code of `trace_dsl` beyond its frozen data."""

from __future__ import annotations

import math
from fractions import Fraction

from trace_dsl.facts import RunFacts
from trace_dsl.terms import Length, RunFraction, Schedule, Shape, Steps, Tokens


def in_tokens(schedule: Schedule) -> bool:
    """Whether some length counts trained tokens."""
    lengths = [schedule.start, schedule.ramp, schedule.warmup, getattr(schedule.anneal, "length", None)]
    return any(isinstance(length, Tokens) for length in lengths)


def schedule_weight(schedule: Schedule, facts: RunFacts, step: float, tokens: float) -> float:
    """Zero before start; linear from 0 to the weight during ramp; held during warmup; then down to the floor."""
    lengths = [schedule.start, schedule.ramp, schedule.warmup]
    if schedule.anneal is not None and schedule.anneal.length is not None:
        lengths.append(schedule.anneal.length)
    now = tokens if any(isinstance(length, Tokens) for length in lengths) else step
    start = _length(schedule.start, facts)
    ramp = _length(schedule.ramp, facts)
    hold_from = start + ramp
    hold_to = hold_from + _length(schedule.warmup, facts)
    if now < start:
        return 0.0
    if now < hold_from:
        return schedule.weight * (now - start) / ramp
    if now < hold_to or schedule.anneal is None:
        return schedule.weight
    if schedule.anneal.length is None:
        duration = facts.total_steps - hold_to
    else:
        duration = _length(schedule.anneal.length, facts)
    if now >= hold_to + duration:
        return schedule.floor
    u = (now - hold_to) / duration
    above = schedule.weight - schedule.floor
    match schedule.anneal.shape:
        case Shape.LINEAR:
            return schedule.floor + above * (1 - u)
        case Shape.COS:
            return schedule.floor + above * (1 + math.cos(math.pi * u)) / 2
        case Shape.EXP:
            return schedule.floor + above * (math.exp(-5 * u) - math.exp(-5)) / (1 - math.exp(-5))
        case Shape.STEP:
            return schedule.weight
    raise AssertionError(schedule.anneal.shape)


def _length(length: Length, facts: RunFacts) -> float:
    match length:
        case Steps(count=count) | Tokens(count=count):
            return float(count)
        case RunFraction(fraction=fraction):
            return float(decimal(fraction) * facts.total_steps)
    raise AssertionError(length)


def decimal(value: float) -> Fraction:
    """The number as it was written: 0.29 is 29/100, not the nearest binary fraction below it."""
    return Fraction(repr(value))
