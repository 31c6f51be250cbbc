"""Values of expressions on a batch, as far as the file of rollouts and the step tell them.

A value is one number for all (a float, or None where only the run can tell), or a column over the rollouts or, of rank
token, over the tokens. What does not depend on the step is evaluated once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from trace_dsl.certainty import predicate_known_at
from trace_dsl.expressions import is_known_before_run, schedules_of, walk, weight_at_step
from trace_dsl.model import UNJUDGED_ROWS
from trace_dsl.preview.batch import Batch, Column
from trace_dsl.preview.elementwise import Known, apply, operate
from trace_dsl.preview.scopes import reduce_elements, reduce_scope, scan
from trace_dsl.schedules import Progress, counts_tokens
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

Value = Known | Column
Kept = dict[int, tuple[Expr, Value]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A step of a run on a batch. latches: their states after the step, where the steps alone tell them.

    kept: columns of expressions that no step changes, by identity.
    """

    batch: Batch
    at: Progress
    latches: Mapping[Scanned, bool] = field(default_factory=dict)
    kept: Kept = field(default_factory=dict)


def depends_on_step(expr: Expr) -> bool:
    """Whether the value on one batch is another at another step."""
    return any(
        isinstance(part, Scheduled)
        or (isinstance(part, Signal) and part.name == "step")
        or (isinstance(part, Scanned) and part.scan is Scan.LATCH)
        or (isinstance(part, Reduce) and part.reduction is Reduction.RANDOM)
        for part in walk(expr)
    )


def column_at(expr: Expr, rank: Rank, moment: Moment) -> Column:
    """`expr` spread over the rollouts (rank ROW) or the tokens (rank TOKEN)."""
    value = evaluate(expr, moment)
    batch = moment.batch
    if not isinstance(value, list):
        return [value] * (batch.tokens if rank is Rank.TOKEN else batch.rows)
    if rank is Rank.TOKEN and expr.rank < Rank.TOKEN:
        return [value[row] for row in batch.row_T]
    return value


def evaluate(expr: Expr, moment: Moment) -> Value:
    """The value of `expr`; NaN where the step gives a part no value, which stops a run."""
    held = moment.kept.get(id(expr))
    if held is not None:
        return held[1]
    value = _evaluate(expr, moment)
    if isinstance(value, list) and not depends_on_step(expr):
        moment.kept[id(expr)] = (expr, value)
    return value


def _evaluate(expr: Expr, moment: Moment) -> Value:
    if is_known_before_run(expr):
        return step_value(expr, moment.at)
    match expr:
        case Signal():
            return _signal(expr, moment.batch)
        case Operation(op=Operator.AND | Operator.OR) if (known := predicate_known_at(expr, moment.at)) is not None:
            return float(known)
        case Operation(op=op, args=args):
            return [operate(op, at) for at in _spread(args, expr.rank, moment)]
        case Apply(function=Function.WHERE, args=(condition, yes, no)) if is_known_before_run(condition):
            known_condition = step_value(condition, moment.at)
            if known_condition is None:
                return [apply(Function.WHERE, at) for at in _spread(expr.args, expr.rank, moment)]
            return column_at(yes if known_condition else no, grain(expr.rank), moment)
        case Apply(function=function, args=args):
            return [apply(function, at) for at in _spread(args, expr.rank, moment)]
        case Reduce():
            return _reduce(expr, moment)
        case Scanned(scan=Scan.LATCH):
            state = moment.latches.get(expr)
            return None if state is None else float(state)
        case Scanned(scan=kind, args=(value,), amount=amount):
            column = column_at(value, Rank.TOKEN, moment)
            return [x for part in by_row(column, moment.batch) for x in scan(kind, part, amount)]
        case Scanned() | Constant() | Scheduled():
            raise AssertionError(f"{expr} is known before the run or malformed")
        case _:
            assert_never(expr)


def step_value(expr: Expr, at: Progress) -> Known:
    """What follows from the step: None for a schedule that counts tokens, as only the run knows how many there were
    (none before the first step), NaN where there is no finite value.
    """
    if at.step > 0 and any(counts_tokens(schedule) for schedule in schedules_of(expr)):
        return None
    try:
        value = weight_at_step(expr, at)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def by_row(column: Sequence[float | None], batch: Batch) -> Iterator[Sequence[float | None]]:
    """A column of tokens, rollout by rollout."""
    for start, length in zip(batch.start_R, batch.length_R, strict=True):
        yield column[start : start + length]


def grain(rank: Rank) -> Rank:
    """What a value is spread over: the tokens, or the rollouts for every other rank."""
    return Rank.TOKEN if rank is Rank.TOKEN else Rank.ROW


def _spread(args: tuple[Expr, ...], rank: Rank, moment: Moment) -> Iterator[tuple[Known, ...]]:
    return zip(*(column_at(arg, grain(rank), moment) for arg in args), strict=True)


