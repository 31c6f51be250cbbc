"""Reductions over the elements of a scope, all scopes at once.

Legend: N elements (tokens or rollouts), S scopes (rollouts, prompts, or the one batch).
"""

from __future__ import annotations

import torch
from torch import Tensor

from trace_dsl.terms import Reduction


def reduce_to_scope(
    reduction: Reduction, value_N: Tensor, scope_N: Tensor, scopes: int, amount: float | None
) -> Tensor:
    """float64 [S]: one value a scope; without elements a sum is 0, the others are NaN; one NaN makes a scope's NaN.

    scope_N: int64, the scope of each element. A quantile is interpolated between the two elements next to it.
    """
    count_S = torch.bincount(scope_N, minlength=scopes)
    match reduction:
        case Reduction.SUM:
            return _sums(value_N, scope_N, scopes)
        case Reduction.MEAN:
            return _sums(value_N, scope_N, scopes) / count_S  # 0 / 0 is NaN
        case Reduction.MAX:
            result_S = _maxima(value_N, scope_N, scopes)
        case Reduction.QUANTILE:
            assert amount is not None
            result_S = _quantiles(value_N, scope_N, count_S, amount)
        case _:
            raise ValueError(f"{reduction.value}() does not give one value a scope")
    return torch.where(count_S > 0, result_S, torch.nan)


def reduce_per_element(reduction: Reduction, value_N: Tensor, scope_N: Tensor, amount: float | None) -> Tensor:
    """float64 [N]: softmax, or 1.0 for an element among the largest (top) share of its scope.

    The share counts elements that have a value (are not NaN), rounded up: the top 20% of two is one. Of equal elements
    the earlier one is taken.
    """
    scopes = int(scope_N.max()) + 1 if len(scope_N) else 0
    match reduction:
        case Reduction.SOFTMAX:
            shifted_N = (value_N - _maxima(value_N, scope_N, scopes)[scope_N]).exp()
            return shifted_N / _sums(shifted_N, scope_N, scopes)[scope_N]
        case Reduction.TOP:
            assert amount is not None
            has_value_N = ~value_N.isnan()
            wanted_S = amount * torch.bincount(scope_N[has_value_N], minlength=scopes).double()
            wanted_S = wanted_S.round(decimals=9).ceil()  # 0.1 x 30 is 3, not 4
            order_N, rank_N = _ranked(value_N.nan_to_num(nan=-torch.inf), scope_N, has_value_N, descending=True)
            result_N = torch.zeros_like(value_N)
            result_N[order_N] = (rank_N < wanted_S[scope_N[order_N]]).double()
            return result_N
        case _:
            raise ValueError(f"{reduction.value}() gives one value a scope")


def random_keys(seed: int, step: int, count: int) -> Tensor:
    """float64 [count]: uniform numbers that depend on the seed, the step and an element's place in the batch."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    return torch.rand(count, dtype=torch.float64, generator=generator)


def _sums(value_N: Tensor, scope_N: Tensor, scopes: int) -> Tensor:
    return torch.zeros(scopes, dtype=torch.float64).index_add(0, scope_N, value_N)


def _maxima(value_N: Tensor, scope_N: Tensor, scopes: int) -> Tensor:
    return torch.full((scopes,), -torch.inf, dtype=torch.float64).scatter_reduce(0, scope_N, value_N, "amax")


def _ranked(value_N: Tensor, scope_N: Tensor, first_N: Tensor, *, descending: bool) -> tuple[Tensor, Tensor]:
    """(order, rank): elements scope by scope, in order of their values, those of `first_N` before the others.

    rank: the place of each ordered element in its scope, from 0; equal elements keep their order.
    """
    order_N = value_N.argsort(descending=descending, stable=True)
    order_N = order_N[(~first_N[order_N]).to(torch.uint8).argsort(stable=True)]
    order_N = order_N[scope_N[order_N].argsort(stable=True)]
    count_S = torch.bincount(scope_N)
    start_S = count_S.cumsum(0) - count_S
    return order_N, torch.arange(len(order_N)) - start_S[scope_N[order_N]]


def _quantiles(value_N: Tensor, scope_N: Tensor, count_S: Tensor, amount: float) -> Tensor:
    if len(value_N) == 0:
        return torch.full_like(count_S, torch.nan, dtype=torch.float64)
    order_N, _ = _ranked(value_N, scope_N, torch.ones_like(scope_N, dtype=torch.bool), descending=False)
    start_S = count_S.cumsum(0) - count_S
    at_S = amount * (count_S - 1).clamp(min=0).double()
    low_S = at_S.floor().long()
    high_S = at_S.ceil().long()
    last = len(order_N) - 1  # a scope without elements reads what is not its own; the caller leaves it out
    sorted_N = value_N[order_N]
    low_value_S = sorted_N[(start_S + low_S).clamp(max=last)]
    high_value_S = sorted_N[(start_S + high_S).clamp(max=last)]
    result_S = torch.lerp(low_value_S, high_value_S, at_S - low_S)
    without_S = torch.zeros(len(count_S), dtype=torch.bool).index_put((scope_N[value_N.isnan()],), torch.tensor(True))
    return torch.where(without_S, torch.nan, result_S)
