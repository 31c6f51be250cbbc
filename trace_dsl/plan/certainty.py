"""What is certain of a weight or a predicate before anything is measured."""

from __future__ import annotations

from trace_dsl.expressions import is_known_before_run, schedules_of, weight_at_step
from trace_dsl.schedules import Progress, counts_tokens
from trace_dsl.terms import Apply, Expr, Function, Operation, Operator


def surely_zero(expr: Expr, at: Progress) -> bool:
    """Whether `expr` is zero at `at` whatever its signals are. Exact where the step decides, safe elsewhere."""
    if follows_from_step(expr):
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


def predicate_known_at(predicate: Expr, at: Progress) -> bool | None:
    """Whether a predicate holds at a step; None when only the run can tell, or a part has no value there."""
    if follows_from_step(predicate):
        try:
            return weight_at_step(predicate, at) != 0.0
        except ValueError:
            return None
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
    """The weight at a step, or None when only the run can tell."""
    if follows_from_step(weight):
        return weight_at_step(weight, at)
    return 0.0 if surely_zero(weight, at) else None


def follows_from_step(expr: Expr) -> bool:
    """Whether the step number alone gives the value: no measurement, no token-counted schedule."""
    return is_known_before_run(expr) and not any(counts_tokens(s) for s in schedules_of(expr))
