"""When a comparison has no value: a teacher lacks what it sees, or a formula such as log(x) is undefined.

Then neither `gap > 1` nor `gap <= 1` holds. What is said here errs on the side of "it may have none": a proof stays
true, and a finding is not made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import is_
from typing import assert_never

from trace_dsl.expressions import text_of
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

_ARITHMETIC = frozenset({Operator.NEG, Operator.ADD, Operator.SUB, Operator.MUL, Operator.DIV})
_UNDEFINED_SOMEWHERE = frozenset({Function.LOG, Function.SQRT})
_PREDICATES = frozenset({Reduction.TOP, Reduction.RANDOM})
_COUNTS = frozenset({Scan.CUMCOUNT, Scan.UNTIL, Scan.LATCH})
_LOGICAL = frozenset({Operator.AND, Operator.OR, Operator.NOT})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lack:
    """Why an expression may have no value: it surely has none where the rollout lacks one of `contexts`, and may have
    none `otherwise`.
    """

    contexts: frozenset[str] = frozenset()
    otherwise: bool = False

    @property
    def possible(self) -> bool:
        return bool(self.contexts) or self.otherwise


_NONE = _Lack()
_MAYBE = _Lack(otherwise=True)


# The signal that stands for "this comparison has a value", before the comparison.
HAS_VALUE = "a value of "


def explicit(predicate: Expr, contexts: Mapping[str, str]) -> Expr:
    """The same predicate with what its comparisons take for granted said aloud, so that `x <= 1` is the opposite of
    `x > 1` in what is left: `has(diagnosis) and gap <= 1`.

    contexts: what each teacher sees that a rollout may lack, by teacher (`reading.contexts_of`).
    """
    if not isinstance(predicate, Operation):
        return predicate
    if predicate.op in _LOGICAL:
        args = tuple(explicit(arg, contexts) for arg in predicate.args)
        same = all(map(is_, args, predicate.args))
        return predicate if same else replace(predicate, args=args)
    lack = _joined(_of(arg, contexts, inside=False) for arg in predicate.args)
    if lack is _NONE:
        return predicate
    guards = [Signal(name=f"has_{context}", rank=Rank.ROW) for context in sorted(lack.contexts)]
    guards += [Signal(name=HAS_VALUE + text_of(_either_way(predicate)), rank=Rank.TOKEN)] if lack.otherwise else []
    if predicate.op is Operator.NE:  # true where there is no value
        return _not(_all([*guards, replace(predicate, op=Operator.EQ)])) if guards else predicate
    return _all([*guards, predicate])


def _either_way(comparison: Operation) -> Operation:
    """The comparison that this one or its opposite is: `x > y` for `x <= y` and `y < x`."""
    match comparison.op:
        case Operator.LE:
            return replace(comparison, op=Operator.GT)
        case Operator.LT | Operator.GE:
            return replace(comparison, op=Operator.GT, args=comparison.args[::-1])
        case _:
            return comparison


def _all(predicates: Sequence[Expr]) -> Expr:
    joined = predicates[0]
    for predicate in predicates[1:]:
        rank = max(joined.rank, predicate.rank)
        joined = Operation(op=Operator.AND, args=(joined, predicate), rank=rank)
    return joined


def _not(predicate: Expr) -> Expr:
    return Operation(op=Operator.NOT, args=(predicate,), rank=predicate.rank)


def _of(expr: Expr, contexts: Mapping[str, str], *, inside: bool) -> _Lack:
    """`inside`: the value goes into arithmetic, where an overflow could meet another one."""
    match expr:
        case Constant() | Scheduled():
            return _NONE
        case Signal(teacher=teacher):
            sees = None if teacher is None else contexts.get(teacher)
            return _NONE if sees is None else _Lack(contexts=frozenset({sees}))
        case Operation(op=op, args=args):
            if op not in _ARITHMETIC:
                return _NONE  # a predicate is 0 or 1
            found = _joined(_of(arg, contexts, inside=True) for arg in args)
            divides = op is Operator.DIV and not (isinstance(args[1], Constant) and args[1].value != 0)
            return _joined((found, _MAYBE)) if divides else found
        case Apply(function=Function.WHERE, args=(_, *branches)):
            found = _joined(_of(branch, contexts, inside=inside) for branch in branches)
            return _MAYBE if found.possible else _NONE  # only the branch that is taken counts
        case Apply(function=function, args=args):
            found = _joined(_of(arg, contexts, inside=inside) for arg in args)
            undefined = function in _UNDEFINED_SOMEWHERE or (inside and function is Function.EXP)
            return _joined((found, _MAYBE)) if undefined else found
        case Reduce(reduction=reduction, value=value, over=over):
            if value is None or reduction in _PREDICATES:
                return _NONE
            found = _of(value, contexts, inside=True)
            return _MAYBE if over is not Scope.ROW and found.possible else found
        case Scanned(scan=scan, args=args):
            return _NONE if scan in _COUNTS else _joined(_of(arg, contexts, inside=True) for arg in args)
        case _:
            assert_never(expr)


def _joined(lacks: Iterable[_Lack]) -> _Lack:
    found = tuple(lack for lack in lacks if lack is not _NONE)
    if len(found) < 2:
        return found[0] if found else _NONE
    return _Lack(
        contexts=frozenset(context for lack in found for context in lack.contexts),
        otherwise=any(lack.otherwise for lack in found),
    )
