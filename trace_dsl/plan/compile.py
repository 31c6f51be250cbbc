"""Spec + run facts -> Plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

from trace_dsl.certainty import follows_from_step, surely_zero
from trace_dsl.errors import SpecError
from trace_dsl.expressions import signals_of, text_of, walk
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
    Place,
    PolicyGradient,
    Route,
    Spec,
)
from trace_dsl.over_steps import Points, known_values_at
from trace_dsl.plan.gathering import gathered
from trace_dsl.plan.plan import (
    Gathering,
    Plan,
    PlannedLoss,
    PlannedRoute,
    PlannedTeacher,
    WeightTrack,
    advantage_of,
    content_hash,
    expressions_of,
    is_latch,
    teacher_of,
)
from trace_dsl.plan.stretches import stretches
from trace_dsl.reach import Reach, steps_asked, steps_reached
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr
from trace_dsl.undefined import first_undefined


def compile_plan(spec: Spec, facts: RunFacts) -> Plan:
    """Resolve `spec` for a run. The spec must be free of errors (see `trace_dsl.lint_file`).

    Raises SpecError when a weight, advantage or predicate has no value at a step of this run at which it is evaluated.
    """
    standing = Reach(spec.routes).over(range(facts.total_steps), facts.total_steps)
    asked = [steps_asked(standing, index) for index in range(len(spec.routes))]
    reached = [steps_reached(standing, index) for index in range(len(spec.routes))]
    for route, steps in zip(spec.routes, asked, strict=True):
        _refuse_undefined_predicate(route, steps, facts.total_steps)
    routes = tuple(
        PlannedRoute(
            route=route,
            predicate_text="" if route.when is None else text_of(route.when),
            asked=stretches(asked[index]),
            losses=tuple(_plan_loss(channel, facts, reached[index]) for channel in route.channels),
        )
        for index, route in enumerate(spec.routes)
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


def _refuse_undefined_predicate(route: Route, steps: Sequence[int], total_steps: int) -> None:
    """Raise SpecError when the predicate of a route has no value at one of the steps at which it is evaluated, or a
    latch of the route at any step.
    """
    if route.when is not None:
        _refuse_undefined(route.when, "predicate", route.text, route.place, steps, total_steps)
    for expr in expressions_of(route):
        for latch in filter(is_latch, walk(expr)):
            _refuse_undefined(latch, "latch", route.text, route.place, range(total_steps), total_steps)


def _refuse_undefined(expr: Expr, what: str, text: str, place: Place, steps: Sequence[int], total_steps: int) -> None:
    """Raise SpecError when a part of `expr` that follows from the step has no value at one of `steps`."""
    found = first_undefined(expr, total_steps, steps)
    if found is not None:
        raise SpecError(
            f"line {place.line}: the {what} of {text} has no value at step {found[0]} of this run: {found[1]}; "
            "keep the formula defined at every step, as in 1/(step + 1)"
        )


def _plan_loss(channel: Channel, facts: RunFacts, steps: Sequence[int]) -> PlannedLoss:
    track = _track_weight(channel, facts.total_steps, steps)
    advantage = advantage_of(channel)
    if advantage is not None:
        active = [step for first, last in track.active for step in range(first, last + 1)]
        _refuse_undefined(advantage, "advantage", channel.text, channel.place, active, facts.total_steps)
    return PlannedLoss(
        channel=channel,
        formula=formula_of(channel.kernel),
        weight_text=text_of(channel.weight),
        teacher=teacher_of(channel),
        track=track,
    )


def _track_weight(channel: Channel, total_steps: int, steps: Sequence[int]) -> WeightTrack:
    """Follow a weight over the steps at which its route may take tokens.

    Raises SpecError where its formula has no value, whatever its route takes there.
    """
    weight = channel.weight
    if follows_from_step(weight):
        values = _values(weight, total_steps, steps)
        if values is not None:
            active = stretches(step for step, value in zip(steps, values, strict=True) if value != 0)
            return WeightTrack(total=sum(values), total_squared=sum(v * v for v in values), active=active)
        _refuse_undefined(weight, "weight", channel.text, channel.place, steps, total_steps)
        raise AssertionError(f"{text_of(weight)} has a value at every step and none at some")
    at = (Progress(step=step, total_steps=total_steps) for step in steps)
    maybe = [point.step for point in at if not surely_zero(weight, point)]
    _refuse_undefined(weight, "weight", channel.text, channel.place, maybe, total_steps)
    return WeightTrack(total=None, total_squared=None, active=stretches(maybe))


def _values(weight: Expr, total_steps: int, steps: Sequence[int]) -> Sequence[float] | None:
    """A weight at each step; None when it has no finite value at one of them."""
    values = known_values_at(weight, Points(total_steps=total_steps, steps=steps, tokens=()))
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return finite if len(finite) == len(values) else None


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
