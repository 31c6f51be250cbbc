"""What is certain of a weight or a predicate before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain

from trace_dsl.expressions import children_of, is_known_before_run, schedules_of, text_of, weight_at_step
from trace_dsl.schedules import Progress, counts_tokens
from trace_dsl.terms import Apply, Expr, Function, Operation, Operator


def surely_zero(expr: Expr, at: Progress) -> bool:
    """Whether `expr` is zero at `at` whatever its signals are. Exact where the step decides, safe elsewhere.

    What has no value there (see `no_value_at`) is not zero.
    """
    if follows_from_step(expr):
        return _value(expr, at) == 0.0
    match expr:
        case Operation(op=Operator.MUL, args=args):
            return any(surely_zero(arg, at) for arg in args)
        case Operation(op=Operator.DIV, args=(numerator, _)):
            return surely_zero(numerator, at)
        case Operation(op=Operator.NEG | Operator.ADD | Operator.SUB, args=args):
            return all(surely_zero(arg, at) for arg in args)
        case Apply(function=Function.ABS | Function.SIGN | Function.SQRT, args=(value,)):
            return surely_zero(value, at)
        case Apply(function=Function.WHERE, args=(condition, yes, no)):
            known = predicate_known_at(condition, at)
            branches = (yes, no) if known is None else (yes if known else no,)
            return all(surely_zero(branch, at) for branch in branches)
        case _:
            return False


def predicate_known_at(predicate: Expr, at: Progress) -> bool | None:
    """Whether a predicate holds at a step; None when only the run can tell, or a part has no value there."""
    if follows_from_step(predicate):
        value = _value(predicate, at)
        return None if value is None else value != 0.0
    match predicate:
        case Operation(op=Operator.NOT, args=(inner,)):
            known = predicate_known_at(inner, at)
            return None if known is None else not known
        case Operation(op=Operator.AND | Operator.OR as op, args=args):
            parts = [predicate_known_at(arg, at) for arg in args]
            decides = op is Operator.OR
            return decides if decides in parts else None if None in parts else not decides
        case _:
            return None


def weight_known_at(weight: Expr, at: Progress) -> float | None:
    """The weight at a step, or None when only the run can tell. Raises ValueError where the step gives it no value."""
    if follows_from_step(weight):
        return weight_at_step(weight, at)
    return 0.0 if surely_zero(weight, at) else None


def no_value_at(expr: Expr, at: Progress) -> str | None:
    """Why a part of `expr` that is evaluated at a step has no value there, whatever is measured; None where all have.

    Evaluated is everything but the branch that `where` does not choose, and the other parts of an `and` or `or` that
    one part decides, as far as the step tells. Parts that count tokens are not judged.
    """
    if follows_from_step(expr):
        return _undefined(expr, at)
    match expr:
        case Operation(op=Operator.AND | Operator.OR) if predicate_known_at(expr, at) is not None:
            return None
        case Apply(function=Function.WHERE, args=(condition, yes, no)):
            known = predicate_known_at(condition, at)
            evaluated: Iterable[Expr] = expr.args if known is None else (yes if known else no,)
        case _:
            evaluated = children_of(expr)
    found = next(chain.from_iterable(_reasons(part, at) for part in evaluated), None)
    if found is None and isinstance(expr, Operation) and expr.op is Operator.DIV and _divides_by_zero(expr, at):
        return f"{text_of(expr)} is a division by zero"
    return found


def why_undefined(expr: Expr, at: Progress) -> str:
    """Why an expression that is known before the run has no finite value at a step where it has none."""
    try:
        return f"{text_of(expr)} is {weight_at_step(expr, at)}"
    except ValueError as error:
        return str(error)


def follows_from_step(expr: Expr) -> bool:
    """Whether the step number alone gives the value: no measurement, no token-counted schedule."""
    return is_known_before_run(expr) and not any(counts_tokens(s) for s in schedules_of(expr))


def _reasons(expr: Expr, at: Progress) -> Iterable[str]:
    reason = no_value_at(expr, at)
    return () if reason is None else (reason,)


def _divides_by_zero(expr: Operation, at: Progress) -> bool:
    divisor = expr.args[1]
    return follows_from_step(divisor) and _value(divisor, at) == 0.0


def _undefined(expr: Expr, at: Progress) -> str | None:
    value = _value(expr, at)
    return why_undefined(expr, at) if value is None or not math.isfinite(value) else None


def _value(expr: Expr, at: Progress) -> float | None:
    """The value that the step gives; None where it gives none."""
    try:
        return weight_at_step(expr, at)
    except ValueError:
        return None
