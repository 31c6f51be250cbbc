"""Ways to read a spec that several rules share: its channels and expressions, and how long a run is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from trace_dsl.checks.no_value import explicit
from trace_dsl.expressions import schedules_of, signals_of, walk
from trace_dsl.model import (
    Channel,
    Cispo,
    Diagnostic,
    Divergence,
    Ema,
    ModelTeacher,
    OtherPlace,
    Place,
    PolicyGradient,
    Route,
    Sees,
    SelfTeacher,
    Spec,
    Sync,
    Teacher,
)
from trace_dsl.rules import RuleInfo
from trace_dsl.schedules import Progress
from trace_dsl.terms import Constant, Expr, Length, Steps, Tokens

NOMINAL_STEPS = 1_000


def finding(
    rule: RuleInfo,
    place: Place,
    message: str,
    *,
    fix: str,
    consequence: str = "",
    others: tuple[OtherPlace, ...] = (),
) -> Diagnostic:
    """A diagnostic of a rule."""
    return Diagnostic(
        rule=rule.name,
        severity=rule.severity,
        place=place,
        message=message,
        consequence=consequence,
        fix=fix,
        others=others,
    )


def directory_of(teacher: Teacher, spec: Spec) -> Path | None:
    """Where the model of a `model("path")` teacher lies, seen from the folder of the spec that names it."""
    if not isinstance(teacher.source, ModelTeacher):
        return None
    return Path(teacher.place.path or spec.path).parent / teacher.source.path


def channels_of(spec: Spec) -> Iterator[tuple[Route, Channel]]:
    """Every loss with its route, in order."""
    for route in spec.routes:
        for channel in route.channels:
            yield route, channel


def divergences_of(spec: Spec) -> Iterator[tuple[Channel, Divergence]]:
    """Every divergence to a teacher."""
    for _, channel in channels_of(spec):
        if isinstance(channel.kernel, Divergence):
            yield channel, channel.kernel


def advantage_of(channel: Channel) -> Expr | None:
    """The advantage a loss multiplies, None for losses without one."""
    kernel = channel.kernel
    return kernel.advantage if isinstance(kernel, PolicyGradient | Cispo) else None


def predicates_of(spec: Spec) -> Iterator[tuple[Expr, Place]]:
    """Every `when` of a route or of extra rollouts, with the place of its statement."""
    for route in spec.routes:
        if route.when is not None:
            yield route.when, route.place
    for source in spec.rollouts:
        if source.when is not None:
            yield source.when, source.place


def expressions_of(spec: Spec) -> Iterator[Expr]:
    """Every expression a run would evaluate; lets that nothing reads are not among them."""
    for when, _ in predicates_of(spec):
        yield when
    for _, channel in channels_of(spec):
        yield channel.weight
        advantage = advantage_of(channel)
        if advantage is not None:
            yield advantage


def is_privileged(sees: Sees) -> bool:
    """Whether a teacher knows something about the problem at hand that the student does not."""
    return sees not in (Sees.NOTHING, Sees.MISMATCHED)


def contexts_of(spec: Spec) -> dict[str, str]:
    """What each teacher is shown that a rollout may lack, by teacher."""
    return {teacher.name: teacher.sees.value for teacher in spec.teachers if is_privileged(teacher.sees)}


def explicit_routes(spec: Spec) -> tuple[Route, ...]:
    """The routes, with predicates that say where their comparisons have a value (`no_value.explicit`)."""
    contexts = contexts_of(spec)
    return tuple(_explicit(route, contexts) for route in spec.routes)


def _explicit(route: Route, contexts: Mapping[str, str]) -> Route:
    when = None if route.when is None else explicit(route.when, contexts)
    return route if when is route.when else replace(route, when=when)


def equals_student(teacher: Teacher) -> bool:
    """Whether a teacher has the student's weights at every step and sees what the student sees."""
    match teacher.source:
        case SelfTeacher(update=Sync(every=1) | Ema(rate=1.0)):
            return teacher.sees is Sees.NOTHING
        case _:
            return False


# ------------------------------------------------------------------------------------------------------ points of a run


def _lengths(expr: Expr) -> Iterator[Length]:
    for schedule in schedules_of(expr):
        yield from (schedule.start, schedule.ramp, schedule.warmup)
        if schedule.anneal is not None and schedule.anneal.length is not None:
            yield schedule.anneal.length


def step_numbers(expr: Expr) -> Iterator[float]:
    """The numbers in a formula that reads the step, which it may be compared with or divided by."""
    if not isinstance(expr, Constant) and "step" in signals_of(expr):
        yield from (part.value for part in walk(expr) if isinstance(part, Constant) and part.value < 1e9)


def run_length(expr: Expr, total_steps: int | None) -> tuple[int, float]:
    """(steps, tokens) of a run of so many steps; of None, of one long enough for every schedule to run its course and
    for `step` to pass every number.
    """
    lengths = tuple(_lengths(expr))
    tokens = sum(length.count for length in lengths if isinstance(length, Tokens))
    if total_steps is not None:
        return max(total_steps, 1), tokens
    steps = sum(length.count for length in lengths if isinstance(length, Steps))
    passed = math.ceil(max(step_numbers(expr), default=0.0))
    return min(max(NOMINAL_STEPS, 2 * steps, 2 * passed), 100 * NOMINAL_STEPS), tokens


def end_of_run(expr: Expr) -> Progress:
    """The point after the last step of a run that is long enough for all that an expression says of its length."""
    steps, tokens = run_length(expr, None)
    return Progress(step=steps, total_steps=steps, tokens=2 * tokens)
