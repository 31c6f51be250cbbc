"""Values of expressions on a batch.

A value is a float64 tensor over the rollouts [R] (group and row rank) or the tokens [T] (token rank), or a Python
float (constant and step rank); predicates are 0.0 and 1.0. Everything here is detached: no gradient flows into a
weight.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from trace_dsl.certainty import predicate_known_at
from trace_dsl.errors import LoweringError
from trace_dsl.expressions import is_known_before_run, text_of, weight_at_step
from trace_dsl.lowering.batch import RolloutBatch
from trace_dsl.lowering.elementwise import apply, operate
from trace_dsl.lowering.reductions import random_keys, reduce_per_element, reduce_to_scope
from trace_dsl.lowering.scans import scan_responses
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
    Scan,
    Scanned,
    Scheduled,
    Scope,
    Signal,
)
from trace_dsl.vocabulary import SOURCES

Value = float | Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Environment:
    """What expressions are evaluated on.

    advantage_R: float64 [R]; group_R: dense group numbers, int64 [R]; latches: the states after the step before, by
    the text of the latch; seed: of random().
    """

    batch: RolloutBatch
    advantage_R: Tensor
    group_R: Tensor
    at: Progress
    latches: Mapping[str, bool]
    seed: int


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
    """The value of `expr`: a float if the step alone gives it, else float64 [T] for rank TOKEN and [R] below.

    Raises LoweringError where a part that follows from the step has no finite value; one that the step makes needless
    (`certainty.no_value_at`) is not evaluated.
    """
    if is_known_before_run(expr):
        return _from_step(expr, env)
    match expr:
        case Signal():
            return _signal(expr, env)
        case Operation(op=Operator.AND | Operator.OR) if (known := predicate_known_at(expr, env.at)) is not None:
            return float(known)
        case Operation(op=Operator.DIV, args=(_, divisor)) if is_known_before_run(divisor) and not evaluate(
            divisor, env
        ):
            raise LoweringError(f"{text_of(expr)} has no value at step {env.at.step}: it is a division by zero")
        case Operation(op=op, args=args):
            return operate(op, _spread(args, expr.rank, env))
        case Apply(function=Function.WHERE, args=(condition, yes, no)) if is_known_before_run(condition):
            return evaluate_at(yes if evaluate(condition, env) else no, _grain(expr.rank), env)
        case Apply(function=function, args=args):
            return apply(function, _spread(args, expr.rank, env))
        case Reduce():
            return _reduce(expr, env)
        case Scanned(scan=Scan.LATCH):
            return float(latch_state(expr, env))
        case Scanned(scan=scan, args=(value,), amount=amount):
            return scan_responses(scan, evaluate_at(value, Rank.TOKEN, env), env.batch.length_R, amount)
        case Scanned() | Constant() | Scheduled():
            raise AssertionError(f"{expr} is known before the run or malformed")
        case _:
            assert_never(expr)


def _from_step(expr: Expr, env: Environment) -> float:
    try:
        value = weight_at_step(expr, env.at)
    except ValueError as error:
        raise LoweringError(f"{text_of(expr)} has no value at step {env.at.step}: {error}") from error
    if not math.isfinite(value):
        raise LoweringError(f"{text_of(expr)} has no value at step {env.at.step}: it is {value}")
    return value


def _spread(args: tuple[Expr, ...], rank: Rank, env: Environment) -> list[Tensor]:
    return [evaluate_at(arg, _grain(rank), env) for arg in args]


def _grain(rank: Rank) -> Rank:
    """What a value is spread over: the tokens, or the rollouts for every other rank."""
    return Rank.TOKEN if rank is Rank.TOKEN else Rank.ROW


def latch_state(latch: Scanned, env: Environment) -> bool:
    """latch(on, off) at this step: off where `off` holds, else on where `on` holds, else as after the step before."""
    on, off = (_one_value(arg, env) for arg in latch.args)
    if off:
        return False
    return on or env.latches.get(latch_key(latch), False)


def latch_key(latch: Scanned) -> str:
    """What a latch's state is kept under in a checkpoint; two latches share it only when they are the same."""
    return hashlib.sha256(repr(latch).encode()).hexdigest()[:16]


def _one_value(expr: Expr, env: Environment) -> bool:
    """A step-rank predicate; False on a batch without rollouts that have a verdict."""
    value = evaluate(expr, env)
    return bool(value) if isinstance(value, float) else bool(value[env.batch.judged_R][:1].any())


def _signal(signal: Signal, env: Environment) -> Tensor:
    batch, name = env.batch, signal.name
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
        case "gap" if batch.measurement(signal) is None:
            return _measured("teacher_logp", signal.teacher, env) - _measured("logp", None, env)
        case "ratio" if batch.measurement(signal) is None:
            return (_measured("logp", None, env) - batch.old_logp_T.double()).exp()
        case _:
            return _measured(name, signal.teacher, env)


def _measured(name: str, teacher: str | None, env: Environment) -> Tensor:
    signal = Signal(name=name, rank=Rank.TOKEN, teacher=teacher)
    value_T = env.batch.measurement(signal)
    if value_T is None:
        raise LoweringError(f"the batch carries no signal {text_of(signal)!r}")
    return value_T.double()


def _group_share(flag_R: Tensor, env: Environment) -> Tensor:
    """float64 [R]: the share of a row's group for which `flag_R` holds."""
    count_G = torch.bincount(env.group_R).double()
    held_G = torch.zeros_like(count_G).index_add(0, env.group_R, flag_R.double())
    return (held_G / count_G)[env.group_R]


def _reduce(expr: Reduce, env: Environment) -> Tensor:
    """A reduction over rows, groups or the batch: [R], or one value per element for softmax, top and random.

    A mean, maximum or quantile over the tokens of an empty response has no value: reductions over rows leave it out.
    """
    scope_R = _scopes(expr.over, env)
    if expr.value is None:
        keys_T = random_keys(env.seed, env.at.step, env.batch.tokens)
        return reduce_per_element(Reduction.TOP, keys_T, scope_R[env.batch.row_of_T], expr.amount)
    by_token = expr.value.rank is Rank.TOKEN
    value_N = evaluate_at(expr.value, Rank.TOKEN if by_token else Rank.ROW, env)
    scope_N = scope_R[env.batch.row_of_T] if by_token else scope_R
    # an empty response gives a mean, maximum or quantile of its tokens no value: NaN, which is left out here
    counts_N = (
        torch.ones_like(value_N, dtype=torch.bool) if by_token else ~(value_N.isnan() & (env.batch.length_R == 0))
    )
    if expr.reduction in (Reduction.SOFTMAX, Reduction.TOP):
        result_N = torch.zeros_like(value_N)
        result_N[counts_N] = reduce_per_element(expr.reduction, value_N[counts_N], scope_N[counts_N], expr.amount)
        return result_N
    scopes = int(scope_R.max()) + 1 if len(scope_R) else 0
    return reduce_to_scope(expr.reduction, value_N[counts_N], scope_N[counts_N], scopes, expr.amount)[scope_R]


def _scopes(over: Scope, env: Environment) -> Tensor:
    """int64 [R]: the number of the scope each rollout belongs to."""
    match over:
        case Scope.ROW:
            return torch.arange(env.batch.rows)
        case Scope.GROUP:
            return env.group_R
        case Scope.BATCH:
            return (~env.batch.judged_R).long()  # responses without a verdict are among themselves
        case Scope.MICRO:
            raise ValueError("over=micro depends on how the batch is cut: the global batch does not know it")
        case _:
            assert_never(over)
