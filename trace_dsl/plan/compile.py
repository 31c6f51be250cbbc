"""Spec + run facts -> Plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from trace_dsl.errors import SpecError
from trace_dsl.expressions import schedules_of, signals_of, text_of, weight_at_step
from trace_dsl.facts import RunFacts
from trace_dsl.model import (
    K3,
    Channel,
    Cispo,
    Divergence,
    DivergenceKind,
    EntropyBonus,
    Kernel,
    Nll,
    PolicyGradient,
    Route,
    Spec,
)
from trace_dsl.over_steps import Points, values_at
from trace_dsl.plan.certainty import follows_from_step, surely_zero
from trace_dsl.plan.gathering import gathered
from trace_dsl.plan.plan import (
    Gathering,
    Plan,
    PlannedLoss,
    PlannedRoute,
    PlannedTeacher,
    WeightTrack,
    content_hash,
    expressions_of,
    teacher_of,
)
from trace_dsl.plan.reach import reached
from trace_dsl.plan.stretches import stretches
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr


def compile_plan(spec: Spec, facts: RunFacts) -> Plan:
    """Resolve `spec` for a run. The spec must be free of errors (see `trace_dsl.lint_file`).

    Raises SpecError when a weight has no value at some step of this run.
    """
    routes = tuple(
        PlannedRoute(
            route=route,
            predicate_text="" if route.when is None else text_of(route.when),
            losses=tuple(_plan_loss(channel, facts, steps) for channel in route.channels),
        )
        for route, steps in zip(spec.routes, _steps_of(spec.routes, facts.total_steps), strict=True)
    )
    needed = gathered(routes, facts.total_steps)
    teachers = tuple(
        PlannedTeacher(teacher=teacher, last_step=_last_step(teacher.name, needed)) for teacher in spec.teachers
    )
    return Plan(
        facts=facts,
        labels=spec.labels,
        advantage=spec.advantage,
        rollouts=spec.rollouts,
        routes=routes,
        teachers=teachers,
        signals=tuple(sorted({n for route in spec.routes for expr in expressions_of(route) for n in signals_of(expr)})),
        gathered=needed,
        spec_text=spec.text,
        hash=content_hash(
            facts=facts,
            labels=spec.labels,
            advantage=spec.advantage,
            rollouts=spec.rollouts,
            routes=spec.routes,
            teachers=spec.teachers,
        ),
    )


def _last_step(teacher: str, needed: tuple[Gathering, ...]) -> int:
    """The last step at which something reads `teacher`; -1 for never."""
    return max((g.steps[-1][1] for g in needed if g.need.payload.teacher == teacher), default=-1)


def _steps_of(routes: Sequence[Route], total_steps: int) -> Sequence[Sequence[int]]:
    """The steps at which each route may take a token."""
    if not any("step" in signals_of(route.when) or schedules_of(route.when) for route in routes if route.when):
        return [range(total_steps)] * len(routes)
    at = [reached(routes, Progress(step=step, total_steps=total_steps)) for step in range(total_steps)]
    return [[step for step in range(total_steps) if at[step][index]] for index in range(len(routes))]


def _plan_loss(channel: Channel, facts: RunFacts, steps: Sequence[int]) -> PlannedLoss:
    try:
        track = track_weight(channel.weight, facts.total_steps, steps)
    except ValueError as error:
        raise SpecError(
            f"line {channel.place.line}: the weight of {channel.text} has no value at some step of this run: {error}; "
            "keep the formula defined at every step, as in 1/(step + 1)"
        ) from error
    return PlannedLoss(
        channel=channel,
        formula=formula_of(channel.kernel),
        weight_text=text_of(channel.weight),
        teacher=teacher_of(channel),
        track=track,
    )


def track_weight(weight: Expr, total_steps: int, steps: Sequence[int]) -> WeightTrack:
    """Follow a weight over the steps at which its route may take tokens.

    Raises ValueError where its formula has no value, whatever its route takes there.
    """
    if not follows_from_step(weight):
        at = (Progress(step=step, total_steps=total_steps) for step in steps)
        active = stretches(point.step for point in at if not surely_zero(weight, point))
        return WeightTrack(total=None, total_squared=None, active=active)
    everywhere = _values(weight, total_steps)
    values = [everywhere[step] for step in steps]
    active = stretches(step for step, value in zip(steps, values, strict=True) if value != 0)
    return WeightTrack(total=sum(values), total_squared=sum(v * v for v in values), active=active)


def _values(weight: Expr, total_steps: int) -> Sequence[float]:
    """A weight at every step; raises ValueError where it is undefined."""
    steps = range(total_steps)
    try:
        return values_at(weight, Points(total_steps=total_steps, steps=steps, tokens=()))
    except ValueError:  # perhaps only in a branch that is not chosen there
        return [weight_at_step(weight, Progress(step=step, total_steps=total_steps)) for step in steps]


_DIVERGENCE_FORMULAS = {
    DivergenceKind.FKL: "KL(teacher || student)",
    DivergenceKind.RKL: "KL(student || teacher)",
    DivergenceKind.JSD: "{a:g} KL(teacher || m) + {b:g} KL(student || m), m = {a:g} teacher + {b:g} student",
    DivergenceKind.SKL: "KL(teacher || {a:g} teacher + {b:g} student)",
    DivergenceKind.SRKL: "KL(student || {a:g} student + {b:g} teacher)",
}


def formula_of(kernel: Kernel) -> str:
    """The per-token value a kernel stands for, in words of the field."""
    match kernel:
        case Divergence(kind=kind, parameter=parameter):
            share = 0.0 if parameter is None else parameter
            return _DIVERGENCE_FORMULAS[kind].format(a=share, b=1 - share)
        case PolicyGradient(advantage=advantage, clip_low=low, clip_high=high):
            a = _factor(advantage)
            return f"-min(ratio {a}, clip(ratio, {1 - low:g}, {1 + high:g}) {a})"
        case Cispo(advantage=advantage, high=high):
            return f"-sg(min(ratio, {1 + high:g})) {_factor(advantage)} logp"
        case Nll():
            return "-logp"
        case EntropyBonus():
            return "-H(student)"
        case K3(to=to):
            return f"exp(d) - d - 1, d = {to}_logp - logp"
        case _:
            assert_never(kernel)


def _factor(advantage: Expr) -> str:
    """An advantage as a factor of a formula."""
    text = text_of(advantage)
    return text if text.isidentifier() else f"({text})"
