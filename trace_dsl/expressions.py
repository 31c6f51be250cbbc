"""Reading expressions without a batch: their value at a step, their formula, the signals they need."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import assert_never

from trace_dsl.model import DEFAULT_TEACHER
from trace_dsl.schedules import Progress, weight_at
from trace_dsl.terms import (
    Anneal,
    Apply,
    Constant,
    Expr,
    Function,
    Length,
    Operation,
    Operator,
    Rank,
    Reduce,
    RunFraction,
    Scanned,
    Schedule,
    Scheduled,
    Signal,
    Steps,
    Tokens,
)
from trace_dsl.vocabulary import SOURCES

_LEAVES = (Constant, Scheduled, Signal)
_STATEFUL = (Reduce, Scanned)


def children_of(expr: Expr) -> tuple[Expr, ...]:
    """The expressions directly below one."""
    match expr:
        case Constant() | Scheduled() | Signal():
            return ()
        case Operation() | Apply() | Scanned():
            return expr.args
        case Reduce():
            return () if expr.value is None else (expr.value,)
        case _:
            assert_never(expr)


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and everything below it."""
    waiting = [expr]
    while waiting:
        current = waiting.pop()
        yield current
        if isinstance(current, Operation):  # the most common, told first
            waiting.extend(current.args)
        elif not isinstance(current, _LEAVES):
            waiting.extend(children_of(current))


def map_signals(expr: Expr, change: Callable[[Signal], Expr]) -> Expr:
    """The expression with every signal put through `change`."""
    match expr:
        case Constant() | Scheduled():
            return expr
        case Signal():
            return change(expr)
        case Operation() | Apply() | Scanned():
            return replace(expr, args=tuple(map_signals(arg, change) for arg in expr.args))
        case Reduce():
            return expr if expr.value is None else replace(expr, value=map_signals(expr.value, change))
        case _:
            assert_never(expr)


def is_larger_than(expr: Expr, *, nodes: int, depth: int) -> bool:
    """Whether an expression has more than so many nodes or levels; stops looking as soon as it knows."""
    if isinstance(expr, _LEAVES):
        return nodes < 1 or depth < 1
    layer: list[Expr] = [expr]
    count, level = 1, 1
    while layer := [child for parent in layer if not isinstance(parent, _LEAVES) for child in children_of(parent)]:
        count += len(layer)
        level += 1
        if count > nodes or level > depth:
            return True
    return False


def signals_of(expr: Expr) -> frozenset[str]:
    """The names of the signals an expression reads."""
    return frozenset(part.name for part in walk(expr) if isinstance(part, Signal))


def schedules_of(expr: Expr) -> tuple[Schedule, ...]:
    """The schedules in an expression, in no particular order, each once."""
    return tuple(dict.fromkeys(part.schedule for part in walk(expr) if isinstance(part, Scheduled)))


def is_known_before_run(expr: Expr) -> bool:
    """Whether the value follows from the step alone: no measurement, no state."""
    if isinstance(expr, Constant):
        return True
    return expr.rank <= Rank.STEP and not any(
        isinstance(part, _STATEFUL) or (isinstance(part, Signal) and part.name != "step") for part in walk(expr)
    )


# ------------------------------------------------------------------------------------------------------ value at a step


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def apply_function(function: Function, args: tuple[float, ...]) -> float:
    """A function on numbers; raises ValueError where it is undefined or overflows."""
    try:
        match function:
            case Function.EXP:
                return math.exp(args[0])
            case Function.LOG:
                return math.log(args[0])
            case Function.ABS:
                return abs(args[0])
            case Function.SIGN:
                return math.copysign(1.0, args[0]) if args[0] != 0 else 0.0
            case Function.SQRT:
                return math.sqrt(args[0])
            case Function.SIGMOID:
                return _sigmoid(args[0])
            case Function.SOFTPLUS:
                return _softplus(args[0])
            case Function.CLIP:
                return min(max(args[0], args[1]), args[2])
            case Function.MIN:
                return min(args)
            case Function.MAX:
                return max(args)
            case Function.WHERE:
                return args[1] if args[0] else args[2]
            case _:
                assert_never(function)
    except (ValueError, OverflowError) as error:
        shown = ", ".join(f"{arg:g}" for arg in args)
        raise ValueError(f"{function.value}({shown}) has no finite value") from error


_BINARY: dict[Operator, Callable[[float, float], float]] = {
    Operator.ADD: lambda a, b: a + b,
    Operator.SUB: lambda a, b: a - b,
    Operator.MUL: lambda a, b: a * b,
    Operator.LT: lambda a, b: float(a < b),
    Operator.LE: lambda a, b: float(a <= b),
    Operator.GT: lambda a, b: float(a > b),
    Operator.GE: lambda a, b: float(a >= b),
    Operator.EQ: lambda a, b: float(a == b),
    Operator.NE: lambda a, b: float(a != b),
    Operator.AND: lambda a, b: float(bool(a) and bool(b)),
    Operator.OR: lambda a, b: float(bool(a) or bool(b)),
}


def apply_operator(op: Operator, args: tuple[float, ...]) -> float:
    """An operator on numbers, predicates being 1 and 0; raises ValueError for a division by zero."""
    if op is Operator.NEG:
        return -args[0]
    if op is Operator.NOT:
        return float(not args[0])
    if op is Operator.DIV:
        if args[1] == 0:
            raise ValueError(f"{args[0]:g}/0 is a division by zero")
        return args[0] / args[1]
    return _BINARY[op](args[0], args[1])


