"""A chart as inline SVG: axes with round numbers, a line for each curve, dots where points stand alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from trace_dsl.preview.digits import digits
from trace_dsl.run_report.chart import Chart, Point, in_words, thinned

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 28
DASHES = ("none", "7 4", "2 3", "9 3 2 3", "4 2", "12 4", "1 4", "6 2 1 2")
HUES = 8
_DOTTED = 24  # a chart of so few steps shows every point
_TINY = 1e-3
_THOUSANDS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where steps and values stand in the picture."""

    first: int
    last: int
    low: float
    high: float

    def x(self, step: float) -> float:
        return LEFT + (step - self.first) / max(1, self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def frame_of(chart: Chart) -> Frame:
    """Limits that hold every known value, on round numbers."""
    known = [point for curve in chart.curves for point in curve.known]
    steps = [step for step, _ in known] or [0]
    values = [value for _, value in known] + ([0.0] if chart.from_zero or not known else [])
    values += [] if chart.level is None else [chart.level]
    low, high = min(values), max(values)
    if low == high:
        room = abs(low) or 1.0
        low, high = (low, low + room) if low >= 0 and chart.from_zero else (low - room / 2, high + room / 2)
    marks = ticks(low, high)
    step = marks[1] - marks[0]
    bottom = marks[0] if marks[0] <= low else marks[0] - step
    top = marks[-1] if marks[-1] >= high else marks[-1] + step
    return Frame(first=min(steps), last=max(steps), low=bottom, high=top)


def ticks(low: float, high: float, about: int = 4) -> tuple[float, ...]:
    """Round numbers from `low` to `high`, some 3 to 6 of them, at least two."""
    exact = (high - low) / about
    power = 10.0 ** math.floor(math.log10(exact))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= exact * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(n * step for n in range(first, max(last, first + 1) + 1))


def tick_text(value: float, *, share: bool) -> str:
    """`40%`, `25k`, `0.02`, `1.5e-4`."""
    rounded = float(f"{value:.6g}")
    if share:
        return f"{digits(float(f'{100 * value:.6g}'))}%"
    for size, letter in _THOUSANDS:
        if abs(rounded) >= max(size, 1e4):
            return f"{digits(rounded / size)}{letter}"
    if 0 < abs(rounded) < _TINY:
        mantissa, power = f"{rounded:.5e}".split("e")
        return f"{digits(float(mantissa))}e{int(power)}"
    return digits(rounded)


def step_ticks(frame: Frame) -> tuple[int, ...]:
    """Steps to name below the axis."""
    if frame.first == frame.last:
        return (frame.first,)
    found = {round(one) for one in ticks(frame.first, frame.last, 5)}
    return tuple(sorted(step for step in found if frame.first <= step <= frame.last))


def svg_of(chart: Chart) -> str:
    """The picture, with its content in words for those who do not see it."""
    frame = frame_of(chart)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(in_words(chart))}">'
        + "".join((*_axes(chart, frame), *_marks(chart, frame), *_lines(chart, frame)))
        + f'<line class="rule" x1="0" x2="0" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg>'
    )


def key_line(style: int) -> str:
    """The line of a curve as its key shows it."""
    return (
        f'<svg viewBox="0 0 28 8" aria-hidden="true"><line class="curve h{style % HUES}" x1="1" x2="27" y1="4" y2="4" '
        f'stroke-dasharray="{DASHES[style % len(DASHES)]}"/></svg>'
    )


def path_of(points: Sequence[Point], frame: Frame) -> str:
    """The path of a curve; it is broken where a value is missing or not finite."""
    parts: list[str] = []
    pen = "M"
    for step, value in points:
        if value is None or not math.isfinite(value):
            pen = "M"
            continue
        parts.append(f"{pen}{frame.x(step):.2f} {frame.y(value):.2f}")
        pen = "L"
    return "".join(parts)


def _axes(chart: Chart, frame: Frame) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in ticks(frame.low, frame.high):
        y = frame.y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        label = escape(tick_text(value, share=chart.share))
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    for step in step_ticks(frame):
        x = frame.x(step)
        yield f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{step}</text>'


def _marks(chart: Chart, frame: Frame) -> Iterator[str]:
    for step in chart.marks:
        if frame.first <= step <= frame.last:
            x = frame.x(step)
            yield f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    if chart.level is not None:
        y = frame.y(chart.level)
        yield f'<line class="mark" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _lines(chart: Chart, frame: Frame) -> Iterator[str]:
    for curve in chart.curves:
        points = thinned(curve.points)
        hue = f"h{curve.style % HUES}"
        path = path_of(points, frame)
        if path:
            dashes = DASHES[curve.style % len(DASHES)]
            yield f'<path class="curve {hue}" d="{path}" stroke-dasharray="{dashes}"/>'
        for step, value in _dots(points, every=len(chart.steps) <= _DOTTED):
            yield f'<circle class="dot {hue}" cx="{frame.x(step):.2f}" cy="{frame.y(value):.2f}" r="2.6"/>'


def _dots(points: Sequence[Point], *, every: bool) -> Iterator[tuple[int, float]]:
    """The points that are shown as such: every one, or those that no line reaches."""
    known = [value is not None and math.isfinite(value) for _, value in points]
    for n, (step, value) in enumerate(points):
        alone = not any(known[m] for m in (n - 1, n + 1) if 0 <= m < len(points))
        if known[n] and value is not None and (every or alone):
            yield step, value
