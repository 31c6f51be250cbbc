"""Charts as data: curves over steps with a title and units. What they are drawn with is not known here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trace_dsl.preview.digits import digits

Point = tuple[int, float | None]
# More points than a line on a screen has pixels say nothing more.
MOST_POINTS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Values by step, ascending; None where there is none. `style` chooses colour and dashes."""

    name: str
    points: tuple[Point, ...]
    style: int = 0

    @property
    def known(self) -> tuple[tuple[int, float], ...]:
        """The points with a finite value."""
        return tuple((step, value) for step, value in self.points if value is not None and math.isfinite(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """unit: of the values, "" for pure numbers; share: values are shown as percents; from_zero: 0 is always in view;
    marks: steps at which the objective changed; level: a value to compare with, drawn across; whose: the run, in a page
    that has such a chart of each.
    """

    identifier: str
    title: str
    unit: str
    curves: tuple[Curve, ...]
    about: str = ""
    share: bool = False
    from_zero: bool = True
    marks: tuple[int, ...] = ()
    level: float | None = None
    whose: str = ""

    def told(self, value: float) -> str:
        """A value with its unit's sign, to four digits."""
        return f"{digits(100 * value)}%" if self.share and math.isfinite(value) else digits(value)

    @property
    def full_title(self) -> str:
        return f"{self.title}, {self.whose}" if self.whose else self.title

    @property
    def steps(self) -> tuple[int, ...]:
        """Every step at which some curve has a point."""
        return tuple(sorted({step for curve in self.curves for step, _ in curve.points}))


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """At most about `most` points with the same look: of each stretch its smallest, largest and missing ones."""
    if len(points) <= most:
        return tuple(points)
    size = math.ceil(len(points) / (most / 2))
    kept: list[Point] = []
    for first in range(0, len(points), size):
        stretch = points[first : first + size]
        known = [(value, n) for n, (_, value) in enumerate(stretch) if value is not None and math.isfinite(value)]
        chosen = {min(known)[1], max(known)[1]} if known else {0}
        kept += [stretch[n] for n in sorted(chosen)]
    if kept[-1] != points[-1]:
        kept.append(points[-1])
    return tuple(kept)


def in_words(chart: Chart) -> str:
    """The chart for those who do not see it: of each curve where it begins, ends, and its extremes."""
    return f"{chart.full_title}{f', {chart.unit}' if chart.unit else ''}. " + " ".join(_curves_in_words(chart))


def _curves_in_words(chart: Chart) -> Iterator[str]:
    for curve in chart.curves:
        known = curve.known
        name = f"{curve.name}: " if curve.name else ""
        if not known:
            yield f"{name}no value."
            continue
        low, high = min(known, key=lambda p: p[1]), max(known, key=lambda p: p[1])
        yield (
            f"{name}from {chart.told(known[0][1])} at step {known[0][0]} to {chart.told(known[-1][1])} at step "
            f"{known[-1][0]}; lowest {chart.told(low[1])} at step {low[0]}, highest {chart.told(high[1])} at step "
            f"{high[0]}."
        )
