"""What is left of an expression when everything that has one value has been worked out.

Only identities that hold for every finite value are used: x - x, 0*x, clip(x, c, c), where(p, x, x) and the like. This
judges formulas; nothing is computed from the result.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from trace_dsl.expressions import apply_function, apply_operator
from trace_dsl.terms import (
    Apply,
    Constant,
    Expr,
    Function,
    Operation,
    Operator,
    Reduce,
    Reduction,
    Scanned,
    Scheduled,
    Signal,
)

_SAME = {
    Operator.SUB: 0.0,
    Operator.DIV: 1.0,
    Operator.EQ: 1.0,
    Operator.LE: 1.0,
    Operator.GE: 1.0,
    Operator.NE: 0.0,
    Operator.LT: 0.0,
    Operator.GT: 0.0,
}


def folded(expr: Expr, students: frozenset[str]) -> Expr:
    """The expression without the parts that cancel; `students` names teachers that always equal the student."""
    match expr:
        case Constant() | Scheduled():
            return expr
        case Signal():
            return _without_teacher(expr) if expr.teacher in students else expr
        case Operation():
            return _operation(replace(expr, args=tuple(folded(arg, students) for arg in expr.args)))
        case Apply():
            return _application(replace(expr, args=tuple(folded(arg, students) for arg in expr.args)))
        case Reduce():
            if expr.value is None:
                return expr
            inner = folded(expr.value, students)
            keeps = expr.reduction in (Reduction.MEAN, Reduction.MAX, Reduction.QUANTILE)
            if isinstance(inner, Constant) and (keeps or (expr.reduction is Reduction.SUM and inner.value == 0)):
                return inner
            return replace(expr, value=inner)
        case Scanned():
            return replace(expr, args=tuple(folded(arg, students) for arg in expr.args))
        case _:
            assert_never(expr)


def _without_teacher(signal: Signal) -> Expr:
    """The same signal of a teacher that is the student."""
    match signal.name:
        case "gap":
            return Constant(value=0.0)
        case "overlap":
            return Constant(value=1.0)
        case "teacher_logp" | "teacher_entropy":
            return Signal(name=signal.name.removeprefix("teacher_"), rank=signal.rank)
        case _:
            return signal


def _constants(args: tuple[Expr, ...]) -> tuple[float, ...] | None:
    values = tuple(arg.value for arg in args if isinstance(arg, Constant))
    return values if len(values) == len(args) else None


def _operation(expr: Operation) -> Expr:
    values = _constants(expr.args)
    if values is not None:
        try:
            return Constant(value=apply_operator(expr.op, values))
        except ValueError:
            return expr
    if len(expr.args) == 2 and expr.args[0] == expr.args[1] and expr.op in _SAME:
        return Constant(value=_SAME[expr.op])
    zero = Constant(value=0.0)
    if (expr.op is Operator.MUL and zero in expr.args) or (expr.op is Operator.DIV and expr.args[0] == zero):
        return zero
    return expr


def _application(expr: Apply) -> Expr:
    values = _constants(expr.args)
    if values is not None:
        try:
            return Constant(value=apply_function(expr.function, values))
        except ValueError:
            return expr
    match expr.function, expr.args:
        case Function.WHERE, (_, yes, no) if yes == no:
            return yes
        case Function.WHERE, (Constant(value=chosen), yes, no):
            return yes if chosen else no
        case Function.CLIP, (_, Constant() as low, Constant() as high) if low.value >= high.value:
            return high
        case ((Function.MIN | Function.MAX), (first, *others)) if all(other == first for other in others):
            return first
        case _:
            return expr
