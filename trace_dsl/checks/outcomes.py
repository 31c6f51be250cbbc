"""Which predicates can hold together: an enumeration of what can be true of a token, its rollout and its group.

`correct` and `wrong` exclude each other, all_correct, mixed and all_wrong go with them, a token is written by the model
or by a tool. Everything else (`has(sibling)`, `entropy > 0.8`) is free to hold or not, equal formulas being one fact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from trace_dsl.checks.intervals import possible, repeated
from trace_dsl.expressions import children_of, text_of, walk, weight_at_step
from trace_dsl.model import Route
from trace_dsl.schedules import Progress
from trace_dsl.terms import Constant, Expr, Operation, Operator, Rank, Signal
from trace_dsl.vocabulary import SOURCES, UNKNOWN_PREDICATE

MAX_FREE = 8
# (the rollout is correct, the group)
_ROWS = ((True, "all_correct"), (True, "mixed"), (False, "mixed"), (False, "all_wrong"))
_LOGICAL = (Operator.AND, Operator.OR, Operator.NOT)
_OF_OUTCOME = frozenset({"correct", "wrong", "all_correct", "mixed", "all_wrong"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One way things can be."""

    correct: bool
    group: str
    source: float
    facts: tuple[tuple[Expr, bool], ...]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Everything that can be the case as far as some predicates can tell; `free` are the facts that may hold or not.

    A set of outcomes is an integer whose bit i says whether outcome i is in it, so that predicates are put together by
    the operations on bits. Facts that exclude each other, as `len > 100` and `len < 50` do, hold together in none.

    total_steps: of the run, None where it is not known; all: the whole set.
    """

    free: tuple[Expr, ...]
    total_steps: int | None = None
    all: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ways = possible(self.free, self.total_steps)
        object.__setattr__(self, "all", repeated(ways, 1 << len(self.free), len(self)))

    def __len__(self) -> int:
        return len(_ROWS) * len(SOURCES) << len(self.free)

    @property
    def by_model(self) -> int:
        """The outcomes in which the model wrote the token."""
        return self.all & self._written_by(SOURCES["model"])

    def told_apart_by(self, predicate: Expr | None) -> Outcomes | None:
        """These outcomes told apart by one more predicate; None when that is too much to list."""
        free = tuple(dict.fromkeys((*self.free, *_facts(predicate))))
        if len(free) == len(self.free):
            return self
        return None if len(free) > MAX_FREE else Outcomes(free, self.total_steps)

    def where(self, predicate: Expr | None) -> int:
        """The outcomes in which a predicate is true; None is always true."""
        return self.all if predicate is None else self.all & self._where(predicate)

    def _where(self, predicate: Expr) -> int:
        match predicate:
            case Operation(op=Operator.AND, args=(left, right)):
                return self.where(left) & self.where(right)
            case Operation(op=Operator.OR, args=(left, right)):
                return self.where(left) | self.where(right)
            case Operation(op=Operator.NOT, args=(arg,)):
                return self.all & ~self.where(arg)
            case Signal(name="correct" | "wrong" as name):
                return self._rows(lambda correct, _: correct is (name == "correct"))
            case Signal(name=name) if name in _OF_OUTCOME:
                return self._rows(lambda _, group: group == name)
            case _:
                pass
        written_by = _source_of(predicate)
        if written_by is not None:
            return self._written_by(written_by)
        fact, positive = _normal(predicate)
        if _is_constant(fact):
            return self.all if bool(weight_at_step(fact, Progress(step=0, total_steps=1))) is positive else 0
        holds = self._fact(self.free.index(fact))
        return holds if positive else self.all & ~holds

    def taken_by(self, route: Route) -> int:
        """The outcomes in which a token that carries the route's label goes this route, or an earlier one.

        Tokens a tool wrote are taken only by routes that speak of `source`.
        """
        taken = self.where(route.when)
        return taken if _speaks_of_source(route) else taken & self.by_model

    def first(self, chosen: int) -> Outcome | None:
        """The first outcome of a set."""
        if not chosen:
            return None
        index = (chosen & -chosen).bit_length() - 1
        index, facts = divmod(index, 2 ** len(self.free))
        row, source = divmod(index, len(SOURCES))
        correct, group = _ROWS[row]
        last = len(self.free) - 1
        return Outcome(
            correct=correct,
            group=group,
            source=tuple(SOURCES.values())[source],
            facts=tuple((fact, not facts >> (last - at) & 1) for at, fact in enumerate(self.free)),
        )

    def some(self, chosen: int, what: Callable[[bool, str], bool]) -> bool:
        """Whether a set holds an outcome whose (rollout is correct, group) are such."""
        return bool(chosen & self._rows(what))

    def _rows(self, what: Callable[[bool, str], bool]) -> int:
        size = len(SOURCES) * 2 ** len(self.free)
        return sum(((1 << size) - 1) << (size * at) for at, row in enumerate(_ROWS) if what(*row))

    def _written_by(self, writer: float) -> int:
        size = 2 ** len(self.free)
        here = ((1 << size) - 1) << (size * tuple(SOURCES.values()).index(writer))
        return repeated(here, len(SOURCES) * size, len(self))

    def _fact(self, at: int) -> int:
        size = 2 ** (len(self.free) - 1 - at)
        return repeated((1 << size) - 1, 2 * size, len(self))


def _source_of(predicate: Expr) -> float | None:
    """Who wrote the token, when the predicate says just that."""
    match predicate:
        case Operation(op=Operator.EQ | Operator.NE, args=(Signal(name="source"), Constant(value=writer))):
            return writer if predicate.op is Operator.EQ else 1.0 - writer
        case _:
            return None


def _normal(predicate: Expr) -> tuple[Expr, bool]:
    """A comparison as > or ==, and whether it is that (True) or its opposite: x <= 1 is the opposite of x > 1."""
    if not isinstance(predicate, Operation) or len(predicate.args) != 2:
        return predicate, True
    left, right = predicate.args

    def comparison(op: Operator, first: Expr, second: Expr) -> Operation:
        return Operation(op=op, args=(first, second), rank=predicate.rank)

    match predicate.op:
        case Operator.LT:
            return comparison(Operator.GT, right, left), True
        case Operator.LE:
            return comparison(Operator.GT, left, right), False
        case Operator.GE:
            return comparison(Operator.GT, right, left), False
        case Operator.NE:
            return comparison(Operator.EQ, *_in_order(left, right)), False
        case Operator.EQ:
            return comparison(Operator.EQ, *_in_order(left, right)), True
        case _:
            return predicate, True


def _in_order(left: Expr, right: Expr) -> tuple[Expr, Expr]:
    """Both sides of an equation, in one order: a number last."""
    if isinstance(left, Constant) or isinstance(right, Constant):
        return (right, left) if isinstance(left, Constant) else (left, right)
    return (left, right) if text_of(left) <= text_of(right) else (right, left)


def _is_constant(fact: Expr) -> bool:
    return not isinstance(fact, Signal) and fact.rank is Rank.CONSTANT


def _facts(predicate: Expr | None) -> Iterator[Expr]:
    """What a predicate asks that may hold or not."""
    if predicate is None:
        return
    if isinstance(predicate, Operation) and predicate.op in _LOGICAL:
        for arg in children_of(predicate):
            yield from _facts(arg)
        return
    if _source_of(predicate) is None and not (isinstance(predicate, Signal) and predicate.name in _OF_OUTCOME):
        fact = _normal(predicate)[0]
        if not _is_constant(fact):
            yield fact


def outcomes(predicates: Iterable[Expr | None], total_steps: int | None = None) -> Outcomes | None:
    """Everything that can be the case as far as the predicates can tell; None when that is too much to list."""
    free = tuple(dict.fromkeys(fact for predicate in predicates for fact in _facts(predicate)))
    return None if len(free) > MAX_FREE else Outcomes(free, total_steps)


def _speaks_of_source(route: Route) -> bool:
    return route.when is not None and any(
        isinstance(part, Signal) and (part.name == "source" or part.name.startswith(UNKNOWN_PREDICATE))
        for part in walk(route.when)
    )
