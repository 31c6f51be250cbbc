"""Schedules: exact values of every shape, at every boundary."""

from __future__ import annotations

import math

import pytest

from trace_dsl.schedules import EXP_RATE, Progress, counts_tokens, mixes_units, weight_at
from trace_dsl.terms import Anneal, Length, RunFraction, Schedule, Shape, Steps, Tokens

PAPER = Schedule(weight=0.5, warmup=Steps(10), anneal=Anneal(shape=Shape.LINEAR, length=Steps(30)))


def at(schedule: Schedule, step: int, total: int = 300, tokens: float = 0.0) -> float:
    return weight_at(schedule, Progress(step=step, total_steps=total, tokens=tokens))


def down(shape: Shape, length: Length | None = None, floor: float = 0.0) -> Schedule:
    return Schedule(weight=1.0, anneal=Anneal(shape=shape, length=length), floor=floor)


def test_the_papers_schedule_sums_to_the_papers_exposure() -> None:
    weights = [at(PAPER, step) for step in range(300)]
    assert sum(weights) == pytest.approx(12.75, abs=1e-12)
    assert sum(w * w for w in weights) == pytest.approx(5.126388888888889, abs=1e-12)


@pytest.mark.parametrize(
    ("step", "weight"), [(0, 0.5), (9, 0.5), (10, 0.5), (11, 0.5 * 29 / 30), (25, 0.25), (40, 0.0), (299, 0.0)]
)
def test_warmup_holds_then_the_anneal_begins_at_its_first_value(step: int, weight: float) -> None:
    assert at(PAPER, step) == pytest.approx(weight, abs=1e-15)


def test_zero_before_start_then_a_ramp_from_zero() -> None:
    schedule = Schedule(weight=2.0, start=Steps(5), ramp=Steps(4))
    assert [at(schedule, step) for step in (0, 4, 5, 6, 8, 9, 50)] == [0, 0, 0, 0.5, 1.5, 2.0, 2.0]


def test_without_a_ramp_the_weight_is_there_at_start() -> None:
    assert [at(Schedule(weight=2.0, start=Steps(5)), step) for step in (4, 5)] == [0.0, 2.0]


@pytest.mark.parametrize(
    ("shape", "half"),
    [
        (Shape.LINEAR, 0.5),
        (Shape.COS, 0.5),
        (Shape.EXP, (math.exp(-EXP_RATE / 2) - math.exp(-EXP_RATE)) / (1 - math.exp(-EXP_RATE))),
        (Shape.STEP, 1.0),
    ],
)
def test_every_shape_begins_at_the_weight_and_ends_at_the_floor(shape: Shape, half: float) -> None:
    schedule = down(shape, Steps(10), floor=0.2)
    assert at(schedule, 0) == pytest.approx(1.0)
    assert at(schedule, 5) == pytest.approx(0.2 + 0.8 * half)
    assert at(schedule, 10) == 0.2
    assert at(schedule, 11) == 0.2


def test_an_anneal_without_length_lasts_to_the_end_of_the_run() -> None:
    schedule = down(Shape.LINEAR)
    assert [at(schedule, step, total=4) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_an_anneal_that_has_no_room_left_is_at_its_floor() -> None:
    schedule = Schedule(weight=1.0, warmup=Steps(10), anneal=Anneal(shape=Shape.COS))
    assert at(schedule, 10, total=10) == 0.0


def test_shares_of_the_run() -> None:
    schedule = Schedule(weight=1.0, warmup=RunFraction(0.1), anneal=Anneal(shape=Shape.STEP, length=Steps(0)))
    assert [at(schedule, step, total=50) for step in (4, 5)] == [1.0, 0.0]


def test_tokens_count_trained_tokens_not_steps() -> None:
    schedule = Schedule(weight=1.0, warmup=Tokens(100), anneal=Anneal(shape=Shape.LINEAR, length=Tokens(100)))
    assert counts_tokens(schedule)
    assert [at(schedule, 999, tokens=t) for t in (0, 100, 150, 200)] == [1.0, 1.0, 0.5, 0.0]


def test_mixed_units() -> None:
    assert mixes_units(Schedule(weight=1, warmup=Tokens(5), ramp=Steps(5)))
    assert mixes_units(Schedule(weight=1, warmup=Tokens(5), anneal=Anneal(shape=Shape.COS)))
    assert not mixes_units(Schedule(weight=1, warmup=Tokens(5)))
    assert not mixes_units(PAPER)


def test_resuming_is_exact() -> None:
    """The weight is a function of progress alone: asking out of order changes nothing."""
    forwards = [at(PAPER, step) for step in range(50)]
    backwards = [at(PAPER, step) for step in reversed(range(50))]
    assert forwards == backwards[::-1]
