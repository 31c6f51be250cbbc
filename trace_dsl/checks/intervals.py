"""Which comparisons with numbers can hold together: `len > 100` and `len < 50` cannot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from trace_dsl.terms import Constant, Expr, Operation, Operator, Signal

# Signals that are whole numbers, and the least they are.
_LEAST_OF_WHOLE = {"step": 0.0, "len": 0.0, "pos": 0.0, "turn": 0.0, "group_size": 1.0}
_LEAST = {"entropy": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """A fact of the form `value > number`, `value < number` or `value == number`, the `at`-th of all."""

    at: int
    op: Operator
    number: float


def possible(facts: tuple[Expr, ...], total_steps: int | None) -> int:
    """The ways in which facts can hold or not, as a set of bits; in bit i, fact k holds where bit len - 1 - k of i is
    0.

    Facts about different values are taken for independent of each other. total_steps: what `step` stays below, None
    where it is not known.
    """
    count = len(facts)
    of_value: dict[Expr, list[_Bound]] = {}
    for at, fact in enumerate(facts):
        found = _bound(at, fact)
        if found is not None:
            of_value.setdefault(found[0], []).append(found[1])
    everything = (1 << (1 << count)) - 1
    chosen = everything
    for value, bounds in of_value.items():
        if len(bounds) == 1 and not _is_bounded(value):
            continue
        for holds in product((True, False), repeat=len(bounds)):
            if not _is_possible(value, bounds, holds, total_steps):
                excluded = everything
                for bound, does in zip(bounds, holds, strict=True):
                    excluded &= _where_it_holds(bound.at, count) if does else ~_where_it_holds(bound.at, count)
                chosen &= ~excluded
    return chosen


def _where_it_holds(at: int, count: int) -> int:
    """The ways in which the `at`-th fact holds."""
    size = 1 << (count - 1 - at)
    return ((1 << size) - 1) * (((1 << (1 << count)) - 1) // ((1 << 2 * size) - 1))


def _bound(at: int, fact: Expr) -> tuple[Expr, _Bound] | None:
    """What a comparison with a number is about, and its bound."""
    match fact:
        case Operation(op=Operator.GT | Operator.EQ as op, args=(value, Constant(value=number))):
            return value, _Bound(at=at, op=op, number=number)
        case Operation(op=Operator.GT, args=(Constant(value=number), value)):
            return value, _Bound(at=at, op=Operator.LT, number=number)
        case _:
            return None


def _is_bounded(value: Expr) -> bool:
    return isinstance(value, Signal) and (value.name in _LEAST_OF_WHOLE or value.name in _LEAST)


def _is_possible(value: Expr, bounds: Sequence[_Bound], holds: Sequence[bool], total_steps: int | None) -> bool:
    """Whether some number is on the right side of all bounds."""
    if not any(holds) and not _always_has_value(value):
        return True  # without a value, no comparison holds
    name = value.name if isinstance(value, Signal) else ""
    # The larger lower end is the tighter one, an open one (True) tighter than a closed one; upper ends the other way.
    lows = [(_LEAST_OF_WHOLE.get(name, _LEAST.get(name, -math.inf)), False)]
    highs = [(total_steps - 1.0 if name == "step" and total_steps is not None else math.inf, True)]
    unequal: set[float] = set()
    for bound, does in zip(bounds, holds, strict=True):
        match bound.op, does:
            case Operator.GT, True:
                lows.append((bound.number, True))
            case Operator.GT, False:
                highs.append((bound.number, True))
            case Operator.LT, True:
                highs.append((bound.number, False))
            case Operator.LT, False:
                lows.append((bound.number, False))
            case _, True:
                lows.append((bound.number, False))
                highs.append((bound.number, True))
            case _:
                unequal.add(bound.number)
    (low, low_is_open), (high, high_is_closed) = max(lows), min(highs)
    if name not in _LEAST_OF_WHOLE:
        return low < high or (low == high and not low_is_open and high_is_closed and low not in unequal)
    first = math.floor(low) + 1 if low_is_open else math.ceil(low)
    if math.isinf(high):
        return True
    last = math.floor(high) if high_is_closed else math.ceil(high) - 1
    return last - first + 1 > sum(1 for number in unequal if first <= number <= last and number.is_integer())


def _always_has_value(value: Expr) -> bool:
    return isinstance(value, Signal) and value.teacher is None
