"""Spec + run facts -> Plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from trace_dsl.expressions import signals_of, text_of, walk, weight_at_step
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
    Spec,
)
from trace_dsl.over_steps import Points, values_at
from trace_dsl.plan.certainty import follows_from_step, surely_zero
from trace_dsl.plan.measurements import teachers_read
from trace_dsl.plan.plan import (
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
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr


def compile_plan(spec: Spec, facts: RunFacts) -> Plan:
    """Resolve `spec` for a run. The spec must be free of errors (see `trace_dsl.lint_file`)."""
    routes = tuple(
        PlannedRoute(
            route=route,
            predicate_text="" if route.when is None else text_of(route.when),
            losses=tuple(_plan_loss(channel, facts) for channel in route.channels),
        )
        for route in spec.routes
    )
    teachers = tuple(
        PlannedTeacher(teacher=teacher, last_step=_last_step(teacher.name, routes, facts.total_steps))
        for teacher in spec.teachers
    )
    return Plan(
        facts=facts,
        labels=spec.labels,
        advantage=spec.advantage,
        rollouts=spec.rollouts,
        routes=routes,
        teachers=teachers,
        signals=tuple(sorted({n for route in spec.routes for expr in expressions_of(route) for n in signals_of(expr)})),
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


def _last_step(teacher: str, routes: tuple[PlannedRoute, ...], total_steps: int) -> int:
    """The last step at which a loss with weight, or a predicate or a latch, reads `teacher`; -1 for never."""
    last = -1
    for planned in routes:
        always: list[Expr] = [part for expr in expressions_of(planned.route) for part in walk(expr) if is_latch(part)]
        always += [] if planned.route.when is None else [planned.route.when]
        if any(teacher in teachers_read(expr) for expr in always):
            return total_steps - 1
        for loss in planned.losses:
            read = {teacher_of(loss.channel), *teachers_read(loss.channel.weight)}
            advantage = advantage_of(loss.channel)
            if teacher in (read if advantage is None else read | teachers_read(advantage)):
                last = max(last, loss.track.last_step)
    return last


def _plan_loss(channel: Channel, facts: RunFacts) -> PlannedLoss:
    return PlannedLoss(
        channel=channel,
        formula=formula_of(channel.kernel),
        weight_text=text_of(channel.weight),
        teacher=teacher_of(channel),
        track=track_weight(channel.weight, facts.total_steps),
    )


def track_weight(weight: Expr, total_steps: int) -> WeightTrack:
    """Follow a weight over every step of the run."""
    if follows_from_step(weight):
        values = _values(weight, total_steps)
        last = max((step for step, value in enumerate(values) if value != 0), default=-1)
        return WeightTrack(total=sum(values), total_squared=sum(v * v for v in values), last_step=last)
    steps = (Progress(step=step, total_steps=total_steps) for step in reversed(range(total_steps)))
    last = next((at.step for at in steps if not surely_zero(weight, at)), -1)
    return WeightTrack(total=None, total_squared=None, last_step=last)


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
            a = text_of(advantage)
            a = a if a.isidentifier() else f"({a})"
            return f"-min(ratio {a}, clip(ratio, {1 - low:g}, {1 + high:g}) {a})"
        case Cispo(high=high):
            return f"-sg(min(ratio, {1 + high:g})) A logp"
        case Nll():
            return "-logp"
        case EntropyBonus():
            return "-H(student)"
        case K3(to=to):
            return f"exp(d) - d - 1, d = {to}_logp - logp"
        case _:
            assert_never(kernel)
