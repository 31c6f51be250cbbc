"""The steps of a run at which rules look at a spec, and the routes that may take tokens there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from trace_dsl.checks.reading import NOMINAL_STEPS, expressions_of, run_length, step_numbers
from trace_dsl.expressions import schedules_of
from trace_dsl.facts import RunFacts
from trace_dsl.model import Spec
from trace_dsl.over_steps import formula_size
from trace_dsl.reach import Reach, Standing, Stretch, reads_step, steps_asked, steps_reached
from trace_dsl.schedules import Progress, phase_ends

# So many parts of predicates are looked at for one spec, those aside that only compare the step with numbers. Where
# there are more: evenly spread steps, the ends of every phase of a schedule, and the numbers in formulas on the step.
_STANDINGS = 100_000
# And so many parts of all expressions.
_VALUES = 2_000_000
_LONGEST = 100 * NOMINAL_STEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledRun:
    """`steps`: those that are looked at; stretches: how routes stand at them, by their places in the spec.

    `moves`: whether some predicate reads the step. Where none does, every route may take tokens at every step here:
    what the routes above leave it is the business of other rules.
    """

    total_steps: int
    steps: Sequence[int]
    moves: bool
    stretches: tuple[Stretch, ...]

    @property
    def is_whole(self) -> bool:
        """Whether no step is left out."""
        return len(self.steps) == self.total_steps

    def reached(self, index: int) -> Sequence[int]:
        """The steps at which a route may take tokens."""
        return steps_reached(self.stretches, index) if self.moves else self.steps

    def asked(self, index: int) -> Sequence[int]:
        """The steps at which a route's predicate is evaluated on the batch."""
        return steps_asked(self.stretches, index) if self.moves else self.steps


def sampled_run(spec: Spec, facts: RunFacts | None) -> SampledRun:
    """The run of `facts`; without, one that is long enough for every schedule and predicate to run its course."""
    total = min(_nominal_length(spec), _LONGEST) if facts is None else max(facts.total_steps, 1)
    if any(map(reads_step, spec.routes)):
        return _moving(spec, total)
    return SampledRun(total_steps=total, steps=_steps(spec, total, 0), moves=False, stretches=())


@lru_cache(maxsize=8)
def last_standings(spec: Spec) -> tuple[Standing, ...]:
    """How routes stand once every schedule has run its course and `step` has passed every number."""
    total = _nominal_length(spec)
    return Reach(spec.routes, spec.broken).at(Progress(step=total, total_steps=total))


@lru_cache(maxsize=8)  # the rules ask one after the other
def _moving(spec: Spec, total: int) -> SampledRun:
    reach = Reach(spec.routes, spec.broken)
    steps = _steps(spec, total, reach.parts_at_each_step)
    return SampledRun(total_steps=total, steps=steps, moves=True, stretches=reach.over(steps, total))


def _steps(spec: Spec, total: int, predicates: int) -> Sequence[int]:
    """As many steps as there is work for; `predicates`: the parts of those that are evaluated at each."""
    parts = sum(map(formula_size, expressions_of(spec)))
    stride = math.ceil(total * max(predicates / _STANDINGS, parts / _VALUES))
    return range(total) if stride <= 1 else _thinned(spec, total, stride)


def _nominal_length(spec: Spec) -> int:
    return max([NOMINAL_STEPS, *(run_length(expr, None)[0] for expr in expressions_of(spec))])


def _thinned(spec: Spec, total_steps: int, stride: int) -> Sequence[int]:
    """Every `stride`-th step, the last one, those around the ends of phases and the numbers in formulas on the step."""
    telling: list[float] = []
    for expr in expressions_of(spec):
        telling += step_numbers(expr)
        for schedule in schedules_of(expr):
            telling += phase_ends(schedule, total_steps)
    around = sorted({math.floor(number) + beside for number in telling for beside in (-1, 0, 1)})
    around = around[:: 1 + len(around) * stride // total_steps]
    return sorted({*range(0, total_steps, stride), total_steps - 1} | {s for s in around if 0 <= s < total_steps})