def measured(batch: Batch) -> dict[Signal, Column]:
    """Every signal that the file gives, and the gap to each teacher where it follows from them."""
    gaps = [
        Signal(name="gap", rank=Rank.TOKEN, teacher=signal.teacher)
        for signal in batch.signals
        if signal.name == "teacher_logp" and Signal(name="logp", rank=Rank.TOKEN) in batch.signals
    ]
    return {**batch.signals, **{gap: _signal(gap, batch) for gap in gaps}}


def _signal(signal: Signal, batch: Batch) -> Column:
    given = batch.signals.get(signal)
    if given is not None:
        return given
    name = signal.name
    if name.startswith("has_"):
        texts = batch.contexts.get(name.removeprefix("has_"))
        return [None] * batch.rows if texts is None else [float(text is not None) for text in texts]
    match name:
        case "reward":
            return list(batch.reward_R)
        case "correct":
            return [float(correct) for correct in batch.correct_R]
        case "wrong":
            return [float(not correct) for correct in batch.correct_R]
        case "len":
            return [float(length) for length in batch.length_R]
        case "A":
            return list(batch.advantage_R)
        case "group_size":
            return [float(size) for size in batch.group_size_R]
        case "all_correct" | "all_wrong" | "mixed":
            return _of_group(name, batch)
        case "pos":
            return [float(n) for length in batch.length_R for n in range(length)]
        case "source":
            return [SOURCES["model" if written else "tool"] for written in batch.from_model_T]
        case "gap":
            return _combined("teacher_logp", "logp", signal, batch)
        case "ratio":
            return [None if d is None else _exp(d) for d in _combined("logp", "old_logp", signal, batch)]
        case _:
            return [None] * batch.tokens


def _exp(x: float) -> float:
    return apply(Function.EXP, (x,)) or 0.0


def _combined(left: str, right: str, signal: Signal, batch: Batch) -> Column:
    """The difference of two signals, where the file has both."""
    teacher = signal.teacher if left == "teacher_logp" else None
    first = batch.signals.get(Signal(name=left, rank=Rank.TOKEN, teacher=teacher))
    second = batch.signals.get(Signal(name=right, rank=Rank.TOKEN))
    if first is None or second is None:
        return [None] * batch.tokens
    return [None if a is None or b is None else a - b for a, b in zip(first, second, strict=True)]


def _of_group(name: str, batch: Batch) -> Column:
    right: dict[int, int] = {}
    for group, correct in zip(batch.group_R, batch.correct_R, strict=True):
        right[group] = right.get(group, 0) + correct
    found: Column = []
    for group, size in zip(batch.group_R, batch.group_size_R, strict=True):
        count = right[group]
        holds = {"all_correct": count == size, "all_wrong": count == 0, "mixed": 0 < count < size}
        found.append(float(holds[name]))
    return found


def _reduce(expr: Reduce, moment: Moment) -> Value:
    batch = moment.batch
    if expr.value is None:
        return [None] * batch.tokens  # drawn in the run
    by_token = expr.value.rank is Rank.TOKEN
    if expr.over is Scope.MICRO:
        return [None] * (batch.tokens if expr.rank is Rank.TOKEN else batch.rows)  # how a run cuts its batch
    values = column_at(expr.value, Rank.TOKEN if by_token else Rank.ROW, moment)
    scope_R = _scopes(expr.over, batch)
    members: dict[int, list[int]] = {scope: [] for scope in scope_R}
    for n, row in enumerate(batch.row_T if by_token else range(batch.rows)):
        # an empty response gives a mean, maximum or quantile of its tokens no value: it is left out
        if by_token or not (batch.length_R[row] == 0 and _is_nan(values[n])):
            members[scope_R[row]].append(n)
    if expr.reduction in (Reduction.SOFTMAX, Reduction.TOP):
        found: Column = [0.0] * len(values)
        for places in members.values():
            elements = reduce_elements(expr.reduction, [values[n] for n in places], expr.amount)
            for n, value in zip(places, elements, strict=True):
                found[n] = value
        return found
    one = {
        scope: reduce_scope(expr.reduction, [values[n] for n in places], expr.amount)
        for scope, places in members.items()
    }
    return [one[scope] for scope in scope_R]


def _is_nan(value: Known) -> bool:
    return value is not None and math.isnan(value)


def _scopes(over: Scope, batch: Batch) -> Sequence[int]:
    match over:
        case Scope.ROW:
            return range(batch.rows)
        case Scope.GROUP:
            return batch.group_R
        case Scope.BATCH:
            return [int(source == UNJUDGED_ROWS) for source in batch.source_R]
        case Scope.MICRO:
            raise AssertionError("how a batch is cut is not known here")
        case _:
            assert_never(over)
