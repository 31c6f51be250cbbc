"""The value of an expression at one place, written from the documents: lists and loops, in float64, without torch.

A value of rank group has one element a prompt, of rank row one a response, of rank token one a response token; a
reduction runs over the elements of its argument's rank, one a response where that rank is group.

None is "no value": the mean, maximum or quantile over the tokens of an empty response. What is computed from it has
none either, and a reduction leaves it out. NaN is what a teacher says of a response whose context it lacks; it behaves
as such numbers do: a comparison with it does not hold (`!=` does).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from tests.lowering.plain import Place, PlainBatch, coarsen
from tests.lowering.reading_schedules import decimal, schedule_weight
from trace_dsl.facts import RunFacts
from trace_dsl.model import EstimatorKind, Sees, Spec
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

Latches = Mapping[Scanned, bool]
Value = float | bool | None


class Values:
    """Values on one batch at one step. `latches` is what each latch was after the step before: off if not given.

    `fragile`: some comparison was so close that rounding could decide it. contested: what was met on the way that the
    documents leave open, or that `lower` is known to do otherwise.
    """

    def __init__(
        self, spec: Spec, facts: RunFacts, batch: PlainBatch, step: int, tokens: float, latches: Latches
    ) -> None:
        self.spec = spec
        self.facts = facts
        self.batch = batch
        self.step = step
        self.tokens = tokens
        self.latches = latches
        self.fragile = False
        self.contested: set[str] = set()
        self.seen: dict[tuple[int, Place], Value] = {}

    def at(self, expr: Expr, place: Place) -> Value:
        place = coarsen(place, expr.rank)
        key = (id(expr), place)
        if key not in self.seen:
            self.seen[key] = self._value(expr, place)
        return self.seen[key]

    def _value(self, expr: Expr, place: Place) -> Value:
        match expr:
            case Constant():
                return expr.value
            case Scheduled():
                return schedule_weight(expr.schedule, self.facts, self.step, self.tokens)
            case Signal():
                return self.signal(expr, place)
            case Operation():
                return self.operation(expr, [self.at(arg, place) for arg in expr.args])
            case Apply():
                return self.apply(expr.function, [self.at(arg, place) for arg in expr.args])
            case Reduce():
                return self.reduce(expr, place)
            case Scanned(scan=Scan.LATCH):
                return self.latch(expr)
            case Scanned():
                return self.scan(expr, place)
        raise AssertionError(expr)

    # ------------------------------------------------------------------------------------------------------- signals

    def signal(self, signal: Signal, place: Place) -> float | bool:
        batch, name, (group, row, pos) = self.batch, signal.name, place
        if name == "step":
            return float(self.step)
        if name in ("all_correct", "all_wrong", "mixed", "group_size"):
            outcomes = [batch.correct[other] for other in range(len(batch.reward)) if batch.group[other] == group]
            return {
                "all_correct": all(outcomes),
                "all_wrong": not any(outcomes),
                "mixed": any(outcomes) and not all(outcomes),
                "group_size": float(len(outcomes)),
            }[name]
        if name.startswith("has_"):
            return batch.has(name.removeprefix("has_"), row)
        match name:
            case "reward":
                return batch.reward[row]
            case "correct":
                return batch.correct[row]
            case "wrong":
                return not batch.correct[row]
            case "len":
                return float(batch.length(row))
            case "A":
                return self.advantage_of(row)
            case "pos":
                return float(pos)
            case "old_logp":
                return batch.old_logp[row][pos]
            case "source":
                return 0.0 if batch.from_model[row][pos] else 1.0
            case "logp":
                return batch.logp[row][pos]
            case "entropy":
                return batch.entropy[row][pos]
            case "ratio":
                return math.exp(batch.logp[row][pos] - batch.old_logp[row][pos])
            case "teacher_logp" | "gap" if not teacher_can_see(self.spec, batch, signal.teacher, row):
                return math.nan
            case "teacher_entropy" if not teacher_can_see(self.spec, batch, signal.teacher, row):
                return math.nan
            case "teacher_logp":
                return batch.teacher_logp[signal.teacher][row][pos]
            case "teacher_entropy":
                return batch.teacher_entropy[signal.teacher][row][pos]
            case "gap":
                return batch.teacher_logp[signal.teacher][row][pos] - batch.logp[row][pos]
        raise AssertionError(f"no value is written down for the signal {name}")

    def advantage_of(self, row: int) -> float:
        """A, from the rewards of the rollouts of one prompt."""
        mine = self.batch.reward[row]
        members = [other for other in range(len(self.batch.reward)) if self.batch.group[other] == self.batch.group[row]]
        rewards = [self.batch.reward[other] for other in members]
        estimator = self.spec.advantage
        if estimator.kind is EstimatorKind.NONE:
            return mine
        if all(reward == rewards[0] for reward in rewards):
            return 0.0
        if estimator.kind is EstimatorKind.LEAVE_ONE_OUT:
            others = [self.batch.reward[other] for other in members if other != row]
            return mine - math.fsum(others) / len(others)
        mean = math.fsum(rewards) / len(rewards)
        if not estimator.scale_by_std:
            return mine - mean
        variance = math.fsum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)
        return (mine - mean) / math.sqrt(variance)

    # --------------------------------------------------------------------------------------- operators and functions

    def operation(self, expr: Operation, args: list[Value]) -> Value:
        if any(arg is None for arg in args):
            if expr.op not in _COMPARISONS:
                return None
            return expr.op is Operator.NE
        if expr.op in _COMPARISONS:
            if _close(*args) and not all(_is_exact(arg) for arg in expr.args):
                self.fragile = True
            return _COMPARISONS[expr.op](*args)
        if (
            expr.op in (Operator.ADD, Operator.SUB)
            and expr.rank > Rank.STEP
            and not all(_is_exact(arg) for arg in expr.args)
        ):
            self.total([args[0], args[1] if expr.op is Operator.ADD else -args[1]])
        match expr.op:
            case Operator.AND:
                return bool(args[0]) and bool(args[1])
            case Operator.OR:
                return bool(args[0]) or bool(args[1])
            case Operator.NOT:
                return not args[0]
            case Operator.NEG:
                return -args[0]
            case Operator.ADD:
                return args[0] + args[1]
            case Operator.SUB:
                return args[0] - args[1]
            case Operator.MUL:
                return args[0] * args[1]
            case Operator.DIV:
                return divide(args[0], args[1])
        raise AssertionError(expr.op)

    def apply(self, function: Function, args: list[Value]) -> Value:
        if function is Function.WHERE:
            return args[1] if args[0] else args[2]
        if any(arg is None for arg in args):
            return None
        if any(math.isnan(arg) for arg in args):
            return math.nan
        x = float(args[0])
        match function:
            case Function.EXP:
                return math.exp(x) if x < 709 else math.inf
            case Function.LOG:
                return math.log(x) if x > 0 else (-math.inf if x == 0 else math.nan)
            case Function.ABS:
                return abs(x)
            case Function.SIGN:
                if x != 0 and abs(x) < 1e-9:
                    self.fragile = True
                return 0.0 if x == 0 else math.copysign(1.0, x)
            case Function.SQRT:
                return math.sqrt(x) if x >= 0 else math.nan
            case Function.SIGMOID:
                return 1 / (1 + math.exp(-x)) if x > -709 else 0.0
            case Function.SOFTPLUS:
                return x if x > 700 else math.log1p(math.exp(x))
            case Function.CLIP:
                return min(max(x, args[1]), args[2])
            case Function.MIN:
                return min(args)
            case Function.MAX:
                return max(args)
        raise AssertionError(function)

    # ---------------------------------------------------------------------------------------------------- reductions

    def reduce(self, expr: Reduce, place: Place) -> Value:
        rank = expr.value.rank
        found = [(there, self.at(expr.value, there)) for there in self.elements(rank, expr.over, place)]
        found = [(there, float(value)) for there, value in found if value is not None]
        elements, values = [there for there, _ in found], [value for _, value in found]
        if expr.reduction is Reduction.TOP:
            there_is = [i for i, value in enumerate(values) if not math.isnan(value)]
            elements, values = [elements[i] for i in there_is], [values[i] for i in there_is]
        if any(math.isnan(value) for value in values):
            return math.nan
        match expr.reduction:
            case Reduction.SUM:
                return self.total(values)
            case Reduction.TOP:
                return self.is_top(elements, values, expr.amount, coarsen(place, rank))
            case _ if not values:
                return None
            case Reduction.MEAN:
                return self.total(values) / len(values)
            case Reduction.MAX:
                return max(values)
            case Reduction.QUANTILE:
                return _quantile(sorted(values), expr.amount)
            case Reduction.SOFTMAX:
                mine = self.at(expr.value, coarsen(place, rank))
                if mine is None:
                    return None
                return math.exp(mine - max(values)) / math.fsum(math.exp(value - max(values)) for value in values)
        raise AssertionError(f"no value is written down for {expr.reduction}")

    def total(self, values: list[float]) -> float:
        """The sum. Where the terms cancel, rounding decides whether anything is left."""
        if not all(math.isfinite(value) for value in values):
            return sum(values)
        total = math.fsum(values)
        self.fragile |= abs(total) <= 1e-12 * max((abs(value) for value in values), default=0.0) != 0
        return total

    def is_top(self, elements: list[Place], values: list[float], share: float, place: Place) -> bool:
        """The largest elements, as many as the share rounds up to; earlier ones first where values are equal."""
        count = math.ceil(decimal(share) * len(values))
        order = sorted(range(len(values)), key=lambda i: (-values[i], i))
        if 0 < count < len(values):
            last, next_one = values[order[count - 1]], values[order[count]]
            if last != next_one and _close(last, next_one):
                self.fragile = True
        return place in [elements[i] for i in order[:count]]

    def elements(self, rank: Rank, scope: Scope, place: Place) -> list[Place]:
        """The places at which a value of `rank` is taken, within one row, group or the batch."""
        candidates = self.batch.tokens() if rank is Rank.TOKEN else self.batch.responses()
        match scope:
            case Scope.BATCH:
                return candidates
            case Scope.GROUP:
                return [there for there in candidates if there.group == place.group]
            case Scope.ROW:
                return [there for there in candidates if there.row == place.row]
        raise AssertionError(f"no elements are written down for {scope}")

    # --------------------------------------------------------------------------------------------- scans and latches

    def scan(self, expr: Scanned, place: Place) -> float | bool:
        """Along the tokens of one response, in order; tool output is part of it."""
        group, row, pos = place
        length = self.batch.length(row)

        def along(first: int, end: int) -> list[float]:
            return [float(self.at(expr.args[0], Place(group, row, p))) for p in range(first, end)]

        match expr.scan:
            case Scan.CUMCOUNT:
                return float(sum(1 for holds in along(0, pos + 1) if holds))
            case Scan.UNTIL:
                return not any(along(0, pos + 1))
            case Scan.REWARD_TO_GO:
                return self.total([expr.amount**k * value for k, value in enumerate(along(pos, length))])
        window = along(max(0, pos + 1 - int(expr.amount)), pos + 1)
        match expr.scan:
            case Scan.WINDOW_MIN:
                return math.nan if any(math.isnan(value) for value in window) else min(window)
            case Scan.WINDOW_MEAN:
                return self.total(window) / len(window)
        raise AssertionError(f"no value is written down for {expr.scan}")

    def latch(self, expr: Scanned) -> bool:
        """Off where `off` holds, else on where `on` holds, else as after the step before; off before the first."""
        on, off = (bool(self.at(arg, Place())) for arg in expr.args)
        if off:
            return False
        return on or self.latches.get(expr, False)


def teacher_can_see(spec: Spec, batch: PlainBatch, name: str, row: int) -> bool:
    """A teacher that sees something exists only for the responses that have it."""
    sees = next(known.sees for known in spec.teachers if known.name == name)
    return sees in (Sees.NOTHING, Sees.MISMATCHED) or batch.has(sees.value, row)  # another prompt can always be shown


def parts_of(expr: Expr) -> Iterator[Expr]:
    """An expression and everything in it."""
    yield expr
    match expr:
        case Operation() | Apply() | Scanned():
            for arg in expr.args:
                yield from parts_of(arg)
        case Reduce():
            if expr.value is not None:
                yield from parts_of(expr.value)


def divide(left: float, right: float) -> float:
    if right != 0:
        return left / right
    return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left)


def _quantile(ordered: list[float], share: float) -> float:
    """Linear between the two neighbours, as most libraries have it."""
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _close(left: float, right: float) -> bool:
    return abs(left - right) <= 1e-9 * (1 + abs(left) + abs(right))


def _is_exact(expr: Expr) -> bool:
    """No rounding on the way to this value."""
    match expr:
        case Constant():
            return True
        case Signal(name=name):
            return name not in ("A", "ratio")
        case Scanned(scan=Scan.CUMCOUNT):
            return True
        case Scanned(scan=Scan.WINDOW_MIN):
            return _is_exact(expr.args[0])
        case _:
            return False


_COMPARISONS: dict[Operator, Callable[[float, float], bool]] = {
    Operator.LT: lambda left, right: left < right,
    Operator.LE: lambda left, right: left <= right,
    Operator.GT: lambda left, right: left > right,
    Operator.GE: lambda left, right: left >= right,
    Operator.EQ: lambda left, right: left == right,
    Operator.NE: lambda left, right: left != right,
}
