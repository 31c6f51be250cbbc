"""Weights and advantages over all steps of a run, told apart from what they are on a batch.

A weight such as `kl*sigmoid(gap)` is a sum of terms, each a number by step times a column by rollout or token. So a
page needs one column and one curve, not a column for every step. What does not come apart in this way is evaluated at
every step at which its parts that follow from the step are others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trace_dsl.expressions import is_known_before_run
from trace_dsl.preview.batch import Batch, Column
from trace_dsl.preview.elementwise import Known
from trace_dsl.preview.evaluate import Moment, column_at, depends_on_step, evaluate, grain, step_value
from trace_dsl.terms import Apply, Constant, Expr, Function, Operation, Operator, Rank, Reduce, Scanned

_MOST_TERMS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A number by step times a column. rank: ROW or TOKEN; values None: 1 everywhere."""

    by_step: Sequence[Known]
    rank: Rank
    values: Column | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Variants:
    """Columns of which one stands at each step."""

    rank: Rank
    of_step: Sequence[int]
    columns: tuple[Column, ...]


Quantity = tuple[Term, ...] | Variants


def value_of(quantity: Quantity, batch: Batch, stop: int, token: int) -> Known:
    """The value at a token, at one of the steps that the quantity was made for. As the page computes it."""
    row = batch.row_T[token]
    if isinstance(quantity, Variants):
        column = quantity.columns[quantity.of_step[stop]]
        return column[token if quantity.rank is Rank.TOKEN else row]
    total: Known = 0.0
    for term in quantity:
        factor = term.by_step[stop]
        value = 1.0 if term.values is None else term.values[token if term.rank is Rank.TOKEN else row]
        total = None if total is None or factor is None or value is None else total + factor * value
    return total


def quantity_of(expr: Expr, moments: Sequence[Moment]) -> Quantity:
    """A weight or an advantage at each of the moments, which share one batch."""
    terms = _terms(expr)
    if terms is None:
        return _variants(expr, moments)
    return tuple(
        Term(
            by_step=[_of_step(factor, moment) for moment in moments],
            rank=Rank.ROW if column is None else grain(column.rank),
            values=None if column is None else column_at(column, grain(column.rank), moments[0]),
        )
        for factor, column in terms
    )


def comes_apart(expr: Expr) -> bool:
    """Whether one curve and one column a term tell an expression at all steps."""
    return _terms(expr) is not None


def step_parts(expr: Expr) -> Iterator[Expr]:
    """The largest parts that have one value a step and are others at other steps."""
    if not depends_on_step(expr):
        return
    if _of_step_alone(expr) or (isinstance(expr, Reduce) and expr.value is None):
        yield expr
        return
    match expr:
        case Operation(args=args) | Apply(args=args) | Scanned(args=args):
            for arg in args:
                yield from step_parts(arg)
        case Reduce(value=value):
            if value is not None:
                yield from step_parts(value)
        case _:
            raise AssertionError(f"{expr} depends on the step and has no parts")


def step_key(parts: Sequence[Expr], moment: Moment) -> tuple[Known, ...]:
    """What `parts` are at a step: columns of two steps with one key are equal. NaN is told by a text, as it is unequal
    to itself."""
    return tuple(_comparable(_of_step(part, moment)) for part in parts)


def _comparable(value: Known) -> Known:
    return None if value is None else value if value == value else float("inf")


def _of_step_alone(expr: Expr) -> bool:
    """Whether an expression has one value a step that no batch changes."""
    return is_known_before_run(expr) or (isinstance(expr, Scanned) and expr.rank <= Rank.STEP)


def _of_step(expr: Expr, moment: Moment) -> Known:
    if is_known_before_run(expr):
        return step_value(expr, moment.at)
    value = evaluate(expr, moment)
    if isinstance(value, list):  # random(): drawn in the run
        return None
    return value


_Pair = tuple[Expr, Expr | None]
_ONE, _ZERO = Constant(value=1.0), Constant(value=0.0)


def _terms(expr: Expr) -> list[_Pair] | None:
    """An expression as a sum of (value of the step) x (value on a batch at any step); None where it is no such sum."""
    if is_known_before_run(expr):
        return [(expr, None)]
    if not depends_on_step(expr):
        return [(_ONE, expr)]
    found: list[_Pair] | None = None
    match expr:
        case Operation(op=Operator.NEG, args=(value,)):
            found = _scaled(_terms(value), Operation(op=Operator.NEG, args=(_ONE,), rank=Rank.CONSTANT))
        case Operation(op=Operator.ADD, args=(left, right)):
            found = _joined(_terms(left), _terms(right))
        case Operation(op=Operator.SUB, args=(left, right)):
            minus = Operation(op=Operator.NEG, args=(_ONE,), rank=Rank.CONSTANT)
            found = _joined(_terms(left), _scaled(_terms(right), minus))
        case Operation(op=Operator.MUL, args=(left, right)):
            found = _products(_terms(left), _terms(right))
        case Operation(op=Operator.DIV, args=(above, below)) if is_known_before_run(below):
            found = _scaled(_terms(above), Operation(op=Operator.DIV, args=(_ONE, below), rank=Rank.STEP))
        case Apply(function=Function.WHERE, args=(condition, yes, no)) if not depends_on_step(condition):
            found = _joined(_chosen(condition, _terms(yes), True), _chosen(condition, _terms(no), False))
    return found if found is not None and len(found) <= _MOST_TERMS else None


def _joined(left: list[_Pair] | None, right: list[_Pair] | None) -> list[_Pair] | None:
    return None if left is None or right is None else left + right


def _scaled(terms: list[_Pair] | None, factor: Expr) -> list[_Pair] | None:
    return None if terms is None else [(_times(step, factor), column) for step, column in terms]


def _products(left: list[_Pair] | None, right: list[_Pair] | None) -> list[_Pair] | None:
    if left is None or right is None:
        return None
    return [(_times(a, b), y if x is None else x if y is None else _times(x, y)) for a, x in left for b, y in right]


def _chosen(condition: Expr, terms: list[_Pair] | None, when: bool) -> list[_Pair] | None:
    """The terms where a condition on the batch holds (or does not), zero elsewhere."""
    if terms is None:
        return None
    found: list[_Pair] = []
    for step, column in terms:
        value = _ONE if column is None else column
        branches = (condition, value, _ZERO) if when else (condition, _ZERO, value)
        rank = max(condition.rank, value.rank)
        found.append((step, Apply(function=Function.WHERE, args=branches, rank=rank)))
    return found


def _times(left: Expr, right: Expr) -> Expr:
    if left == _ONE:
        return right
    if right == _ONE:
        return left
    return Operation(op=Operator.MUL, args=(left, right), rank=max(left.rank, right.rank))


def _variants(expr: Expr, moments: Sequence[Moment]) -> Variants:
    parts = tuple(step_parts(expr))
    rank = grain(expr.rank)
    numbers: dict[tuple[Known, ...], int] = {}
    columns: list[Column] = []
    of_step: list[int] = []
    for moment in moments:
        key = step_key(parts, moment)
        if key not in numbers:
            numbers[key] = len(columns)
            columns.append(column_at(expr, rank, moment))
        of_step.append(numbers[key])
    return Variants(rank=rank, of_step=of_step, columns=tuple(columns))
