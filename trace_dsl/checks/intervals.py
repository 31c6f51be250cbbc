"""Which comparisons with numbers can hold together: `len > 100` and `len < 50` cannot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    chosen = everything = (1 << (1 << count)) - 1
    for value, bounds in of_value.items():
        if len(bounds) == 1 and _is_free(value, bounds[0], total_steps):
            continue
        met = 0
        for holds in _met_together(value, bounds, total_steps):
            ways = everything
            for bound, does in zip(bounds, holds, strict=True):
                ways &= _where_it_holds(bound.at, count) if does else ~_where_it_holds(bound.at, count)
            met |= ways
        chosen &= met
    return chosen


def _where_it_holds(at: int, count: int) -> int:
    """The ways in which the `at`-th fact holds."""
    size = 1 << (count - 1 - at)
    return repeated((1 << size) - 1, 2 * size, 1 << count)


def repeated(bits: int, period: int, length: int) -> int:
    """`length` bits that repeat the first `period` of them."""
    return bits * (((1 << length) - 1) // ((1 << period) - 1))


def _bound(at: int, fact: Expr) -> tuple[Expr, _Bound] | None:
    """What a comparison with a number is about, and its bound."""
    match fact:
        case Operation(op=Operator.GT | Operator.EQ as op, args=(value, Constant(value=number))):
            return value, _Bound(at=at, op=op, number=number)
        case Operation(op=Operator.GT, args=(Constant(value=number), value)):
            return value, _Bound(at=at, op=Operator.LT, number=number)
        case _:
            return None


def _is_free(value: Expr, bound: _Bound, total_steps: int | None) -> bool:
    """Whether a comparison that is the only one of its value may hold and may not; false where that takes a look."""
    name = value.name if isinstance(value, Signal) else ""
    least = _LEAST_OF_WHOLE.get(name, _LEAST.get(name))
    if least is None:
        return True
    above = bound.number >= least if bound.op is Operator.GT else bound.number > least
    return bound.op is not Operator.EQ and above and (name != "step" or total_steps is None)


def _met_together(value: Expr, bounds: Sequence[_Bound], total_steps: int | None) -> set[tuple[bool, ...]]:
    """Which bounds a number meets, for every number that the value may be; none are met where it has no value."""
    met = {tuple(_meets(number, bound) for bound in bounds) for number in _numbers(value, bounds, total_steps)}
    return met if _always_has_value(value) else met | {(False,) * len(bounds)}


def _meets(number: float, bound: _Bound) -> bool:
    match bound.op:
        case Operator.GT:
            return number > bound.number
        case Operator.LT:
            return number < bound.number
        case _:
            return number == bound.number


def _numbers(value: Expr, bounds: Sequence[_Bound], total_steps: int | None) -> Iterable[float]:
    """Enough of the numbers that a value may be: the ends of all intervals between bounds, and one inside of each."""
    name = value.name if isinstance(value, Signal) else ""
    ends = sorted({bound.number for bound in bounds})
    last = total_steps - 1.0 if name == "step" and total_steps is not None else math.inf
    if name in _LEAST_OF_WHOLE:
        least = _LEAST_OF_WHOLE[name]
        around = (math.floor(end) + beside for end in ends for beside in (-1.0, 0.0, 1.0))
        return [number for number in (least, last, *around) if least <= number <= last]
    least = _LEAST.get(name, -math.inf)
    inside = [end for end in ends if end > least]
    between = ((low + high) / 2 for low, high in pairwise((least, *inside)))
    return [least, *inside, *between, math.inf]


def _always_has_value(value: Expr) -> bool:
    return isinstance(value, Signal) and value.teacher is None
