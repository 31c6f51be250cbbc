"""When a comparison has no value: a teacher lacks what it sees, or a formula such as log(x) is undefined.

What is said here errs on the side of "it may have none": a proof stays true, and a finding is not made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from trace_dsl.terms import (
    Apply,
    Constant,
    Expr,
    Function,
    Operation,
    Operator,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """Why a comparison may have no value: it surely has none where the rollout lacks one of `contexts`, and may have
    none `otherwise`.
    """

    contexts: frozenset[str] = frozenset()
    otherwise: bool = False

    @property
    def possible(self) -> bool:
        return bool(self.contexts) or self.otherwise


_NONE = Lack()
_MAYBE = Lack(otherwise=True)


def lack_of(fact: Expr, contexts: Mapping[str, str]) -> Lack:
    """Why a fact that predicates speak of may have no value. `contexts`: what each teacher sees that may be missing."""
    if isinstance(fact, Operation) and fact.op not in _ARITHMETIC:
        return _joined(_of(arg, contexts, inside=False) for arg in fact.args)
    return _NONE


def _of(expr: Expr, contexts: Mapping[str, str], *, inside: bool) -> Lack:
    """`inside`: the value goes into arithmetic, where an overflow could meet another one."""
    match expr:
        case Constant() | Scheduled():
            return _NONE
        case Signal(teacher=teacher):
            sees = None if teacher is None else contexts.get(teacher)
            return _NONE if sees is None else Lack(contexts=frozenset({sees}))
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


def _joined(lacks: Iterable[Lack]) -> Lack:
    found = tuple(lacks)
    return Lack(
        contexts=frozenset(context for lack in found for context in lack.contexts),
        otherwise=any(lack.otherwise for lack in found),
    )
