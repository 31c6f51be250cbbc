"""What a weight that is known before the run does over it: where it is undefined, negative, or always zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from trace_dsl.certainty import why_undefined
from trace_dsl.checks.reading import run_length
from trace_dsl.checks.sampled_run import SampledRun, sampled_run
from trace_dsl.expressions import is_known_before_run, schedules_of
from trace_dsl.facts import RunFacts
from trace_dsl.model import Route, Spec
from trace_dsl.over_steps import Points, formula_size, known_values_at
from trace_dsl.reach import reads_step
from trace_dsl.schedules import Progress, phase_ends
from trace_dsl.terms import Constant, Expr, Rank

# Cancellation in formulas such as w - w0*(1 - k/n) leaves a few ulps below zero.
_ROUNDING = 1e-12
# So many values are computed for one spec: enough for each of 5,000 steps of 40 weights of 10 operations. Of longer
# runs, evenly spread steps and the ends of every phase of a schedule are tried.
_VALUES = 2_000_000
_FEWEST_VALUES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """`undefined`: the first step without a finite value, and why; `negative`: the first below zero, and the weight.

    Nothing is known behind a step at which the formula cannot be computed.
    """

    undefined: tuple[int, str] | None
    negative: tuple[int, float] | None
    is_zero: bool


_MEASURED = _POSITIVE = Course(undefined=None, negative=None, is_zero=False)


class Courses:
    """The courses of the weights of one spec over a run; without its facts, over a nominal one."""

    def __init__(self, spec: Spec, facts: RunFacts | None) -> None:
        channels = sum(len(route.channels) for route in spec.routes)
        # A power of two, so that specs of about one size share what was computed.
        self._values = 1 << max(_VALUES // max(channels, 1), _FEWEST_VALUES).bit_length() - 1
        self._spec = spec
        self._facts = facts
        self._moves = any(map(reads_step, spec.routes))
        self._index = {route.place: index for index, route in enumerate(spec.routes)}
        self._run: SampledRun | None = None

    def of(self, route: Route, weight: Expr) -> Course:
        """The course of a weight of a route, over the steps at which the route may take tokens.

        One that is measured is none of undefined, negative, zero. Without the facts of a run, only what is zero at
        every step is zero: at which steps a share of the run falls is not known.
        """
        if isinstance(weight, Constant) and weight.value > 0:
            return _POSITIVE
        if not is_known_before_run(weight):
            return _MEASURED
        total_steps = None if self._facts is None else self._facts.total_steps
        everywhere = _course(weight, total_steps, self._values)
        if not self._moves or everywhere.is_zero:
            return everywhere
        if self._facts is None and everywhere.undefined is None and everywhere.negative is None:
            return everywhere  # nor is it at some of the steps
        run = self._run = self._run or sampled_run(self._spec, self._facts)
        found = _course_at(weight, run.total_steps, run_length(weight, None)[1], run.reached(self._index[route.place]))
        return found if self._facts is not None else replace(found, is_zero=False)


@lru_cache(maxsize=4096)
def _course(weight: Expr, run_steps: int | None, values_at_most: int) -> Course:
    total_steps, tokens = run_length(weight, run_steps)
    steps: Sequence[int] = (0,) if weight.rank is Rank.CONSTANT else range(total_steps)
    stride = math.ceil(len(steps) * formula_size(weight) / values_at_most)
    if stride > 1:
        steps = _thinned(weight, total_steps, stride)
    return _course_at(weight, total_steps, tokens, steps)


def _course_at(weight: Expr, total_steps: int, tokens: float, steps: Sequence[int]) -> Course:
    points = Points(total_steps=total_steps, steps=steps, tokens=[1.5 * tokens * step / total_steps for step in steps])
    known = known_values_at(weight, points)
    values: list[float] = []
    undefined: tuple[int, str] | None = None
    for step, trained, value in zip(steps, points.tokens, known, strict=True):
        if value is None or not math.isfinite(value):
            undefined = (step, why_undefined(weight, Progress(step=step, total_steps=total_steps, tokens=trained)))
            break
        values.append(value)
    low = -_ROUNDING
    return Course(
        undefined=undefined,
        negative=next(((step, x) for step, x in zip(steps, values, strict=False) if x < low), None),
        is_zero=undefined is None and bool(steps) and not any(values),
    )


def _thinned(weight: Expr, total_steps: int, stride: int) -> Sequence[int]:
    """Every `stride`-th step, the last one, and those at which a phase of a schedule begins."""
    steps = {*range(0, total_steps, stride), total_steps - 1}
    for schedule in schedules_of(weight):
        for end in phase_ends(schedule, total_steps):
            if end < total_steps:
                steps |= {math.floor(end), min(math.floor(end) + 1, total_steps - 1)}
    return sorted(steps)
