"""Charts: what is drawn is what the metrics say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.run_report.cases import line, make_run, write_lines
from trace_dsl.run_report.chart import Chart, Curve, in_words, thinned
from trace_dsl.run_report.html import charts
from trace_dsl.run_report.parts import values
from trace_dsl.run_report.pictures import write_pictures
from trace_dsl.run_report.read import read_runs
from trace_dsl.run_report.svg import frame_of, svg_of, tick_text, ticks


def drawn(chart: Chart) -> list[list[tuple[float, float]]]:
    """The points of every curve's path, read off the picture by its axes as a person would."""
    picture = svg_of(chart)
    lines = re.findall(r'class="grid"[^>]* y1="([\d.]+)"[^>]*/><text[^>]*>([^<]+)<', picture)
    names = re.findall(r'<text x="([\d.]+)"[^>]* text-anchor="middle">(\d+)<', picture)
    value_at = axis([(float(y), number(told)) for y, told in lines])
    step_at = axis([(float(x), float(told)) for x, told in names])
    found = []
    for path in re.findall(r'<path class="curve [^"]*" d="([^"]+)"', picture):
        points = [point.split() for point in re.findall(r"[\d.]+ [\d.]+", path)]
        found.append([(step_at(float(x)), value_at(float(y))) for x, y in points])
    return found


def number(told: str) -> float:
    return float(told[:-1]) / 100 if told.endswith("%") else float(told)


def axis(marks: list[tuple[float, float]]) -> Callable[[float], float]:
    """What a place on an axis stands for, from its first and last mark."""
    (first, low), (last, high) = marks[0], marks[-1]
    return lambda place: low + (place - first) / (last - first) * (high - low)


@pytest.mark.parametrize(
    ("identifier", "metrics"),
    [
        ("training-reward", ["reward"]),
        ("training-loss", ["loss"]),
        ("training-response-length", ["rollout/mean_tokens", "rollout/min_tokens", "rollout/max_tokens"]),
        ("routes-exposure", ["train/route/key/nll/exposure", "train/route/rest/grpo/exposure"]),
        ("credit-gradient-inside-and-outside-spans", ["train/credit/inside", "train/credit/outside"]),
    ],
)
def test_the_picture_has_the_values_of_the_metrics(tmp_path: Path, identifier: str, metrics: list[str]) -> None:
    (run,) = read_runs([make_run(tmp_path / "a")])
    chart = next(one for one in charts([run]) if one.identifier == identifier)
    frame = frame_of(chart)
    curves = drawn(chart)
    assert len(curves) == len(metrics)
    for points, metric in zip(curves, metrics, strict=True):
        assert [step for step, _ in points] == pytest.approx([0, 1, 2, 3], abs=0.01)
        told = [value for _, value in points]
        assert told == pytest.approx([one[metric] for one in run.metrics], abs=(frame.high - frame.low) / 1e3)


def test_accuracy_is_that_of_the_evaluations(tmp_path: Path) -> None:
    (run,) = read_runs([make_run(tmp_path / "a")])
    chart = next(one for one in charts([run]) if one.identifier == "accuracy")
    assert chart.curves[0].points == ((0, 0.5), (2, 0.75), (4, 0.75))
    assert [value for _, value in drawn(chart)[0]] == pytest.approx([0.5, 0.75, 0.75], abs=1e-3)
    assert "<td>75%</td>" in values(chart)


def test_a_missing_value_breaks_the_line_and_stays_empty_in_the_table() -> None:
    points = ((0, 1.0), (1, 2.0), (2, None), (3, float("nan")), (4, 3.0))
    chart = Chart(identifier="x", title="X", unit="", curves=(Curve(name="", points=points),))
    (path,) = re.findall(r' d="([^"]+)"', svg_of(chart))
    assert path.count("M") == 2
    assert svg_of(chart).count("<circle") == 3
    assert '<tr><th scope="row">2</th><td></td></tr>' in values(chart)
    assert "not a number" in values(chart)


def test_a_chart_is_told_in_words() -> None:
    curve = Curve(name="a", points=((0, 0.5), (10, 0.25), (20, 0.75)))
    chart = Chart(identifier="x", title="Accuracy", unit="share", curves=(curve,), share=True)
    told = in_words(chart)
    assert told == "Accuracy, share. a: from 50% at step 0 to 75% at step 20; lowest 25% at step 10, highest 75% at " \
        "step 20."  # fmt: skip
    assert f'role="img" aria-label="{told}"' in svg_of(chart)


def test_thinning_keeps_extremes_and_ends() -> None:
    points = tuple((n, 100.0 if n == 7777 else -50.0 if n == 1234 else n % 7.0) for n in range(10_000))
    kept = thinned(points)
    assert len(kept) <= 602
    assert {(7777, 100.0), (1234, -50.0), points[-1]} <= set(kept)
    assert list(kept) == sorted(kept)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.0371), (-3.2, 14.9), (1e-9, 4e-9), (0, 684058), (7, 7.001)])
def test_ticks_are_round_and_few(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(len(f"{value:.6g}".replace("-", "").replace(".", "").strip("0")) <= 6 for value in found)
    curve = Curve(name="", points=((0, low), (1, high)))
    frame = frame_of(Chart(identifier="x", title="X", unit="", curves=(curve,), from_zero=False))
    assert frame.low <= low < high <= frame.high


def test_tick_texts() -> None:
    assert [tick_text(value, share=False) for value in (0.30000000000000004, 5000, 25000, 2.5e6, 1.5e-4, -2e-9)] \
        == ["0.3", "5000", "25k", "2.5M", "1.5e-4", "-2e-9"]  # fmt: skip
    assert tick_text(0.30000000000000004, share=True) == "30%"


def test_names_of_curves_stand_below_the_picture(tmp_path: Path) -> None:
    """Five curves leave no room for them between the axes."""
    pytest.importorskip("matplotlib")
    curves = tuple(Curve(name=f"curve {n}", points=((0, n), (9, 9 - n))) for n in range(5))
    (path,) = write_pictures([Chart(identifier="x", title="X", unit="", curves=curves)], tmp_path, "svg")
    places = {words: float(y) for y, words in re.findall(r'<text [^>]*\by="([-.\d]+)"[^>]*>([^<]+)<', path.read_text())}
    assert all(places[f"curve {n}"] > places["step"] for n in range(5))


def test_one_step_and_one_value_can_be_drawn(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", done=1)
    write_lines(path / "metrics.jsonl", [line(0, loss=0.0)])
    for chart in charts(read_runs([path])):
        assert "nan" not in svg_of(chart)
        assert "<circle" in svg_of(chart)
