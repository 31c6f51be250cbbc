"""Reductions over scopes and scans along responses, with None for what only the run can tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import assert_never

from trace_dsl.preview.batch import Column
from trace_dsl.terms import Reduction, Scan


def reduce_scope(reduction: Reduction, values: Sequence[float | None], amount: float | None) -> float | None:
    """One value of a scope's elements: unknown where one is, NaN where one is, and without any (a sum is 0)."""
    if None in values:
        return None
    known = [value for value in values if value is not None]
    if reduction is Reduction.SUM:
        return sum(known)
    if not known or any(map(math.isnan, known)):
        return math.nan
    match reduction:
        case Reduction.MEAN:
            return sum(known) / len(known)
        case Reduction.MAX:
            return max(known)
        case Reduction.QUANTILE:
            assert amount is not None
            return _quantile(sorted(known), amount)
        case _:
            raise AssertionError(f"{reduction.value}() does not give one value a scope")


def reduce_elements(reduction: Reduction, values: Sequence[float | None], amount: float | None) -> Column:
    """The value of each element of a scope: softmax, or whether it is among the largest share."""
    if None in values:
        return [None] * len(values)
    known = [value for value in values if value is not None]
    match reduction:
        case Reduction.SOFTMAX:
            return _softmax(known)
        case Reduction.TOP:
            assert amount is not None
            numbers = [value for value in known if not math.isnan(value)]
            wanted = math.ceil(round(amount * len(numbers), 9))  # 0.1 x 30 is 3, not 4
            order = sorted((n for n, value in enumerate(known) if not math.isnan(value)), key=lambda n: -known[n])
            chosen = frozenset(order[:wanted])
            return [float(n in chosen) for n in range(len(known))]
        case _:
            raise AssertionError(f"{reduction.value}() gives one value a scope")


def _softmax(values: list[float]) -> Column:
    if not values or any(map(math.isnan, values)) or max(values) == math.inf:
        return [math.nan] * len(values)
    largest = max(values)
    shifted = [math.exp(value - largest) if largest > -math.inf else math.nan for value in values]
    whole = sum(shifted)
    return [value / whole for value in shifted]


def _quantile(ordered: list[float], amount: float) -> float:
    """Interpolated between the two elements next to it."""
    at = amount * (len(ordered) - 1)
    low, high = ordered[math.floor(at)], ordered[math.ceil(at)]
    share = at - math.floor(at)
    return low + share * (high - low) if share < 0.5 else high - (high - low) * (1 - share)


def scan(kind: Scan, values: Sequence[float | None], amount: float | None) -> Column:
    """A scan along one response. What stands behind something unknown is unknown, unless it is decided before."""
    match kind:
        case Scan.CUMCOUNT:
            return list(_running(values))
        case Scan.UNTIL:
            return [None if count is None else float(count == 0) for count in _until(values)]
        case Scan.WINDOW_MIN | Scan.WINDOW_MEAN:
            assert amount is not None
            windows = (values[max(0, n + 1 - int(amount)) : n + 1] for n in range(len(values)))
            return [_window(kind, window) for window in windows]
        case Scan.REWARD_TO_GO:
            assert amount is not None
            return _to_go(values, amount)
        case Scan.LATCH:
            raise AssertionError("latch carries state across steps; it is no scan along a response")
        case _:
            assert_never(kind)


def _running(values: Iterable[float | None]) -> Iterable[float | None]:
    total: float | None = 0.0
    for value in values:
        total = None if total is None or value is None else total + value
        yield total


def _until(values: Iterable[float | None]) -> Iterable[float | None]:
    """How many hold so far; more than none is certain whatever the unknown ones are."""
    total: float | None = 0.0
    for value in values:
        if total is None or value is None:
            total = 1.0 if (total is not None and total > 0) or (value is not None and value != 0) else None
        else:
            total += value
        yield total


def _window(kind: Scan, window: Sequence[float | None]) -> float | None:
    if None in window:
        return None
    known = [value for value in window if value is not None]
    if any(map(math.isnan, known)):
        return math.nan
    return min(known) if kind is Scan.WINDOW_MIN else sum(known) / len(known)


def _to_go(values: Sequence[float | None], gamma: float) -> Column:
    found: Column = [None] * len(values)
    following: float | None = 0.0
    for n in range(len(values) - 1, -1, -1):
        value = values[n]
        following = None if value is None or following is None else value + gamma * following
        found[n] = following
    return found
