"""Spec + run facts -> Plan."""

from __future__ import annotations

from typing import assert_never

from trace_dsl.expressions import is_known_before_run, schedules_of, signals_of, text_of, weight_at_step
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
    teacher_of,
)
from trace_dsl.schedules import Progress, counts_tokens
from trace_dsl.terms import Apply, Expr, Function, Operation, Operator


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
    """The last step at which a loss with weight, or a predicate, reads `teacher`; -1 for never."""
    last = -1
    for planned in routes:
        if planned.route.when is not None and teacher in teachers_read(planned.route.when):
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
    steps = [Progress(step=step, total_steps=total_steps) for step in range(total_steps)]
    last = max((at.step for at in steps if not surely_zero(weight, at)), default=-1)
    if not _follows_from_step(weight):
        return WeightTrack(total=None, total_squared=None, last_step=last)
    values = [weight_at_step(weight, at) for at in steps]
    return WeightTrack(total=sum(values), total_squared=sum(v * v for v in values), last_step=last)


def surely_zero(expr: Expr, at: Progress) -> bool:
    """Whether `expr` is zero at `at` whatever its signals are. Exact where the step decides, safe elsewhere."""
    if _follows_from_step(expr):
        return weight_at_step(expr, at) == 0.0
    match expr:
        case Operation(op=Operator.MUL, args=args):
            return any(surely_zero(arg, at) for arg in args)
        case Operation(op=Operator.DIV, args=(numerator, _)):
            return surely_zero(numerator, at)
        case Operation(op=Operator.NEG | Operator.ADD | Operator.SUB, args=args):
            return all(surely_zero(arg, at) for arg in args)
        case Apply(function=Function.ABS | Function.SIGN | Function.SQRT, args=(value,)):
            return surely_zero(value, at)
        case Apply(function=Function.WHERE, args=(_, yes, no)):
            return surely_zero(yes, at) and surely_zero(no, at)
        case _:
            return False


def weight_known_at(weight: Expr, at: Progress) -> float | None:
    """The weight at a step, or None when only the run can tell."""
    if _follows_from_step(weight):
        return weight_at_step(weight, at)
    return 0.0 if surely_zero(weight, at) else None


def _follows_from_step(expr: Expr) -> bool:
    """Whether the step number alone gives the value: no measurement, no token-counted schedule."""
    return is_known_before_run(expr) and not any(counts_tokens(s) for s in schedules_of(expr))


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