def weight_at_step(expr: Expr, at: Progress) -> float:
    """The value of a constant or step-rank expression at `at`; predicates give 1 or 0.

    Raises ValueError when the value does not follow from the step alone (see `is_known_before_run`), and where the
    formula is undefined, for example 1/step at step 0. A branch that `where` does not choose may be, and so may one
    side of an `and` or `or` that the other decides.
    """
    match expr:
        case Constant():
            return expr.value
        case Scheduled():
            return weight_at(expr.schedule, at)
        case Signal(name="step"):
            return float(at.step)
        case Operation(op=Operator.AND | Operator.OR):
            return _either_side(expr, at)
        case Operation():
            return apply_operator(expr.op, tuple(weight_at_step(arg, at) for arg in expr.args))
        case Apply(function=Function.WHERE):
            chosen = expr.args[1] if weight_at_step(expr.args[0], at) else expr.args[2]
            return weight_at_step(chosen, at)
        case Apply():
            return apply_function(expr.function, tuple(weight_at_step(arg, at) for arg in expr.args))
        case Signal() | Reduce() | Scanned():
            raise ValueError(f"{text_of(expr)} is measured during the run, not known from the step")
        case _:
            assert_never(expr)


def _either_side(expr: Operation, at: Progress) -> float:
    """`and` and `or`: one side that decides is enough, whichever it is."""
    decides = expr.op is Operator.OR
    undefined: ValueError | None = None
    for arg in expr.args:
        try:
            if bool(weight_at_step(arg, at)) is decides:
                return float(decides)
        except ValueError as error:
            undefined = undefined or error
    if undefined is not None:
        raise undefined
    return float(not decides)


# ------------------------------------------------------------------------------------------------------------- formula

_TIGHTNESS = {
    Operator.OR: 1,
    Operator.AND: 2,
    Operator.NOT: 3,
    Operator.ADD: 5,
    Operator.SUB: 5,
    Operator.MUL: 6,
    Operator.DIV: 6,
    Operator.NEG: 7,
}
_COMPARISON = 4
_ATOM = 8


def number_text(value: float) -> str:
    """The shortest text that reads back as the same number: 0.5, 3, 2e+06."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e6 else repr(value)


def length_text(length: Length) -> str:
    """A length as it is written in a spec."""
    match length:
        case Steps(count):
            return str(count)
        case RunFraction(fraction):
            return f"{fraction * 100:g}%"
        case Tokens(count):
            return f"{count:g} tokens"
        case _:
            assert_never(length)


def _anneal_text(anneal: Anneal) -> str:
    return anneal.shape.value + ("" if anneal.length is None else f"({length_text(anneal.length)})")


def schedule_text(schedule: Schedule) -> str:
    """A schedule as it is written in a spec, without the arguments that have their default."""
    parts = [number_text(schedule.weight)]
    for name, length in (("start", schedule.start), ("ramp", schedule.ramp), ("warmup", schedule.warmup)):
        if length != Steps(0):
            parts.append(f"{name}={length_text(length)}")
    if schedule.anneal is not None:
        parts.append(f"anneal={_anneal_text(schedule.anneal)}")
    if schedule.floor != 0:
        parts.append(f"floor={number_text(schedule.floor)}")
    return f"schedule({', '.join(parts)})"


def _tightness(expr: Expr) -> int:
    if isinstance(expr, Operation):
        return _TIGHTNESS.get(expr.op, _COMPARISON)
    if isinstance(expr, Constant) and expr.value < 0:
        return _TIGHTNESS[Operator.NEG]
    return _ATOM


def _operand(expr: Expr, at_least: int) -> str:
    text = text_of(expr)
    return text if _tightness(expr) >= at_least else f"({text})"


def _operation_text(expr: Operation) -> str:
    own = _tightness(expr)
    if expr.op is Operator.NOT:
        return f"not {_operand(expr.args[0], own)}"
    if expr.op is Operator.NEG:
        return f"-{_operand(expr.args[0], own)}"
    left, right = expr.args
    if isinstance(left, Signal) and left.name == "source" and isinstance(right, Constant):
        writer = next(word for word, code in SOURCES.items() if code == right.value)
        return f"source {expr.op.value} {writer}"
    # Everything associates to the left; comparisons do not associate at all.
    loose = own + 1 if own == _COMPARISON else own
    mark = expr.op.value if expr.op in (Operator.MUL, Operator.DIV) else f" {expr.op.value} "
    return f"{_operand(left, loose)}{mark}{_operand(right, own + 1)}"


def text_of(expr: Expr) -> str:
    """The expression as a formula of the language, with its lets put in place."""
    match expr:
        case Constant():
            return number_text(expr.value)
        case Scheduled():
            return schedule_text(expr.schedule)
        case Signal():
            if expr.name.startswith("has_"):
                return f"has({expr.name.removeprefix('has_')})"
            return expr.name if expr.teacher in (None, DEFAULT_TEACHER) else f"{expr.name}({expr.teacher})"
        case Operation():
            return _operation_text(expr)
        case Apply():
            return f"{expr.function.value}({', '.join(text_of(arg) for arg in expr.args)})"
        case Reduce():
            parts = [] if expr.value is None else [text_of(expr.value)]
            parts += [] if expr.amount is None else [f"{expr.amount * 100:g}%"]
            return f"{expr.reduction.value}({', '.join([*parts, f'over={expr.over.value}'])})"
        case Scanned():
            parts = [text_of(arg) for arg in expr.args]
            parts += [] if expr.amount is None else [number_text(expr.amount)]
            return f"{expr.scan.value}({', '.join(parts)})"
        case _:
            assert_never(expr)
