"""What the step alone says of an expression, written from the documents: a value, or that it has none.

A part that follows from the step must have a finite value wherever it is evaluated. Not evaluated is the branch that
`where` does not choose, and what stands beside a part that decides an `and` or `or`, on either side of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.lowering.plain import Place
from tests.lowering.reading_expressions import Values, parts_of
from tests.lowering.reading_schedules import in_tokens
from trace_dsl.model import Route, Spec
from trace_dsl.terms import Apply, Expr, Function, Operation, Operator, Reduce, Scan, Scanned, Scheduled, Signal

NOWHERE = Place()


def is_told(expr: Expr, *, tokens: bool) -> bool:
    """Whether the step gives the value, nothing being measured. tokens: a schedule over tokens is told too."""
    for part in parts_of(expr):
        if isinstance(part, Reduce | Scanned) or (isinstance(part, Signal) and part.name != "step"):
            return False
        if isinstance(part, Scheduled) and in_tokens(part.schedule) and not tokens:
            return False
    return True


def told(values: Values, expr: Expr) -> float | bool | None:
    """The value of an expression that is told; None where it has none."""
    match expr:
        case Operation(op=Operator.AND | Operator.OR, args=args):
            sides = [told(values, arg) for arg in args]
            decides = expr.op is Operator.OR
            if any(side is not None and bool(side) is decides for side in sides):
                return decides
            return None if None in sides else not decides
        case Apply(function=Function.WHERE, args=(condition, one, other)):
            holds = told(values, condition)
            return None if holds is None else told(values, one if holds else other)
        case Operation(args=args) | Apply(args=args):
            found = [told(values, arg) for arg in args]
            if None in found or (isinstance(expr, Operation) and expr.op is Operator.DIV and found[1] == 0):
                return None
            value = values.operation(expr, found) if isinstance(expr, Operation) else values.apply(expr.function, found)
            if isinstance(expr, Apply) and not math.isfinite(float(value)):
                return None
            return value
        case _:
            return values.at(expr, NOWHERE)


def holds_by_step(values: Values, predicate: Expr | None) -> bool | None:
    """Whether the step alone says that a predicate holds or not; None where it does not say."""
    if predicate is None:
        return True
    if is_told(predicate, tokens=False):
        found = told(values, predicate)
        return None if found is None else bool(found)
    match predicate:
        case Operation(op=Operator.NOT, args=(arg,)):
            inner = holds_by_step(values, arg)
            return None if inner is None else not inner
        case Operation(op=Operator.AND | Operator.OR as op, args=args):
            sides = [holds_by_step(values, arg) for arg in args]
            if (op is Operator.OR) in sides:
                return op is Operator.OR
            return None if None in sides else op is Operator.AND
    return None


def lacks_value(values: Values, expr: Expr) -> bool:
    """Whether some part that is told and evaluated has no finite value, or divides something by zero."""
    if is_told(expr, tokens=True):
        found = told(values, expr)
        return found is None or not math.isfinite(float(found))
    match expr:
        case Operation(op=Operator.AND | Operator.OR) if holds_by_step(values, expr) is not None:
            return False
        case Operation(op=Operator.DIV, args=(_, by)) if is_told(by, tokens=True) and told(values, by) == 0:
            return True
        case Apply(function=Function.WHERE, args=(condition, one, other)) if is_told(condition, tokens=True):
            holds = told(values, condition)
            return holds is None or lacks_value(values, one if holds else other)
        case Operation(args=args) | Apply(args=args) | Scanned(args=args):
            return any(lacks_value(values, arg) for arg in args)
        case Reduce(value=value):
            return value is not None and lacks_value(values, value)
    return False


def is_off(values: Values, weight: Expr) -> bool:
    """Whether the step alone makes a weight zero, so that nothing measured is read for it."""
    if is_told(weight, tokens=False):
        return told(values, weight) == 0
    match weight:
        case Operation(op=Operator.MUL, args=args):
            return any(is_off(values, arg) for arg in args)
        case Operation(op=Operator.DIV, args=args):
            return is_off(values, args[0])
        case Operation(op=Operator.ADD | Operator.SUB | Operator.NEG, args=args):
            return all(is_off(values, arg) for arg in args)
        case Apply(function=Function.WHERE, args=(condition, one, other)):
            holds = holds_by_step(values, condition)
            return all(is_off(values, arg) for arg in ((one, other) if holds is None else (one if holds else other,)))
        case Apply(function=Function.ABS | Function.SIGN | Function.SQRT, args=(arg,)):
            return is_off(values, arg)
    return False


def passed_over(values: Values, routes: Sequence[Route]) -> list[tuple[bool, bool]]:
    """Of each route, whether the step lets it take no token, and whether its predicate is left alone.

    A route is passed over where its predicate fails by the step alone, and where each of its labels is a label of a
    route above, of the same rollouts, whose predicate holds by the step alone.
    """
    found: list[tuple[bool, bool]] = []
    full: list[Route] = []
    for route in routes:
        above = [
            other for other in full if other.rows == route.rows and (_reads_source(other) or not _reads_source(route))
        ]
        covered = {label for other in above for label in other.labels}
        hidden = "rest" in covered or set(route.labels) <= covered
        holds = holds_by_step(values, route.when)
        found.append((hidden or holds is False, hidden or holds is not None))
        if holds and not hidden:
            full.append(route)
    return found


def is_undefined(values: Values, spec: Spec, advantage_of: dict[int, Expr]) -> bool:
    """Whether something that is evaluated at this step has no value. `advantage_of`: by the identity of a kernel."""
    for route, (over, left_alone) in zip(spec.routes, passed_over(values, spec.routes), strict=True):
        parts: list[Expr] = [] if route.when is None or left_alone else [route.when]
        everything: list[Expr] = [] if route.when is None else [route.when]
        for channel in route.channels:
            read = [channel.weight, *([advantage_of[id(channel.kernel)]] if id(channel.kernel) in advantage_of else [])]
            everything += read
            parts += [] if over or is_off(values, channel.weight) else read
        latches = [p for e in everything for p in parts_of(e) if isinstance(p, Scanned) and p.scan is Scan.LATCH]
        if any(lacks_value(values, part) for part in (*parts, *latches)):
            return True
    return False


def _reads_source(route: Route) -> bool:
    return route.when is not None and any(isinstance(p, Signal) and p.name == "source" for p in parts_of(route.when))
