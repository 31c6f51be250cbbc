"""Which route takes each token at a step, or which may where only the run can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trace_dsl.expressions import signals_of
from trace_dsl.model import Route, SpanLabel
from trace_dsl.plan.plan import Plan
from trace_dsl.preview.batch import Batch, TokenSpan
from trace_dsl.preview.evaluate import Moment, column_at
from trace_dsl.reach import Standing
from trace_dsl.terms import Rank

# No route takes the token.
NO_ROUTE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The choice of each token: an index into `choices`. A choice is the routes that may take a token, in order, of
    which one certainly does when it stands alone; NO_ROUTE among them: perhaps none does.
    """

    choice_T: Sequence[int]
    choices: tuple[tuple[int, ...], ...]

    def route_T(self) -> list[int | None]:
        """The route of each token, None where only the run can tell."""
        certain = [choice[0] if len(choice) == 1 else None for choice in self.choices]
        return [certain[choice] for choice in self.choice_T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Where the labels of a spec stand: which tokens carry each, after the caps, and what the caps cut off."""

    mask_T: Mapping[str, Sequence[bool]]
    covered: Mapping[str, tuple[int, int]]


def label_tokens(batch: Batch, labels: Sequence[SpanLabel]) -> Labelled:
    """Spans in the order of their start; the one that would pass the cap is cut, later ones are dropped.

    covered: for each label, the tokens that spans cover before and after the cap.
    """
    masks: dict[str, Sequence[bool]] = {}
    covered = {}
    for label in labels:
        mask = [False] * batch.tokens
        before = 0
        by_row: dict[int, list[TokenSpan]] = {}
        for span in batch.spans:
            if span.label == label.name:
                by_row.setdefault(span.row, []).append(span)
        for row, spans in by_row.items():
            length, first = batch.length_R[row], batch.start_R[row]
            left = length if label.cap is None else math.floor(round(label.cap * length, 9))
            for place in sorted({n for span in spans for n in range(span.start, span.end)}):
                before += 1
                if left > 0:
                    mask[first + place] = True
                    left -= 1
        masks[label.name] = mask
        covered[label.name] = (before, sum(mask))
    return Labelled(mask_T=masks, covered=covered)


def route_tokens(plan: Plan, labelled: Labelled, standings: Sequence[Standing], moment: Moment) -> Routing:
    """First match wins, over the routes that the step leaves. A token whose predicate is unknown may go either way."""
    batch = moment.batch
    # for each token: the routes that may take it so far; it is settled once a route surely does
    open_T: list[tuple[int, ...]] = [()] * batch.tokens
    waiting: Sequence[int] = range(batch.tokens)
    settled: dict[int, int] = {}
    for r, (planned, standing) in enumerate(zip(plan.routes, standings, strict=True)):
        route = planned.route
        if not standing.reached:
            continue
        holds = column_at(route.when, Rank.TOKEN, moment) if route.when is not None and standing.asks else None
        masks = None if route.is_rest else [labelled.mask_T[label] for label in route.labels]
        offered_R = [source == route.rows for source in batch.source_R]
        tool = _asks_for_tool_output(route)
        left = []
        for t in waiting:
            if (
                not offered_R[batch.row_T[t]]
                or not (tool or batch.from_model_T[t])
                or not (masks is None or any(mask[t] for mask in masks))
            ):
                left.append(t)
                continue
            does = 1.0 if holds is None else holds[t]
            if does is None:
                open_T[t] = (*open_T[t], r)
                left.append(t)
            elif does != 0:
                settled[t] = r
            else:
                left.append(t)
        waiting = left
    numbers: dict[tuple[int, ...], int] = {}
    choice_T = [numbers.setdefault((*open_T[t], settled.get(t, NO_ROUTE)), len(numbers)) for t in range(batch.tokens)]
    return Routing(choice_T=choice_T, choices=tuple(numbers))


def _asks_for_tool_output(route: Route) -> bool:
    """A route is offered tool output only when its predicate looks at `source`."""
    return route.when is not None and "source" in signals_of(route.when)
