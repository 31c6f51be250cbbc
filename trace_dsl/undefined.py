"""At which steps of a run an expression has no value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from trace_dsl.certainty import follows_from_step, no_value_at, surely_zero
from trace_dsl.expressions import children_of, walk
from trace_dsl.over_steps import Points, values_at
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr, Operation, Operator, Rank


def first_undefined(
    expr: Expr, total_steps: int, steps: Sequence[int], weight: Expr | None = None
) -> tuple[int, str] | None:
    """The first of `steps` at which a part of an expression that follows from the step has no value, and why.

    weight: of the loss that the expression belongs to, which is not evaluated where its weight is surely zero.
    """
    if not any(part.rank is Rank.STEP for part in walk(expr)):
        steps = steps[:1]  # it is the same at every step
    if not steps or all(_is_defined(part, total_steps, tuple(steps), above) for part, above in _known_parts(expr)):
        return None
    for step in steps:
        at = Progress(step=step, total_steps=total_steps)
        reason = no_value_at(expr, at)
        if reason is not None and (weight is None or not surely_zero(weight, at)):
            return step, reason
    return None


def _known_parts(expr: Expr, above: Expr | None = None) -> Iterator[tuple[Expr, Expr | None]]:
    """The largest parts whose value follows from the step, each with what it stands in."""
    if follows_from_step(expr):
        yield expr, above
        return
    for part in children_of(expr):
        yield from _known_parts(part, expr)


def _is_defined(part: Expr, total_steps: int, steps: tuple[int, ...], above: Expr | None) -> bool:
    """Whether a part has a value at every step, in all of its branches, and divides by nothing that is zero there."""
    try:
        values = values_at(part, Points(total_steps=total_steps, steps=steps, tokens=()))
    except ValueError:
        return False
    divides = isinstance(above, Operation) and above.op is Operator.DIV and above.args[1] is part
    return all(map(math.isfinite, values)) and not (divides and 0.0 in values)
