"""Operators and functions on three kinds of values: numbers, NaN (no number) and None (only the run can tell).

What torch gives for overflows, poles and NaN is given here too, so that nothing raises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trace_dsl.expressions import apply_function, apply_operator
from trace_dsl.terms import Function, Operator

Known = float | None


def operate(op: Operator, args: Sequence[Known]) -> Known:
    """An operator at one place. One side that decides an `and` or an `or` is enough."""
    if op is Operator.AND or op is Operator.OR:
        decides = float(op is Operator.OR)
        return decides if decides in args else None if None in args else 1.0 - decides
    if None in args:
        return None
    numbers = tuple(arg for arg in args if arg is not None)
    match op:
        case Operator.NOT:
            return 1.0 - numbers[0]
        case Operator.DIV:
            return divide(*numbers)
        case _:
            return apply_operator(op, numbers)


def divide(above: float, below: float) -> float:
    """As IEEE 754 has it: infinite at a pole, NaN for 0/0."""
    if below != 0:
        return above / below
    if above == 0 or math.isnan(above):
        return math.nan
    return math.copysign(math.inf, above) * math.copysign(1.0, below)


def apply(function: Function, args: Sequence[Known]) -> Known:
    """A function at one place."""
    if function is Function.WHERE:
        condition, yes, no = args
        if condition is None:
            return yes if yes == no else None
        return yes if condition != 0 else no
    if None in args:
        return None
    numbers = tuple(arg for arg in args if arg is not None)
    if any(math.isnan(number) for number in numbers):
        return math.nan
    try:
        return apply_function(function, numbers)
    except ValueError:
        return _outside(function, numbers[0])


def _outside(function: Function, x: float) -> float:
    """The value where a formula is undefined or overflows."""
    match function:
        case Function.EXP:
            return math.inf
        case Function.LOG if x == 0:
            return -math.inf
        case _:
            return math.nan
