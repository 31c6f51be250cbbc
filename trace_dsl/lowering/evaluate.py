"""Values of expressions on a batch.

A value is a float64 tensor over the rollouts [R] (group and row rank) or the tokens [T] (token rank), or a Python
float (constant and step rank); predicates are 0.0 and 1.0. Everything here is detached: no gradient flows into a
weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from trace_dsl.expressions import is_known_before_run, walk, weight_at_step
from trace_dsl.lowering.batch import RolloutBatch
from trace_dsl.schedules import Progress
from trace_dsl.terms import (
    Apply,
    Constant,
    Expr,
    Function,
    Operation,
    Operator,
    Rank,
    Reduce,
    Reduction,
    Scanned,
    Scheduled,
    Scope,
    Signal,
)
from trace_dsl.vocabulary import SOURCES

Value = float | Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Environment:
    """What expressions are evaluated on. advantage_R: float64 [R]; group_R: dense group numbers, int64 [R]."""

    batch: RolloutBatch
    advantage_R: Tensor
    group_R: Tensor
    at: Progress


def evaluate_at(expr: Expr, rank: Rank, env: Environment) -> Tensor:
    """`expr` spread over the rollouts (rank ROW: float64 [R]) or the tokens (rank TOKEN: float64 [T])."""
    value = evaluate(expr, env)
    if isinstance(value, float):
        size = env.batch.tokens if rank is Rank.TOKEN else env.batch.rows
        return torch.full((size,), value, dtype=torch.float64)
    if rank is Rank.TOKEN and expr.rank < Rank.TOKEN:
        return value[env.batch.row_of_T]
    return value


def evaluate(expr: Expr, env: Environment) -> Value:
    """The value of `expr`: a float if the step alone gives it, else float64 [T] for rank TOKEN and [R] below."""
    if is_known_before_run(expr):
        return weight_at_step(expr, env.at)
    match expr:
        case Signal(name=name):
            return _signal(name, env)
        case Operation(op=op, args=args):
            return _operate(op, _spread(args, expr.rank, env))
        case Apply(function=function, args=args):
            return _apply(function, _spread(args, expr.rank, env))
        case Reduce():
            return _reduce(expr, env)
        case Scanned() | Constant() | Scheduled():
            raise ValueError(f"{type(expr).__name__} of rank {expr.rank.name} cannot be evaluated on a batch")
        case _:
            assert_never(expr)


def _spread(args: tuple[Expr, ...], rank: Rank, env: Environment) -> list[Tensor]:
    return [evaluate_at(arg, Rank.TOKEN if rank is Rank.TOKEN else Rank.ROW, env) for arg in args]


def _signal(name: str, env: Environment) -> Tensor:
    batch = env.batch
    if name.startswith("has_"):
        return batch.has(name.removeprefix("has_")).double()
    match name:
        case "reward":
            return batch.reward_R.double()
        case "correct":
            return batch.correct_R.double()
        case "wrong":
            return (~batch.correct_R).double()
        case "len":
            return batch.length_R.double()
        case "A":
            return env.advantage_R.double()
        case "all_correct":
            return (_group_share(batch.correct_R, env) == 1).double()
        case "all_wrong":
            return (_group_share(batch.correct_R, env) == 0).double()
        case "mixed":
            share_R = _group_share(batch.correct_R, env)
            return ((share_R > 0) & (share_R < 1)).double()
        case "group_size":
            return torch.bincount(env.group_R)[env.group_R].double()
        case "pos":
            return (torch.arange(batch.tokens) - batch.start_R[batch.row_of_T]).double()
        case "old_logp":
            return batch.old_logp_T.double()
        case "source":
            return torch.where(batch.from_model_T, SOURCES["model"], SOURCES["tool"]).double()
        case _:
            raise ValueError(f"the batch carries no signal {name!r}")


def _group_share(flag_R: Tensor, env: Environment) -> Tensor:
    """float64 [R]: the share of a row's group for which `flag_R` holds."""
    count_G = torch.bincount(env.group_R).double()
    held_G = torch.zeros_like(count_G).index_add(0, env.group_R, flag_R.double())
    return (held_G / count_G)[env.group_R]


