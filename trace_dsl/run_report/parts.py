"""Pieces of HTML: figures with their keys and values, tables, notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from trace_dsl.run_report.chart import Chart, Curve, thinned
from trace_dsl.run_report.svg import LEFT, RIGHT, WIDTH, frame_of, key_line, svg_of

# A table of more rows than this is shown in even steps; metrics.jsonl has every one.
MOST_ROWS = 200


def figure(chart: Chart) -> str:
    """A chart with its title, units, keys and a table of its values."""
    title = f"{chart.identifier}-title"
    about = f'<p class="soft small">{escape(chart.about)}</p>' if chart.about else ""
    unit = f'<span class="unit">{escape(chart.unit)}</span>' if chart.unit else ""
    return (
        f'<figure id="{chart.identifier}" data-chart="{chart.identifier}" aria-labelledby="{title}">'
        f'<figcaption><h3 id="{title}">{escape(chart.title)}</h3>{unit}</figcaption>'
        f'<div class="picture">{svg_of(chart)}<div class="tip" hidden></div></div>'
        f"{keys(chart)}{about}{values(chart)}</figure>"
    )


def keys(chart: Chart) -> str:
    """Which line is whose, and from what value to what it went."""
    items = "".join(
        f"<li>{key_line(curve.style)}<span>{escape(curve.name)}</span> <b>{_ends(chart, curve)}</b></li>"
        for curve in chart.curves
    )
    return f'<ul class="keys">{items}</ul>'


def _ends(chart: Chart, curve: Curve) -> str:
    known = curve.known
    if not known:
        return "no value"
    first, last = chart.told(known[0][1]), chart.told(known[-1][1])
    return escape(last if len(known) == 1 else f"{first} → {last}")


def values(chart: Chart) -> str:
    """Every value of a chart, as a table that opens."""
    steps = chart.steps
    stride = -(-len(steps) // MOST_ROWS)
    shown = [step for n, step in enumerate(steps) if n % stride == 0 or step == steps[-1]]
    columns = [dict(curve.points) for curve in chart.curves]
    rows = [
        (str(step), *("" if (value := column.get(step)) is None else chart.told(value) for column in columns))
        for step in shown
    ]
    heads = ("step", *(curve.name or chart.title for curve in chart.curves))
    note = f'<p class="soft small">Every {stride}th step; metrics.jsonl has all.</p>' if stride > 1 else ""
    return (
        f"<details><summary>Values</summary>{note}{table(heads, rows, label=f'Values of {chart.full_title}')}</details>"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, label: str, numbers: bool = True) -> str:
    """A table of texts; its first column names the rows. numbers: the others are set as numbers, flush right."""
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(one)}</td>" for one in row[1:]) + "</tr>"
        for row in rows
    )
    kind = ' class="numbers"' if numbers else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def note(text: str) -> str:
    """A sentence about what is not there."""
    return f'<p class="note">{escape(text)}</p>'


def section(identifier: str, title: str, *content: str) -> str:
    """A part of the page that can be linked to."""
    head = f"{identifier}-head"
    inner = "".join(content)
    return f'<section id="{identifier}" aria-labelledby="{head}"><h2 id="{head}">{escape(title)}</h2>{inner}</section>'


def grid(charts: Sequence[Chart]) -> str:
    """Charts side by side, as many as fit."""
    kind = "charts lead" if len(charts) == 1 else "charts"
    return f'<div class="{kind}">{"".join(figure(chart) for chart in charts)}</div>' if charts else ""


def hover_data(charts: Iterable[Chart]) -> dict[str, object]:
    """What a pointer on a chart is told: the points that are drawn, already in words."""
    found: dict[str, object] = {}
    for chart in charts:
        frame = frame_of(chart)
        curves = []
        for curve in chart.curves:
            told = {str(step): chart.told(value) for step, value in thinned(curve.points) if value is not None}
            curves.append({"name": curve.name, "style": curve.style, "at": told})
        found[chart.identifier] = {
            "first": frame.first, "last": frame.last, "left": LEFT, "right": WIDTH - RIGHT, "width": WIDTH,
            "curves": curves,
        }  # fmt: skip
    return found
