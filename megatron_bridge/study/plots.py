"""The results as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from megatron_bridge.study.records import Record
from megatron_bridge.study.results import MethodResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by the colour-blind; line styles tell apart methods of one colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_STYLES = ("-", "--", ":", "-.")
_BASELINE = "#000000"
_WIDTH, _HEIGHT = 5.2, 3.6


def write_plots(results: Sequence[MethodResult], baseline: str, folder: Path) -> list[Path]:
    """accuracy.svg, differences.svg, course.svg and credit.svg in `folder`; returns their paths."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    mpl.rcParams["svg.hashsalt"] = "trace-dsl"  # the same picture is the same file
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _save(_accuracy(results, baseline), folder / "accuracy.svg"),
        _save(_differences(results, baseline), folder / "differences.svg"),
        _save(_course(results, baseline), folder / "course.svg"),
        _save(_credit(results), folder / "credit.svg"),
    ]


def _save(figure: Figure, path: Path) -> Path:
    aside = path.with_name(path.name + ".partial")
    figure.savefig(aside, format="svg", bbox_inches="tight", metadata={"Date": None})
    aside.replace(path)
    return path


def _grid(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def _policies(results: Sequence[MethodResult]) -> list[str]:
    return list(dict.fromkeys(result.policy for result in results))


def _style(method: str, methods: Sequence[str], baseline: str) -> dict[str, object]:
    if method == baseline:
        return {"color": _BASELINE, "linestyle": "-", "linewidth": 2.2}
    n = [one for one in methods if one != baseline].index(method)
    return {
        "color": _COLOURS[n % len(_COLOURS)],
        "linestyle": _STYLES[n // len(_COLOURS) % len(_STYLES)],
        "linewidth": 1.4,
    }


def _methods(results: Sequence[MethodResult]) -> list[str]:
    return list(dict.fromkeys(result.method for result in results))


def _accuracy(results: Sequence[MethodResult], baseline: str) -> Figure:
    """Accuracy over steps, a row for each policy, a column for each split; bands are intervals of the baseline alone,
    so that the lines stay readable: all intervals are in the table."""
    policies, splits = _policies(results), list(results[0].accuracy)
    figure, axes = _grid(len(policies), len(splits))
    for row, policy in zip(axes, policies, strict=True):
        for axis, split in zip(row, splits, strict=True):
            for result in results:
                if result.policy == policy:
                    steps = [step for step, _ in result.curve[split]]
                    means = [100 * interval.mean for _, interval in result.curve[split]]
                    style = _style(result.method, _methods(results), baseline)
                    axis.plot(steps, means, label=result.method, **style)
                    if result.method == baseline:
                        low, high = zip(*((100 * i.low, 100 * i.high) for _, i in result.curve[split]), strict=True)
                        axis.fill_between(steps, low, high, color=_BASELINE, alpha=0.12, linewidth=0)
            axis.set(title=f"{policy}, {split}", xlabel="step", ylabel="accuracy, %")
    _legend(figure, axes)
    return figure


def _differences(results: Sequence[MethodResult], baseline: str) -> Figure:
    """The difference of each method to the baseline with its interval, a row for each policy, a column for each split:
    learning filled, after the last step hollow."""
    policies, splits = _policies(results), list(results[0].accuracy)
    figure, axes = _grid(len(policies), len(splits))
    for row, policy in zip(axes, policies, strict=True):
        versus = [one.versus for one in results if one.policy == policy and one.versus is not None]
        for axis, split in zip(row, splits, strict=True):
            for label, shift, face, shown in (
                ("learning", -0.16, _COLOURS[0], [one.learning[split] for one in versus]),
                ("after the last step", 0.16, "white", [one.accuracy[split] for one in versus]),
            ):
                found = [one.difference for one in shown]
                axis.errorbar(
                    [100 * one.mean for one in found],
                    [n + shift for n in range(len(found))],
                    xerr=[[100 * (i.mean - i.low) for i in found], [100 * (i.high - i.mean) for i in found]],
                    fmt="o",
                    color=_COLOURS[0],
                    markerfacecolor=face,
                    markersize=4,
                    linewidth=1,
                    label=label,
                )
            axis.set_yticks(range(len(versus)), [one.method for one in versus])
            axis.invert_yaxis()
            axis.axvline(0.0, color=_BASELINE, linewidth=0.8, linestyle=":")
            axis.set(title=f"{policy}, {split}", xlabel=f"accuracy − {baseline}, percentage points")
    _legend(figure, axes)
    return figure


def _course(results: Sequence[MethodResult], baseline: str) -> Figure:
    """Entropy and exposure of each step's rollouts, length on the evaluated problems: the mean over seeds."""
    policies = _policies(results)
    shown = (("entropy", "entropy, nats a token"), ("mean_tokens", "tokens a response"), ("exposure", "exposure"))
    main = next(iter(results[0].accuracy))
    figure, axes = _grid(len(policies), len(shown))
    for row, policy in zip(axes, policies, strict=True):
        for axis, (name, label) in zip(row, shown, strict=True):
            for result in results:
                if result.policy == policy:
                    steps, values = _mean_curve(result.records, name, main)
                    axis.plot(steps, values, label=result.method, **_style(result.method, _methods(results), baseline))
            axis.set(title=policy, xlabel="step", ylabel=label, yscale="log" if name == "exposure" else "linear")
    _legend(figure, axes)
    return figure


def _credit(results: Sequence[MethodResult]) -> Figure:
    """Gradient inside spans over gradient outside, a bar for each method."""
    policies = _policies(results)
    figure, axes = _grid(1, len(policies))
    for axis, policy in zip(axes[0], policies, strict=True):
        known = [(r.method, r.concentration()) for r in reversed(results) if r.policy == policy]
        bars = [(method, value) for method, value in known if value is not None]
        axis.barh([method for method, _ in bars], [value for _, value in bars], color=_COLOURS[0])
        axis.axvline(1.0, color=_BASELINE, linewidth=0.8, linestyle=":")
        axis.set(title=policy, xlabel="gradient inside spans / outside", xscale="log")
        axis.set_xticks(ticks := [1, 2, 5, 10, 20], [str(tick) for tick in ticks])
        axis.minorticks_off()
    return figure


def _mean_curve(records: Sequence[Record], name: str, split: str) -> tuple[Sequence[int], list[float]]:
    """Steps, and the mean over seeds at each."""
    if name == "mean_tokens":
        steps = records[0].steps(split)
        return steps, [fmean(record.at(split, step).mean_tokens for record in records) for step in steps]
    columns = zip(*(record.series[name] for record in records), strict=True)
    known = [[value for value in column if value is not None] for column in columns]
    return range(len(known)), [fmean(column) if column else float("nan") for column in known]


def _legend(figure: Figure, axes: Sequence[Sequence[Axes]]) -> None:
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
