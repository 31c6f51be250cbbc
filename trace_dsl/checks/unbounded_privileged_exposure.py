"""A divergence to a privileged teacher that never goes away.

The exposure of the student to what only the teacher sees is bounded by a multiple of the sum of squared weights (TRACE,
arXiv 2605.10194, section 4): finite for a run of any length only if the weight comes back to zero.
"""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.reading import end_of_run, finding, is_privileged
from trace_dsl.checks.sampled_run import last_standings
from trace_dsl.expressions import is_known_before_run, schedules_of, weight_at_step
from trace_dsl.facts import RunFacts
from trace_dsl.model import Channel, Diagnostic, Divergence, OtherPlace, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Apply, Constant, Expr, Function, Operation, Operator, Scheduled

RULE = RuleInfo(
    name="unbounded-privileged-exposure",
    severity=Severity.WARNING,
    summary="a divergence to a teacher that sees something, whose weight never returns to zero",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    for index, channel, divergence in _divergences(spec):
        teacher = spec.teacher(divergence.teacher)
        if teacher is None or not is_privileged(teacher.sees) or _ends_at_zero(channel.weight):
            continue
        if not last_standings(spec)[index].reached:  # a predicate on the step ends it
            continue
        yield finding(
            RULE,
            channel.place,
            f"`{channel.text}` never stops following a teacher that sees the {teacher.sees.value}",
            consequence="the student learns to lean on what it will not have; the bound on that grows with every step",
            fix=_fix(channel.weight),
            others=(OtherPlace(place=teacher.place, note=f"the teacher `{teacher.name}`"),),
        )


def _divergences(spec: Spec) -> Iterator[tuple[int, Channel, Divergence]]:
    """Every divergence to a teacher, with the place of its route among the routes."""
    for index, route in enumerate(spec.routes):
        for channel in route.channels:
            if isinstance(channel.kernel, Divergence):
                yield index, channel, channel.kernel


def _fix(weight: Expr) -> str:
    annealed = [schedule for schedule in schedules_of(weight) if schedule.anneal is not None]
    if any(schedule.floor > 0 for schedule in annealed):
        return "take `floor` out: its anneal then ends at zero"
    if annealed:
        return "let the whole weight go to zero: its anneal does, but what is added to it or made of it stays"
    return "let the weight go to zero, as in anneal=linear(30)"


def _ends_at_zero(weight: Expr) -> bool:
    """Whether the weight is zero (or wrong in another way: negative) once every schedule has run its course.

    A run that is too short for its schedule is the business of schedule-exceeds-run.
    """
    if is_known_before_run(weight):
        try:
            return weight_at_step(weight, end_of_run(weight)) <= 0
        except ValueError:
            return False
    match weight:
        case Constant() | Scheduled():
            return False
        case Operation(op=Operator.MUL):
            return any(_ends_at_zero(arg) for arg in weight.args)
        case Operation(op=Operator.DIV):
            return _ends_at_zero(weight.args[0])
        case Operation(op=Operator.ADD | Operator.SUB | Operator.NEG):
            return all(_ends_at_zero(arg) for arg in weight.args)
        case Apply(function=Function.WHERE, args=(condition, *branches)):
            chosen = _chosen_at_the_end(condition)
            return all(_ends_at_zero(arg) for arg in (branches if chosen is None else [branches[not chosen]]))
        case Apply(function=Function.MIN):
            return any(_ends_at_zero(arg) for arg in weight.args)
        case Apply(function=Function.ABS | Function.SQRT | Function.SIGN | Function.MAX):
            return all(_ends_at_zero(arg) for arg in weight.args)
        case _:
            return False


def _chosen_at_the_end(condition: Expr) -> bool | None:
    """Whether a condition holds once every schedule has run its course; None where the step does not tell."""
    if not is_known_before_run(condition):
        return None
    try:
        return bool(weight_at_step(condition, end_of_run(condition)))
    except ValueError:  # undefined-weight
        return None
