"""A second opinion on what a spec means: one token at a time, in lists and loops, written from the documents.

Nothing of `trace_dsl` is used beyond the frozen data a parsed spec consists of. Schedules, expressions, caps,
advantages, denominators and first match are all written here again, slowly, in float64 and without torch.

A place is (group, row, pos); what is not known at a rank is None. A value of rank group has one element a prompt, of
rank row one a response, of rank token one a response token; a reduction runs over the elements of its argument's rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from trace_dsl.facts import RunFacts
from trace_dsl.model import Channel, Cispo, Divergence, EstimatorKind, PerKind, PolicyGradient, Route, Sees, Spec
from trace_dsl.terms import (
    Apply,
    Constant,
    Expr,
    Function,
    Length,
    Operation,
    Operator,
    Rank,
    Reduce,
    Reduction,
    RunFraction,
    Scanned,
    Schedule,
    Scheduled,
    Scope,
    Shape,
    Signal,
    Steps,
    Tokens,
)


@dataclass(frozen=True, kw_only=True)
class PlainSpan:
    """Tokens [start, end) of a response that carry a label."""

    row: int
    label: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class PlainBatch:
    """A batch in plain Python: one entry a response, and for tokens one list a response."""

    reward: list[float]
    correct: list[bool]
    group: list[int]
    old_logp: list[list[float]]
    from_model: list[list[bool]]
    spans: list[PlainSpan] = field(default_factory=list)
    contexts: dict[str, list[bool]] = field(default_factory=dict)
    source: list[str] = field(default_factory=list)

    def length(self, row: int) -> int:
        return len(self.old_logp[row])

    def source_of(self, row: int) -> str:
        return self.source[row] if self.source else "policy"

    def has(self, context: str, row: int) -> bool:
        return context in self.contexts and self.contexts[context][row]

    def tokens(self) -> list[Place]:
        """Every response token, response after response."""
        return [Place(self.group[r], r, p) for r in range(len(self.reward)) for p in range(self.length(r))]


class Place(NamedTuple):
    group: int | None = None
    row: int | None = None
    pos: int | None = None


class Undefined(ArithmeticError):
    """The documents do not say what this value is: a mean of nothing, a rollout without others to compare it with."""


@dataclass(kw_only=True)
class Reading:
    """What a spec says about every token, in the order of `PlainBatch.tokens`.

    weight and advantage: for each (route, loss), one number a token; an advantage is None for a loss without one and at
    tokens the loss does not train. `fragile`: some comparison was so close that rounding could decide it.
    """

    route: list[int | None]
    weight: dict[tuple[int, int], list[float]]
    advantage: dict[tuple[int, int], list[float | None]]
    advantage_of_row: list[float]
    fragile: bool


def read(spec: Spec, facts: RunFacts, batch: PlainBatch, step: int, tokens: float = 0.0) -> Reading:
    """Route, weight (denominator included) and advantage of every token at `step`."""
    reader = _Reader(spec, facts, batch, step, tokens)
    places = batch.tokens()
    chosen = [reader.route_of(place) for place in places]
    reading = Reading(
        route=chosen,
        weight={},
        advantage={},
        advantage_of_row=[reader.advantage_of(row) for row in range(len(batch.reward))],
        fragile=False,
    )
    for r, route in enumerate(spec.routes):
        taken = sum(1 for index in chosen if index == r)
        for c, channel in enumerate(route.channels):
            weights: list[float] = []
            advantages: list[float | None] = []
            for place, index in zip(places, chosen, strict=True):
                trained = index == r and reader.teacher_is_there(channel, place)
                if not trained:
                    weights.append(0.0)
                    advantages.append(None)
                    continue
                weight = float(reader.value(channel.weight, place))
                weights.append(_divide(weight, reader.denominator(channel, route, place, taken)))
                if isinstance(channel.kernel, PolicyGradient | Cispo):
                    advantages.append(float(reader.value(channel.kernel.advantage, place)))
                else:
                    advantages.append(None)
            reading.weight[r, c] = weights
            reading.advantage[r, c] = advantages
    reading.fragile = reader.fragile
    return reading


# ----------------------------------------------------------------------------------------------------------- schedules


def schedule_weight(schedule: Schedule, facts: RunFacts, step: float, tokens: float) -> float:
    """Zero before start; linear from 0 to the weight during ramp; held during warmup; then down to the floor."""
    lengths = [schedule.start, schedule.ramp, schedule.warmup]
    if schedule.anneal is not None and schedule.anneal.length is not None:
        lengths.append(schedule.anneal.length)
    now = tokens if any(isinstance(length, Tokens) for length in lengths) else step
    start = _length(schedule.start, facts)
    ramp = _length(schedule.ramp, facts)
    hold_from = start + ramp
    hold_to = hold_from + _length(schedule.warmup, facts)
    if now < start:
        return 0.0
    if now < hold_from:
        return schedule.weight * (now - start) / ramp
    if now < hold_to or schedule.anneal is None:
        return schedule.weight
    if schedule.anneal.length is None:
        duration = facts.total_steps - hold_to
    else:
        duration = _length(schedule.anneal.length, facts)
    if now >= hold_to + duration:
        return schedule.floor
    u = (now - hold_to) / duration
    above = schedule.weight - schedule.floor
    match schedule.anneal.shape:
        case Shape.LINEAR:
            return schedule.floor + above * (1 - u)
        case Shape.COS:
            return schedule.floor + above * (1 + math.cos(math.pi * u)) / 2
        case Shape.EXP:
            return schedule.floor + above * (math.exp(-5 * u) - math.exp(-5)) / (1 - math.exp(-5))
        case Shape.STEP:
            return schedule.weight
    raise AssertionError(schedule.anneal.shape)


def _length(length: Length, facts: RunFacts) -> float:
    match length:
        case Steps(count=count) | Tokens(count=count):
            return float(count)
        case RunFraction(fraction=fraction):
            return float(_decimal(fraction) * facts.total_steps)
    raise AssertionError(length)


def _decimal(value: float) -> Fraction:
    """The number as it was written: 0.29 is 29/100, not the nearest binary fraction below it."""
    return Fraction(repr(value))


# ---------------------------------------------------------------------------------------------------------- everything


class _Reader:
    def __init__(self, spec: Spec, facts: RunFacts, batch: PlainBatch, step: int, tokens: float) -> None:
        self.spec = spec
        self.facts = facts
        self.batch = batch
        self.step = step
        self.tokens = tokens
        self.fragile = False
        self.seen: dict[tuple[int, Place], float | bool] = {}
        self.marked: dict[tuple[int, str], set[int]] = {}

    # ------------------------------------------------------------------------------------------------------- routing

    def route_of(self, place: Place) -> int | None:
        """The first route whose labels and predicate a token meets."""
        for index, route in enumerate(self.spec.routes):
            if self.takes(route, place):
                return index
        return None

    def takes(self, route: Route, place: Place) -> bool:
        if self.batch.source_of(place.row) != route.rows:
            return False
        if route.labels != ("rest",) and not any(place.pos in self.marks(place.row, name) for name in route.labels):
            return False
        by_tool = not self.batch.from_model[place.row][place.pos]
        if by_tool and not (route.when is not None and _reads_source(route.when)):
            return False
        return route.when is None or bool(self.value(route.when, place))

    def marks(self, row: int, label: str) -> set[int]:
        """Positions of a response that carry a label once its cap has cut the spans, first tokens first."""
        key = (row, label)
        if key not in self.marked:
            positions: set[int] = set()
            for span in self.batch.spans:
                if span.row == row and span.label == label:
                    positions.update(range(span.start, span.end))
            cap = next((known.cap for known in self.spec.labels if known.name == label), None)
            if cap is not None:
                allowed = math.floor(_decimal(cap) * self.batch.length(row))
                positions = set(sorted(positions)[:allowed])
            self.marked[key] = positions
        return self.marked[key]

    def teacher_is_there(self, channel: Channel, place: Place) -> bool:
        """A teacher that sees something exists only for the responses that have it."""
        if not isinstance(channel.kernel, Divergence):
            return True
        teacher = next(known for known in self.spec.teachers if known.name == channel.kernel.teacher)
        if teacher.sees in (Sees.NOTHING, Sees.MISMATCHED):  # another prompt can always be shown
            return True
        return self.batch.has(teacher.sees.value, place.row)

    def denominator(self, channel: Channel, route: Route, place: Place, taken: int) -> float:
        rows = [row for row in range(len(self.batch.reward)) if self.batch.source_of(row) == route.rows]
        match channel.per.kind:
            case PerKind.SEQUENCE:
                return float(self.batch.length(place.row) * len(rows))
            case PerKind.TOKEN:
                written = sum(sum(self.batch.from_model[row]) for row in rows)
                if written == 0:
                    raise Undefined("per=token, and the model wrote no token")
                return float(written)
            case PerKind.SELECTED:
                return float(taken)
            case PerKind.CONST:
                return channel.per.constant * len(rows)
        raise AssertionError(channel.per)

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

    # --------------------------------------------------------------------------------------------------- expressions

    def value(self, expr: Expr, place: Place) -> float | bool:
        place = _coarsen(place, expr.rank)
        key = (id(expr), place)
        if key not in self.seen:
            self.seen[key] = self._value(expr, place)
        return self.seen[key]

    def _value(self, expr: Expr, place: Place) -> float | bool:
        match expr:
            case Constant():
                return expr.value
            case Scheduled():
                return schedule_weight(expr.schedule, self.facts, self.step, self.tokens)
            case Signal():
                return self.signal(expr.name, place)
            case Operation():
                return self.operation(expr, [self.value(arg, place) for arg in expr.args])
            case Apply():
                return self.apply(expr.function, [self.value(arg, place) for arg in expr.args])
            case Reduce():
                return self.reduce(expr, place)
            case Scanned():
                raise NotImplementedError(expr.scan)
        raise AssertionError(expr)

    def signal(self, name: str, place: Place) -> float | bool:
        batch, (group, row, pos) = self.batch, place
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
        raise NotImplementedError(name)

    def operation(self, expr: Operation, args: list[float | bool]) -> float | bool:
        if expr.op in _COMPARISONS:
            if _close(*args) and not all(_is_exact(arg) for arg in expr.args):
                self.fragile = True
            return _COMPARISONS[expr.op](*args)
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
                return _divide(args[0], args[1])
        raise AssertionError(expr.op)

    def apply(self, function: Function, args: list[float | bool]) -> float:
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
            case Function.WHERE:
                return args[1] if args[0] else args[2]
        raise AssertionError(function)

    def reduce(self, expr: Reduce, place: Place) -> float | bool:
        elements = self.elements(expr.value.rank, expr.over, place)
        values = [float(self.value(expr.value, element)) for element in elements]
        if expr.reduction is Reduction.SUM:
            return math.fsum(values)
        if not values:
            raise Undefined(f"{expr.reduction.value} of nothing")
        match expr.reduction:
            case Reduction.MEAN:
                return math.fsum(values) / len(values)
            case Reduction.MAX:
                return max(values)
            case Reduction.QUANTILE:
                return _quantile(sorted(values), expr.amount)
            case Reduction.SOFTMAX:
                mine = float(self.value(expr.value, _coarsen(place, expr.value.rank)))
                return math.exp(mine - max(values)) / math.fsum(math.exp(value - max(values)) for value in values)
            case Reduction.TOP:
                return self.is_top(elements, values, expr.amount, _coarsen(place, expr.value.rank))
        raise NotImplementedError(expr.reduction)

    def is_top(self, elements: list[Place], values: list[float], share: float, place: Place) -> bool:
        """The largest elements, as many as the share rounds up to; earlier ones first where values are equal."""
        count = math.ceil(_decimal(share) * len(values))
        order = sorted(range(len(values)), key=lambda i: (-values[i], i))
        if 0 < count < len(values):
            last, next_one = values[order[count - 1]], values[order[count]]
            if last != next_one and _close(last, next_one):
                self.fragile = True
        return place in [elements[i] for i in order[:count]]

    def elements(self, rank: Rank, scope: Scope, place: Place) -> list[Place]:
        """The places at which a value of `rank` is taken, within one row, group or the batch."""
        places: dict[Place, None] = {}
        if rank is Rank.TOKEN:
            candidates = self.batch.tokens()
        else:
            candidates = [Place(group, row) for row, group in enumerate(self.batch.group)]
        for candidate in candidates:
            inside = (
                scope is Scope.BATCH
                or (scope is Scope.GROUP and candidate.group == place.group)
                or (scope is Scope.ROW and candidate.row == place.row)
            )
            if inside:
                places[_coarsen(candidate, rank)] = None
        return list(places)


def _coarsen(place: Place, rank: Rank) -> Place:
    """A place as a value of `rank` sees it."""
    match rank:
        case Rank.CONSTANT | Rank.STEP:
            return Place()
        case Rank.GROUP:
            return Place(place.group)
        case Rank.ROW:
            return Place(place.group, place.row)
        case Rank.TOKEN:
            return place
    raise AssertionError(rank)


def _reads_source(expr: Expr) -> bool:
    match expr:
        case Signal():
            return expr.name == "source"
        case Operation() | Apply() | Scanned():
            return any(_reads_source(arg) for arg in expr.args)
        case Reduce():
            return expr.value is not None and _reads_source(expr.value)
        case _:
            return False


def _divide(left: float, right: float) -> float:
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
    return isinstance(expr, Constant) or (isinstance(expr, Signal) and expr.name != "A")


_COMPARISONS: dict[Operator, Callable[[float, float], bool]] = {
    Operator.LT: lambda left, right: left < right,
    Operator.LE: lambda left, right: left <= right,
    Operator.GT: lambda left, right: left > right,
    Operator.GE: lambda left, right: left >= right,
    Operator.EQ: lambda left, right: left == right,
    Operator.NE: lambda left, right: left != right,
}
