"""The charts of a report as files for papers, drawn by matplotlib."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from trace_dsl.errors import TraceError
from trace_dsl.run_report.chart import Chart

# Okabe and Ito's colours, told apart by the colour-blind; line styles tell apart curves of one colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
_STYLES = ("-", "--", ":", "-.")
_SIZE = (4.2, 2.7)


def check_can_draw() -> None:
    """Raises TraceError where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise TraceError("pictures need matplotlib, which is not installed: pip install 'trace-dsl[study]'")


def write_pictures(charts: Sequence[Chart], folder: Path, kind: Literal["png", "svg"]) -> list[Path]:
    """One file a chart, named by it, in `folder`; returns their paths. Raises OSError."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    mpl.rcParams["svg.hashsalt"] = "trace-dsl"  # the same picture is the same file
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(chart, folder / f"{chart.identifier}.{kind}", kind) for chart in charts]


def _write(chart: Chart, path: Path, kind: str) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    axis = figure.subplots()
    scale = 100 if chart.share else 1
    for n, curve in enumerate(chart.curves):
        values = [math.nan if value is None else scale * value for _, value in curve.points]
        axis.plot(
            [step for step, _ in curve.points],
            values,
            label=curve.name or None,
            color=_COLOURS[n % len(_COLOURS)],
            linestyle=_STYLES[n % len(_STYLES)],
            linewidth=1.4,
            marker="o" if len(curve.points) <= 24 else "",
            markersize=2.6,
        )
    for step in chart.marks:
        axis.axvline(step, color=_COLOURS[6], linewidth=0.8, linestyle="--")
    if chart.level is not None:
        axis.axhline(chart.level, color=_COLOURS[6], linewidth=0.8, linestyle=":")
    if chart.from_zero and min((v for c in chart.curves for _, v in c.known), default=0.0) >= 0:
        axis.set_ylim(bottom=0)
    axis.set(title=chart.full_title, xlabel="step", ylabel=f"{chart.unit}{', %' if chart.share else ''}")
    if len(chart.curves) > 1:
        figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)  # where no curve is
    aside = path.with_name(path.name + ".partial")
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(aside, format=kind, bbox_inches="tight", dpi=200, metadata=metadata)
    aside.replace(path)
    return path
