"""What must be measured before a batch can be lowered: signals that need a forward pass of the policy or a teacher."""

from __future__ import annotations

from trace_dsl.expressions import walk
from trace_dsl.model import PolicyGradient
from trace_dsl.plan.certainty import surely_zero
from trace_dsl.plan.plan import Plan, advantage_of, latches_of
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr, Rank, Signal

# Signals that follow from log-probs and entropies; `gap` and `ratio` are computed from the others.
MEASURED = frozenset({"logp", "entropy", "ratio", "gap", "teacher_logp", "teacher_entropy"})


def teachers_read(expr: Expr) -> frozenset[str]:
    """The teachers whose signals an expression reads."""
    return frozenset(part.teacher for part in walk(expr) if isinstance(part, Signal) and part.teacher is not None)


def measurements(plan: Plan, step: int) -> frozenset[Signal]:
    """The signals to measure at `step`: logp, entropy (teacher None), teacher_logp and teacher_entropy per teacher.

    Predicates and latches, whose state goes on, are always evaluated; weights and advantages only while their loss may
    have weight.
    """
    expressions: list[Expr] = list(latches_of(plan))
    at = Progress(step=step, total_steps=plan.facts.total_steps)
    for planned in plan.routes:
        if planned.route.when is not None:
            expressions.append(planned.route.when)
        for loss in planned.losses:
            if not surely_zero(loss.channel.weight, at):
                advantage = advantage_of(loss.channel)
                expressions += [loss.channel.weight, *([] if advantage is None else [advantage])]
    found: set[Signal] = set()
    for part in (part for expr in expressions for part in walk(expr)):
        if isinstance(part, Signal) and part.name in MEASURED:
            found |= _sources(part)
    return frozenset(found)


def needs_proximal(plan: Plan, steps: range) -> bool:
    """Whether a loss that may have weight at one of `steps` reads the log-probs of the policy before its updates."""
    weights = [
        loss.channel.weight
        for planned in plan.routes
        for loss in planned.losses
        if isinstance(loss.channel.kernel, PolicyGradient) and loss.channel.kernel.tis is not None
    ]
    moments = [Progress(step=step, total_steps=plan.facts.total_steps) for step in steps]
    return any(not surely_zero(weight, at) for weight in weights for at in moments)


def _sources(signal: Signal) -> set[Signal]:
    """The measurements a signal is computed from."""
    logp = Signal(name="logp", rank=Rank.TOKEN)
    match signal.name:
        case "gap":
            return {logp, Signal(name="teacher_logp", rank=Rank.TOKEN, teacher=signal.teacher)}
        case "ratio":
            return {logp}
        case _:
            return {signal}
