"""A second opinion on what a spec means: one token at a time, in lists and loops, written from the documents.

Nothing of `trace_dsl` is used beyond the frozen data a parsed spec consists of. Schedules (`reading_schedules`),
expressions (`reading_expressions`), and here caps, denominators and first match are all written again, slowly, in
float64 and without torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

from tests.lowering.plain import Place, PlainBatch
from tests.lowering.reading_expressions import Latches, Values, divide, parts_of, teacher_can_see
from tests.lowering.reading_schedules import decimal
from tests.lowering.reading_steps import is_off, is_undefined
from trace_dsl.facts import RunFacts
from trace_dsl.model import Channel, Cispo, Divergence, PerKind, PolicyGradient, Route, Spec
from trace_dsl.terms import (
    Expr,
    Rank,
    Scan,
    Scanned,
    Signal,
)

LARGEST_FLOAT32 = 3.4028234e38
WINDOWS = (Scan.WINDOW_MIN, Scan.WINDOW_MEAN)


@dataclass(kw_only=True)
class Reading:
    """What a spec says about every token, in the order of `PlainBatch.tokens`.

    weight and advantage: for each (route, loss), one number a token; an advantage is None for a loss without one and at
    tokens the loss does not train. latches: the state of every latch of the routes after the step. `refused`: a weight
    or an advantage is not a number, what the step gives has no value, or a
    denominator counts nothing. `fragile`: some comparison was so close that
    rounding could decide it. contested: what the documents leave open, or `lower` is known to do otherwise.
    """

    route: list[int | None]
    weight: dict[tuple[int, int], list[float]]
    advantage: dict[tuple[int, int], list[float | None]]
    advantage_of_row: list[float]
    latches: dict[Scanned, bool]
    refused: bool
    fragile: bool
    contested: frozenset[str]


def read(
    spec: Spec,
    facts: RunFacts,
    batch: PlainBatch,
    step: int,
    tokens: float = 0.0,
    latches: Latches = MappingProxyType({}),
) -> Reading:
    """Route, weight (denominator included) and advantage of every token at `step`."""
    values = Values(spec, facts, batch, step, tokens, latches)
    reader = _Reader(spec, batch, values)
    places = batch.tokens()
    chosen = [reader.route_of(place) for place in places]
    weight: dict[tuple[int, int], list[float]] = {}
    advantage: dict[tuple[int, int], list[float | None]] = {}
    for r, route in enumerate(spec.routes):
        taken = sum(1 for index in chosen if index == r)
        for c, channel in enumerate(route.channels):
            weight[r, c] = []
            advantage[r, c] = []
            for place, index in zip(places, chosen, strict=True):
                one, two = reader.trained(channel, route, place, taken) if index == r else (0.0, None)
                weight[r, c].append(one)
                advantage[r, c].append(two)
    return Reading(
        route=chosen,
        weight=weight,
        advantage=advantage,
        advantage_of_row=[values.advantage_of(row) for row in range(len(batch.reward))],
        latches={latch: bool(values.at(latch, Place())) for latch in latches_of(spec)},
        refused=reader.refused or is_undefined(values, spec, advantages_of(spec)),
        fragile=values.fragile,
        contested=frozenset(values.contested),
    )


def advantages_of(spec: Spec) -> dict[int, Expr]:
    """The advantage of every kernel that has one, by its identity."""
    kernels = (channel.kernel for route in spec.routes for channel in route.channels)
    return {id(kernel): kernel.advantage for kernel in kernels if isinstance(kernel, PolicyGradient | Cispo)}


def latches_of(spec: Spec) -> list[Scanned]:
    """The latches that routes read. Two of the same text are one."""
    return list(dict.fromkeys(part for part in _parts(spec) if isinstance(part, Scanned) and part.scan is Scan.LATCH))


def signals_to_measure(spec: Spec) -> frozenset[Signal]:
    """What a forward pass must give before the routes can be read: log-probs and entropies, by teacher."""
    found: set[Signal] = set()
    for signal in (part for part in _parts(spec) if isinstance(part, Signal)):
        if signal.name in ("logp", "gap", "ratio"):
            found.add(Signal(name="logp", rank=Rank.TOKEN))
        if signal.name in ("gap", "teacher_logp"):
            found.add(Signal(name="teacher_logp", rank=Rank.TOKEN, teacher=signal.teacher))
        if signal.name in ("entropy", "teacher_entropy"):
            found.add(signal)
    return frozenset(found)


def _parts(spec: Spec) -> Iterator[Expr]:
    for route in spec.routes:
        for expr in _expressions(route):
            yield from parts_of(expr)


def _expressions(route: Route) -> Iterator[Expr]:
    if route.when is not None:
        yield route.when
    for channel in route.channels:
        yield channel.weight
        if isinstance(channel.kernel, PolicyGradient | Cispo):
            yield channel.kernel.advantage


class _Reader:
    def __init__(self, spec: Spec, batch: PlainBatch, values: Values) -> None:
        self.spec = spec
        self.batch = batch
        self.values = values
        self.refused = False
        self.marked: dict[tuple[int, str], set[int]] = {}

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
        return route.when is None or bool(self.values.at(route.when, place))

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
                allowed = math.floor(decimal(cap) * self.batch.length(row))
                positions = set(sorted(positions)[:allowed])
            self.marked[key] = positions
        return self.marked[key]

    def trained(self, channel: Channel, route: Route, place: Place, taken: int) -> tuple[float, float | None]:
        """Weight and advantage of a loss at a token its route has."""
        divisor = self.denominator(channel, route, place, taken)
        self.refused |= divisor == 0
        kernel = channel.kernel
        if isinstance(kernel, Divergence) and not teacher_can_see(self.spec, self.batch, kernel.teacher, place.row):
            return 0.0, None
        if is_off(self.values, channel.weight):
            return 0.0, None
        weight = float(self.values.at(channel.weight, place))
        advantage = None
        if isinstance(kernel, PolicyGradient | Cispo):
            advantage = float(self.values.at(kernel.advantage, place))
        self.refused |= any(x is not None and not abs(x) <= LARGEST_FLOAT32 for x in (weight, advantage))
        return divide(weight, divisor), advantage

    def denominator(self, channel: Channel, route: Route, place: Place, taken: int) -> float:
        rows = [row for row in range(len(self.batch.reward)) if self.batch.source_of(row) == route.rows]
        match channel.per.kind:
            case PerKind.SEQUENCE:
                return float(self.batch.length(place.row) * len(rows))
            case PerKind.TOKEN:
                return float(sum(sum(self.batch.from_model[row]) for row in rows))
            case PerKind.SELECTED:
                return float(taken)
            case PerKind.CONST:
                return channel.per.constant * len(rows)
        raise AssertionError(channel.per)


def _reads_source(expr: Expr) -> bool:
    return any(isinstance(part, Signal) and part.name == "source" for part in parts_of(expr))
