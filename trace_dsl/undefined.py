"""At which steps of a run an expression has no value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from trace_dsl.certainty import follows_from_step, no_value_at, surely_zero
from trace_dsl.expressions import children_of, walk
from trace_dsl.over_steps import Points, known_values_at
from trace_dsl.schedules import Progress
from trace_dsl.terms import Constant, Expr, Operation, Operator, Rank, Scheduled, Signal


def first_undefined(
    expr: Expr, total_steps: int, steps: Sequence[int], weight: Expr | None = None
) -> tuple[int, str] | None:
    """The first of `steps` at which a part of an expression that follows from the step has no value, and why.

    weight: of the loss that the expression belongs to, which is not evaluated where its weight is surely zero.
    """
    parts = _doubtful(expr)
    if not parts:
        return None
    if not any(part.rank is Rank.STEP for part in walk(expr)):
        steps = steps[:1]  # it is the same at every step
    suspicious = {step for part, above in parts for step in _without_value(part, total_steps, steps, above)}
    for step in sorted(suspicious):
        at = Progress(step=step, total_steps=total_steps)
        reason = no_value_at(expr, at)
        if reason is not None and (weight is None or not surely_zero(weight, at)):
            return step, reason
    return None


def may_be_undefined(expr: Expr) -> bool:
    """Whether `first_undefined` may find something, at some step of some run."""
    return bool(_doubtful(expr))


def _doubtful(expr: Expr) -> list[tuple[Expr, Expr | None]]:
    if all(map(_is_plain, walk(expr))):  # as most predicates are; what follows takes several looks at each part
        return []
    return [(part, above) for part, above in _known_parts(expr) if not _surely_defined(part, above)]


def _known_parts(expr: Expr, above: Expr | None = None) -> Iterator[tuple[Expr, Expr | None]]:
    """The largest parts whose value follows from the step, each with what it stands in."""
    if follows_from_step(expr):
        yield expr, above
        return
    for part in children_of(expr):
        yield from _known_parts(part, expr)


def _without_value(part: Expr, total_steps: int, steps: Sequence[int], above: Expr | None) -> list[int]:
    """The steps at which a part, wherever it is evaluated, has no finite value, or is zero and something is divided by
    it."""
    divides = _divides(part, above)
    values = known_values_at(part, Points(total_steps=total_steps, steps=steps, tokens=()))
    return [
        step
        for step, value in zip(steps, values, strict=True)
        if value is None or not math.isfinite(value) or (divides and value == 0.0)
    ]


# What no step of a run reaches, and no schedule.
_STEPS = 1e12
_OVERFLOWS = 1e300
_ARITHMETIC = {Operator.ADD, Operator.SUB, Operator.MUL, Operator.DIV}


def _is_plain(part: Expr) -> bool:
    """Whether a part has a value wherever those below it have, and no large one."""
    if isinstance(part, Operation):
        return part.op not in _ARITHMETIC
    return abs(part.value) < _STEPS if isinstance(part, Constant) else isinstance(part, Signal)


def _surely_defined(part: Expr, above: Expr | None) -> bool:
    """Whether a part has a finite value at every step of any run, and nothing is divided by it."""
    if isinstance(part, Constant) and part.value != 0.0:
        return True
    return not _divides(part, above) and _largest(part) < _OVERFLOWS


def _divides(part: Expr, above: Expr | None) -> bool:
    """Whether a part is what something is divided by, in what it stands in."""
    return isinstance(above, Operation) and above.op is Operator.DIV and above.args[1] is part


def _largest(expr: Expr) -> float:
    """A bound on the magnitude at any step; infinite where there may be none, or no value."""
    match expr:
        case Constant(value=value):
            return abs(value)
        case Scheduled(schedule=schedule):
            return max(abs(schedule.weight), abs(schedule.floor))
        case Signal(name="step"):
            return _STEPS
        case Operation(op=Operator.ADD | Operator.SUB, args=args):
            return sum(map(_largest, args))
        case Operation(op=Operator.MUL, args=args):
            return math.prod(map(_largest, args))
        case Operation(op=Operator.DIV, args=(above, Constant(value=below))) if below != 0:
            return _largest(above) / abs(below) if abs(below) > 1 / _OVERFLOWS else math.inf
        case Operation(op=Operator.NEG, args=(value,)):
            return _largest(value)
        case Operation(op=Operator.DIV):
            return math.inf
        case Operation(args=args):  # comparisons and logic
            return 1.0 if all(_largest(arg) < _OVERFLOWS for arg in args) else math.inf
        case _:
            return math.inf
