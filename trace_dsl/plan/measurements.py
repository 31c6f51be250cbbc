"""What must be measured before a batch can be lowered: signals that need a forward pass of the policy or a teacher."""

from __future__ import annotations

from trace_dsl.certainty import surely_zero, weight_known_at
from trace_dsl.expressions import walk
from trace_dsl.model import PolicyGradient
from trace_dsl.plan.payloads import Content, Origin, Payload, expression_needs
from trace_dsl.plan.plan import Plan, advantage_of, latches_of, standings_of
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr, Rank, Signal

# Signals that follow from log-probs and entropies; `gap` and `ratio` are computed from the others.
MEASURED = frozenset({"logp", "entropy", "ratio", "gap", "teacher_logp", "teacher_entropy"})

_NAMES = {
    (Origin.POLICY, Content.SAMPLED): "logp",
    (Origin.POLICY, Content.ENTROPY): "entropy",
    (Origin.TEACHER, Content.SAMPLED): "teacher_logp",
    (Origin.TEACHER, Content.ENTROPY): "teacher_entropy",
}


def measurements(plan: Plan, step: int) -> frozenset[Signal]:
    """The signals to measure at `step`: logp, entropy (teacher None), teacher_logp and teacher_entropy per teacher."""
    found = (_signal(need.payload) for expr in evaluated(plan, step) for need in expression_needs(expr))
    return frozenset(signal for signal in found if signal is not None)


def signals_read(plan: Plan, step: int) -> frozenset[Signal]:
    """Every signal that is read at `step`, as the spec names it."""
    return frozenset(part for expr in evaluated(plan, step) for part in walk(expr) if isinstance(part, Signal))


def evaluated(plan: Plan, step: int) -> tuple[Expr, ...]:
    """The expressions that are evaluated on the batch of `step`.

    Latches, whose state goes on, always are; a predicate where the step does not decide and routes above leave it
    tokens, weights and advantages where their route may take tokens and their loss may have weight.
    """
    expressions: list[Expr] = list(latches_of(plan))
    at = Progress(step=step, total_steps=plan.facts.total_steps)
    for planned, standing in zip(plan.routes, standings_of(plan, at), strict=True):
        if planned.route.when is not None and standing.asks:
            expressions.append(planned.route.when)
        for loss in planned.losses:
            if standing.reached and not surely_zero(loss.channel.weight, at):
                advantage = advantage_of(loss.channel)
                expressions += [loss.channel.weight, *([] if advantage is None else [advantage])]
    return tuple(expressions)


def loss_weights(plan: Plan, at: Progress) -> tuple[tuple[float | None, ...], ...]:
    """The weight of each loss of each route at a step: 0 where its route takes no token, None when only the run can
    tell.
    """
    return tuple(
        tuple(weight_known_at(loss.channel.weight, at) if standing.reached else 0.0 for loss in planned.losses)
        for planned, standing in zip(plan.routes, standings_of(plan, at), strict=True)
    )


def needs_proximal(plan: Plan, steps: range) -> bool:
    """Whether a loss that may have weight at one of `steps` reads the log-probs of the policy before its updates."""
    reads = [
        (r, loss.channel.weight)
        for r, planned in enumerate(plan.routes)
        for loss in planned.losses
        if isinstance(loss.channel.kernel, PolicyGradient) and loss.channel.kernel.tis is not None
    ]
    moments = [Progress(step=step, total_steps=plan.facts.total_steps) for step in steps] if reads else []
    standing = [standings_of(plan, at) for at in moments]
    return any(
        standing_at[r].reached and not surely_zero(weight, at)
        for at, standing_at in zip(moments, standing, strict=True)
        for r, weight in reads
    )


def _signal(payload: Payload) -> Signal | None:
    """The signal that holds a payload; None for what is not measured, such as the log-probs kept from sampling."""
    name = _NAMES.get((payload.origin, payload.content))
    return None if name is None else Signal(name=name, rank=Rank.TOKEN, teacher=payload.teacher)