def _operate(op: Operator, args: list[Tensor]) -> Tensor:
    match op:
        case Operator.NEG:
            return -args[0]
        case Operator.NOT:
            return 1.0 - args[0]
        case Operator.ADD:
            return args[0] + args[1]
        case Operator.SUB:
            return args[0] - args[1]
        case Operator.MUL:
            return args[0] * args[1]
        case Operator.DIV:
            return args[0] / args[1]
        case Operator.LT:
            return (args[0] < args[1]).double()
        case Operator.LE:
            return (args[0] <= args[1]).double()
        case Operator.GT:
            return (args[0] > args[1]).double()
        case Operator.GE:
            return (args[0] >= args[1]).double()
        case Operator.EQ:
            return (args[0] == args[1]).double()
        case Operator.NE:
            return (args[0] != args[1]).double()
        case Operator.AND:
            return torch.stack(args).amin(0)
        case Operator.OR:
            return torch.stack(args).amax(0)
        case _:
            assert_never(op)


def _apply(function: Function, args: list[Tensor]) -> Tensor:
    match function:
        case Function.EXP:
            return args[0].exp()
        case Function.LOG:
            return args[0].log()
        case Function.ABS:
            return args[0].abs()
        case Function.SIGN:
            return args[0].sign()
        case Function.SQRT:
            return args[0].sqrt()
        case Function.SIGMOID:
            return args[0].sigmoid()
        case Function.SOFTPLUS:
            return torch.nn.functional.softplus(args[0])
        case Function.CLIP:
            return torch.minimum(torch.maximum(args[0], args[1]), args[2])
        case Function.MIN:
            return torch.stack(args).amin(0)
        case Function.MAX:
            return torch.stack(args).amax(0)
        case Function.WHERE:
            return torch.where(args[0] != 0, args[1], args[2])
        case _:
            assert_never(function)


def _reduce(expr: Reduce, env: Environment) -> Tensor:
    """A reduction over rows, groups or the batch: [R], or for softmax and top one value per element as the value has.

    A mean, maximum or quantile over the tokens of an empty response has no value: reductions over rows leave it out.
    """
    if expr.value is None:
        raise ValueError(f"{expr.reduction.value}() cannot be evaluated on a batch")
    by_token = expr.value.rank is Rank.TOKEN
    value_N = evaluate_at(expr.value, Rank.TOKEN if by_token else Rank.ROW, env)
    segment_R = _segments(expr.over, env)
    counts_N = torch.ones_like(value_N, dtype=torch.bool)
    if not by_token and any(isinstance(part, Reduce) and _needs_a_token(part) for part in walk(expr.value)):
        counts_N = env.batch.length_R > 0
    segment_N = segment_R[env.batch.row_of_T] if by_token else segment_R
    if expr.reduction in (Reduction.SOFTMAX, Reduction.TOP):
        result_N = torch.zeros_like(value_N)
        for segment in sorted(set(segment_N[counts_N].tolist())):
            members = (segment_N == segment) & counts_N
            result_N[members] = _per_element(expr.reduction, value_N[members], expr.amount)
        return result_N
    result_S = torch.zeros(int(segment_R.max()) + 1 if len(segment_R) else 0, dtype=torch.float64)
    for segment in sorted(set(segment_N[counts_N].tolist())):
        members = (segment_N == segment) & counts_N
        result_S[segment] = _to_scalar(expr.reduction, value_N[members], expr.amount)
    return result_S[segment_R]


def _needs_a_token(expr: Reduce) -> bool:
    """Whether a reduction has no value on an empty response, as a mean has none and a sum has."""
    over_tokens = expr.value is not None and expr.value.rank is Rank.TOKEN
    return over_tokens and expr.reduction is not Reduction.SUM


def _segments(over: Scope, env: Environment) -> Tensor:
    """int64 [R]: the number of the scope each rollout belongs to."""
    match over:
        case Scope.ROW:
            return torch.arange(env.batch.rows)
        case Scope.GROUP:
            return env.group_R
        case Scope.BATCH:
            return torch.zeros(env.batch.rows, dtype=torch.int64)
        case Scope.MICRO:
            raise ValueError("over=micro depends on how the batch is cut: the global batch does not know it")
        case _:
            assert_never(over)


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
    count = math.ceil(round(amount * len(value_n), 9))  # at least the share: the top 20% of two elements is one
    chosen = torch.sort(value_n, descending=True, stable=True).indices[:count]
    return torch.zeros_like(value_n).index_fill(0, chosen, 1.0)  # ties go to the earlier element
