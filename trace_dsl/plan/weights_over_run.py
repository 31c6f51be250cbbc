"""Two weights compared at every step of a run, or of two runs of another length."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trace_dsl.certainty import weight_known_at
from trace_dsl.plan.stretches import Stretch, stretches
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr

# Weights that differ by rounding alone, as 1 - kl/0.5 and 1 - 2*kl do, are the same.
_CLOSE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Both weights at one step: a number, "set by the batch", or "undefined" where the formula has no value."""

    step: int
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsOverRun:
    """`ranges`: the steps at which the weights differ or may differ, first and last of each stretch; `total_steps`: how
    many were compared, those that both runs have.
    """

    total_steps: int
    ranges: tuple[Stretch, ...]
    samples: tuple[Sample, ...]

    @property
    def same(self) -> bool:
        return not self.ranges


def weights_over_run(old: Expr, new: Expr, total_steps: int, old_total_steps: int | None = None) -> WeightsOverRun:
    """Where two weights differ, with a few of their values there. old_total_steps: the length of the old one's run,
    where it is another.
    """
    lengths = (total_steps if old_total_steps is None else old_total_steps), total_steps
    values = [
        (
            _value(old, Progress(step=step, total_steps=lengths[0])),
            _value(new, Progress(step=step, total_steps=lengths[1])),
        )
        for step in range(min(lengths))
    ]
    steps = [step for step, (a, b) in enumerate(values) if not _same(a, b)]
    return WeightsOverRun(
        total_steps=min(lengths),
        ranges=stretches(steps),
        samples=tuple(
            Sample(step=step, old=_text(values[step][0]), new=_text(values[step][1]))
            for step in _telling(values, steps)
        ),
    )


def _value(weight: Expr, at: Progress) -> float | None:
    """The weight at a step; None when only the run can tell, not-a-number where the formula has no value."""
    try:
        return weight_known_at(weight, at)
    except ValueError:
        return math.nan


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return False
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=_CLOSE, abs_tol=_CLOSE)


def _text(value: float | None) -> str:
    if value is None:
        return "set by the batch"
    return "undefined" if math.isnan(value) else f"{value:.4g}"


def _telling(values: list[tuple[float | None, float | None]], steps: list[int]) -> tuple[int, ...]:
    """The first step that differs, the one that differs most, the last."""
    if not steps:
        return ()

    def apart(step: int) -> float:
        a, b = values[step]
        return 0.0 if a is None or b is None or math.isnan(a - b) else abs(a - b)

    return tuple(sorted({steps[0], max(steps, key=apart), steps[-1]}))
