"""How a weight goes over a run, in a few words: `0.5 until step 10 -> 0 @ step 40`.

Without a run its length is unknown, so what depends on it is said relatively: `1 -> 0 @ the end of the run`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import assert_never

from trace_dsl.expressions import is_known_before_run, schedules_of, signals_of, weight_at_step
from trace_dsl.schedules import Progress, counts_tokens
from trace_dsl.terms import (
    Apply,
    Constant,
    Expr,
    Length,
    Operation,
    Reduce,
    RunFraction,
    Scanned,
    Schedule,
    Scheduled,
    Shape,
    Signal,
    Steps,
    Tokens,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A point of a run: so many steps, a share of the run and trained tokens after its start, added up."""

    steps: int = 0
    share: float = 0.0
    tokens: float = 0.0

    def after(self, length: Length) -> Moment:
        """This moment and a length later."""
        match length:
            case Steps(count):
                return replace(self, steps=self.steps + count)
            case RunFraction(fraction):
                return replace(self, share=round(self.share + fraction, 9))
            case Tokens(count):
                return replace(self, tokens=self.tokens + count)
            case _:
                assert_never(length)

    def text(self, total_steps: int | None) -> str:
        """In words; shares of a run of known length in steps."""
        if total_steps is not None and not self.tokens:
            return f"step {round(self.steps + self.share * total_steps, 9):g}"
        if self == END:
            return "the end of the run"
        parts = [f"step {self.steps}"] if self.steps or not (self.share or self.tokens) else []
        parts += [f"{self.share * 100:g}% of the run"] if self.share else []
        parts += [f"{self.tokens:g} tokens"] if self.tokens else []
        return " + ".join(parts)


START = Moment()
END = Moment(share=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """From the end of the stretch before on: the value at its start and just before `end` (None: it never ends)."""

    first: float
    last: float
    end: Moment | None


def course(weight: Expr, total_steps: int | None = None) -> str | None:
    """How a weight goes; None unless it follows one schedule and changes. Values between are those of the formula."""
    schedules = schedules_of(weight)
    if len(schedules) != 1 or not is_known_before_run(weight) or "step" in signals_of(weight):
        return None
    try:
        found = tuple(
            replace(s, first=_with(weight, schedules[0], s.first), last=_with(weight, schedules[0], s.last))
            for s in _stretches(schedules[0])
        )
    except ValueError:
        return None  # undefined somewhere: the rule undefined-weight says where
    return _words(found, total_steps)


def values_at(weight: Expr, total_steps: int | None) -> tuple[tuple[str, float], ...]:
    """The weight at a few points of a run, each with its name; none when the step does not tell."""
    schedules = schedules_of(weight)
    if isinstance(weight, Constant) or not is_known_before_run(weight) or any(map(counts_tokens, schedules)):
        return ()
    moments = [moment for schedule in schedules for moment in _moments(schedule)]
    if total_steps is None and "step" in signals_of(weight):
        return ()
    if total_steps is None and any(moment.share for moment in moments):
        if any(moment.steps for moment in moments):
            return ()
        shares = [Progress(step=percent, total_steps=100) for percent in (0, 25, 50, 75, 100)]
        return _known(weight, [(f"{at.step}%", at) for at in shares])
    total = max(moment.steps for moment in moments) + 1 if total_steps is None else total_steps
    steps = sorted({min(step, total - 1) for step in {*_telling(moments, total), total - 1}})
    return _known(weight, [(f"step {step}", Progress(step=step, total_steps=total)) for step in steps])


def _known(weight: Expr, points: list[tuple[str, Progress]]) -> tuple[tuple[str, float], ...]:
    try:
        return tuple((name, weight_at_step(weight, at)) for name, at in points)
    except ValueError:
        return ()  # undefined somewhere: the rule undefined-weight says where


def _telling(moments: list[Moment], total: int) -> set[int]:
    """Where schedules turn, and halfway between."""
    turns = sorted({0, *(round(moment.steps + moment.share * total) for moment in moments)})
    return {*turns, *((a + b) // 2 for a, b in pairwise(turns))}


# ------------------------------------------------------------------------------------------------ one schedule, exactly


def _moments(schedule: Schedule) -> tuple[Moment, ...]:
    """Where a schedule turns, in their order; the anneal's end last when there is one."""
    start = START.after(schedule.start)
    top = start.after(schedule.ramp)
    turn = top.after(schedule.warmup)
    if schedule.anneal is None:
        return (start, top, turn)
    return (start, top, turn, END if schedule.anneal.length is None else turn.after(schedule.anneal.length))


def _stretches(schedule: Schedule) -> tuple[Stretch, ...]:
    """A schedule from its start to its end."""
    start, top, turn, *end = _moments(schedule)
    weight, floor = schedule.weight, schedule.floor
    found = [
        Stretch(first=0.0, last=0.0, end=start),
        Stretch(first=0.0, last=weight, end=top),
        Stretch(first=weight, last=weight, end=turn),
    ]
    if schedule.anneal is None:
        return (*_lasting(found), Stretch(first=weight, last=weight, end=None))
    falls = weight if schedule.anneal.shape is Shape.STEP else floor
    found.append(Stretch(first=weight, last=falls, end=end[0]))
    return (*_lasting(found), Stretch(first=floor, last=floor, end=None))


def _lasting(stretches: list[Stretch]) -> list[Stretch]:
    """Those that take any time."""
    before = START
    kept = []
    for stretch in stretches:
        if stretch.end != before:
            kept.append(stretch)
        before = stretch.end or before
    return kept


def _with(expr: Expr, schedule: Schedule, value: float) -> float:
    return weight_at_step(_put(expr, schedule, value), Progress(step=0, total_steps=1))


def _put(expr: Expr, schedule: Schedule, value: float) -> Expr:
    """An expression with a number in the place of a schedule."""
    match expr:
        case Scheduled():
            return Constant(value=value) if expr.schedule == schedule else expr
        case Operation() | Apply() | Scanned():
            return replace(expr, args=tuple(_put(arg, schedule, value) for arg in expr.args))
        case Reduce():
            return expr if expr.value is None else replace(expr, value=_put(expr.value, schedule, value))
        case Constant() | Signal():
            return expr
        case _:
            assert_never(expr)


def _words(stretches: tuple[Stretch, ...], total_steps: int | None) -> str | None:
    """A course in words; None when the weight is the same throughout."""
    told = _joined(stretches)
    if len(told) == 1:
        return None
    text = f"{told[0].first:.4g}"
    value = told[0].first
    for stretch in told:
        if stretch.first != value:
            text += f", then {stretch.first:.4g}"
        if stretch.end is not None:
            when = stretch.end.text(total_steps)
            text += f" until {when}" if stretch.first == stretch.last else f" -> {stretch.last:.4g} @ {when}"
        value = stretch.last
    return text


def _joined(stretches: tuple[Stretch, ...]) -> list[Stretch]:
    """Neighbours that hold one value as one stretch."""
    found: list[Stretch] = []
    for stretch in stretches:
        if found and found[-1].first == found[-1].last == stretch.first == stretch.last:
            found[-1] = replace(found[-1], end=stretch.end)
        else:
            found.append(stretch)
    return found
