"""The values of an expression at many steps of a run at once: one pass over the formula, not one for each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import assert_never, cast

from trace_dsl.expressions import apply_function, apply_operator, text_of, walk
from trace_dsl.schedules import counts_tokens, weight_function
from trace_dsl.terms import Apply, Constant, Expr, Function, Operation, Operator, Reduce, Scanned, Scheduled, Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Steps of a run of `total_steps`; `tokens`: the response tokens that were trained before each."""

    total_steps: int
    steps: Sequence[int]
    tokens: Sequence[float]


def formula_size(expr: Expr) -> int:
    """How many operations and values a formula has: its cost at one step."""
    return sum(1 for _ in walk(expr))


def values_at(expr: Expr, points: Points) -> Sequence[float]:
    """The value at each point, as `expressions.weight_at_step` gives it; predicates give 1 or 0.

    Raises ValueError when a part of the formula is undefined at one of the points, also a part that
    `weight_at_step` would not look at there, and when a value does not follow from the step.
    """
    match expr:
        case Constant():
            return [expr.value] * len(points.steps)
        case Scheduled():
            schedule = expr.schedule
            positions = points.tokens if counts_tokens(schedule) else points.steps
            return list(map(weight_function(schedule, points.total_steps), positions))
        case Signal(name="step"):
            return list(map(float, points.steps))
        case Operation():
            return _operation(expr.op, [values_at(arg, points) for arg in expr.args])
        case Apply():
            columns = [values_at(arg, points) for arg in expr.args]
            if expr.function is Function.WHERE:
                return [yes if chosen else no for chosen, yes, no in zip(*columns, strict=True)]
            return [apply_function(expr.function, values) for values in zip(*columns, strict=True)]
        case Signal() | Reduce() | Scanned():
            raise ValueError(f"{text_of(expr)} is measured during the run, not known from the step")
        case _:
            assert_never(expr)


def known_values_at(expr: Expr, points: Points) -> Sequence[float | None]:
    """The value at each point, as `expressions.weight_at_step` gives it; None where it raises for want of a value.

    Raises ValueError when a value does not follow from the step.
    """
    try:
        return values_at(expr, points)
    except ValueError:  # perhaps only in a part that is not evaluated there
        return _known_values(expr, points)


def _known_values(expr: Expr, points: Points) -> Sequence[float | None]:
    match expr:
        case Operation(op=Operator.AND | Operator.OR as op, args=args):
            columns = [_known_values(arg, points) for arg in args]
            return [_either_side(at, decides=op is Operator.OR) for at in zip(*columns, strict=True)]
        case Apply(function=Function.WHERE, args=args):
            columns = [_known_values(arg, points) for arg in args]
            at_points = zip(*columns, strict=True)
            return [None if chosen is None else yes if chosen else no for chosen, yes, no in at_points]
        case Operation(op=op, args=args):
            return _apply(partial(apply_operator, op), [_known_values(arg, points) for arg in args])
        case Apply(function=function, args=args):
            return _apply(partial(apply_function, function), [_known_values(arg, points) for arg in args])
        case _:
            return values_at(expr, points)


def _either_side(values: tuple[float | None, ...], *, decides: bool) -> float | None:
    """`and` and `or`: one side that decides is enough, whichever it is."""
    for value in values:
        if value is not None and bool(value) is decides:
            return float(decides)
    return None if None in values else float(not decides)


def _apply(function: Callable[[tuple[float, ...]], float], columns: list[Sequence[float | None]]) -> list[float | None]:
    found: list[float | None] = []
    for values in zip(*columns, strict=True):
        try:
            found.append(None if None in values else function(cast("tuple[float, ...]", values)))
        except ValueError:
            found.append(None)
    return found


def _operation(op: Operator, columns: list[Sequence[float]]) -> Sequence[float]:
    match op, columns:
        case Operator.ADD, (left, right):
            return [a + b for a, b in zip(left, right, strict=True)]
        case Operator.SUB, (left, right):
            return [a - b for a, b in zip(left, right, strict=True)]
        case Operator.MUL, (left, right):
            return [a * b for a, b in zip(left, right, strict=True)]
        case _:
            return list(map(partial(apply_operator, op), zip(*columns, strict=True)))
