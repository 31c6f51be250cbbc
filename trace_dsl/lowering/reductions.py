"""Reductions over the elements of a scope.

Legend: N elements (tokens or rollouts), S scopes (rollouts, prompts, or the one batch), n elements of one scope.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trace_dsl.terms import Reduction


def reduce_to_scope(
    reduction: Reduction, value_N: Tensor, scope_N: Tensor, scopes: int, amount: float | None
) -> Tensor:
    """float64 [S]: one value a scope; without elements a sum is 0, the others are NaN.

    scope_N: int64, the scope of each element.
    """
    result_S = torch.full((scopes,), 0.0 if reduction is Reduction.SUM else torch.nan, dtype=torch.float64)
    for scope in sorted(set(scope_N.tolist())):
        result_S[scope] = _to_scalar(reduction, value_N[scope_N == scope], amount)
    return result_S


def reduce_per_element(reduction: Reduction, value_N: Tensor, scope_N: Tensor, amount: float | None) -> Tensor:
    """float64 [N]: softmax, or whether an element is among the largest (top) share of its scope."""
    result_N = torch.zeros_like(value_N)
    for scope in sorted(set(scope_N.tolist())):
        members = scope_N == scope
        result_N[members] = _per_element(reduction, value_N[members], amount)
    return result_N


def random_keys(seed: int, step: int, count: int) -> Tensor:
    """float64 [count]: uniform numbers that depend on the seed, the step and an element's place in the batch."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    return torch.rand(count, dtype=torch.float64, generator=generator)


def _to_scalar(reduction: Reduction, value_n: Tensor, amount: float | None) -> Tensor:
    match reduction:
        case Reduction.MEAN:
            return value_n.mean()
        case Reduction.MAX:
            return value_n.max()
        case Reduction.SUM:
            return value_n.sum()
        case Reduction.QUANTILE:
            assert amount is not None
            return torch.quantile(value_n, amount)
        case _:
            raise ValueError(f"{reduction.value}() cannot be evaluated on a batch")


def _per_element(reduction: Reduction, value_n: Tensor, amount: float | None) -> Tensor:
    if reduction is Reduction.SOFTMAX:
        return value_n.softmax(0)
    assert amount is not None
    has_value_n = ~value_n.isnan()  # what has no value is never among the largest, and counts for no share
    value_n = value_n.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    count = math.ceil(round(amount * int(has_value_n.sum()), 9))  # rounded up: the top 20% of two is one
    chosen = torch.sort(value_n, descending=True, stable=True).indices[:count]
    return torch.zeros_like(value_n).index_fill(0, chosen, 1.0)  # ties go to the earlier element
