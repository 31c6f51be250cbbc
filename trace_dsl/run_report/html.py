"""The page: one run in full, or several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from trace_dsl.page import asset, document, inline_json, theme
from trace_dsl.preview.digits import digits
from trace_dsl.run_report import of_run
from trace_dsl.run_report.chart import Chart
from trace_dsl.run_report.measures import (
    CREDIT,
    SECONDS,
    TRAINING,
    Measure,
    accuracy_charts,
    charts_of,
    losses_of,
    route_charts,
    slug,
)
from trace_dsl.run_report.outcome import duration, outcomes, seconds_taken, state, trained_tokens
from trace_dsl.run_report.parts import grid, hover_data, note, section, table
from trace_dsl.run_report.read import Run
from trace_dsl.run_report.words import differing_settings, spec_changes
from trace_dsl.run_report.worst import KeptStep

_PACKAGE = "trace_dsl.run_report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A run with what its rollouts are shown by: the page of each step, or the command that makes it."""

    run: Run
    kept: tuple[KeptStep, ...]
    links: Mapping[int, str]
    commands: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    identifier: str
    title: str
    html: str
    charts: tuple[Chart, ...] = ()


def _parts(shown: Sequence[Shown]) -> tuple[_Part, ...]:
    runs = [one.run for one in shown]
    lead = _one(runs[0]) if len(runs) == 1 else _several(runs)
    return (
        lead,
        *_plans(runs),
        _accuracy(runs),
        _measured("training", "Training", TRAINING, runs),
        _routes(runs),
        _measured("credit", "Credit", CREDIT, runs),
        _time(runs),
        _rollouts(shown),
    )


def html_of(shown: Sequence[Shown], made: str) -> str:
    """The page. made: when, in words."""
    runs = [one.run for one in shown]
    parts = _parts(shown)
    links = "".join(f'<a href="#{part.identifier}">{escape(part.title)}</a>' for part in parts[1:])
    name = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    what = "run report" if len(runs) == 1 else ", ".join(run.name for run in runs)
    marked = any(run.changes for run in runs)
    changed = " Dashed upright lines are steps at which the objective was changed." if marked else ""
    body = (
        '<a class="skip" href="#content">Skip to the report</a>'
        f'<header class="bar"><h1><span class="mono">{escape(name)}</span> '
        f'<span class="soft">{escape(what)}</span></h1>'
        f'<nav aria-label="Parts of the report">{links}</nav>'
        '<button id="theme" type="button" aria-label="Switch between light and dark"></button></header>'
        f'<main id="content" tabindex="-1">{"".join(section(p.identifier, p.title, p.html) for p in parts)}'
        f'<p class="soft small">Made {escape(made)} by <code>trace-dsl report</code>.{changed}</p></main>'
    )
    return document(
        title=f"{name}: report",
        styles=(theme(), asset(_PACKAGE, "assets", "report.css")),
        body=body + inline_json("chart-data", hover_data(chart for part in parts for chart in part.charts)),
        scripts=(asset(_PACKAGE, "assets", "report.js"),),
    )


def charts(runs: Sequence[Run]) -> tuple[Chart, ...]:
    """Every chart of the page, for pictures."""
    shown = [Shown(run=run, kept=(), links={}, commands={}) for run in runs]
    return tuple(chart for part in _parts(shown) for chart in part.charts)


def _one(run: Run) -> _Part:
    warn = "" if run.finished else " warn"
    html = f'<p class="note{warn}">{escape(state(run))}</p>{of_run.stats(run)}'
    if not outcomes(run):
        html += note(_no_accuracy(run))
    return _Part(identifier="outcome", title="Outcome", html=html)


def _no_accuracy(run: Run) -> str:
    if run.evaluations:
        return "There is one evaluation so far, so nothing to compare it with."
    if not run.settings.get("evaluation.problems"):
        return "The run evaluates on no held-out problems."
    return "There is no evaluation yet, or the version that ran kept none."


def _several(runs: Sequence[Run]) -> _Part:
    found = [{one.split: one for one in outcomes(run)} for run in runs]
    splits = tuple(dict.fromkeys(split for one in found for split in one))
    heads = ("run", *(f"{split}: {what}" for split in splits for what in ("first → last", "change ± standard error")))
    heads += ("steps", "time", "response tokens", "last reward")
    rows = []
    for run, by_split in zip(runs, found, strict=True):
        cells = [run.name]
        for split in splits:
            one = by_split.get(split)
            cells += ["", ""] if one is None else [f"{one.first:.1%} → {one.last:.1%}", of_run.change(one)]
        seconds, tokens = seconds_taken(run), trained_tokens(run)
        reward = run.metrics[-1].get("reward") if run.metrics else None
        cells += [f"{run.done_steps} of {run.total_steps}", "" if seconds is None else duration(seconds)]
        cells += ["" if tokens is None else f"{tokens:,}", "" if reward is None else digits(float(reward))]
        rows.append(tuple(cells))
    html = table(heads, rows, label="Outcome of each run")
    html += "".join(
        f'<p class="note warn">{escape(f"{run.name}: {state(run)}")}</p>' for run in runs if not run.finished
    )
    if not splits:
        html += note("None of the runs has two evaluations to compare.")
    return _Part(identifier="outcome", title="Outcome", html=html)


def _plans(runs: Sequence[Run]) -> list[_Part]:
    if len(runs) == 1:
        settings = of_run.settings_part(runs[0])
        return [
            _Part(identifier="spec", title="Spec", html=of_run.plan_part(runs[0])),
            _Part(identifier="settings", title="Settings", html=settings),
        ]
    rows = differing_settings(runs)
    html = "<h3>Settings</h3>"
    if rows:
        heads = ("setting", *(run.name for run in runs))
        html += table(heads, rows, label="Settings in which the runs differ", numbers=False)
    else:
        html += note("All settings are the same.")
    html += "<h3>Specs</h3>"
    for run in runs[1:]:
        lines = spec_changes(runs[0], run)
        told = "the same spec" if not lines else "what changes"
        html += f"<h4>{escape(runs[0].name)} → {escape(run.name)}: {told}</h4>"
        html += f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""
    plans = "".join(f"<h3>{escape(run.name)}</h3>{of_run.plan_part(run)}" for run in runs)
    return [
        _Part(identifier="differences", title="Differences", html=html),
        _Part(identifier="spec", title="Specs", html=plans),
    ]


def _accuracy(runs: Sequence[Run]) -> _Part:
    found = tuple(accuracy_charts(runs))
    html = grid(found) if found else note(_no_evaluations(runs))
    return _Part(identifier="accuracy-part", title="Accuracy", html=html, charts=found)


def _no_evaluations(runs: Sequence[Run]) -> str:
    whose = "the run has no" if len(runs) == 1 else "none of the runs has an"
    return f"There is no curve to show: {whose} evaluation in evaluations.jsonl."


def _measured(identifier: str, title: str, measures: Sequence[Measure], runs: Sequence[Run]) -> _Part:
    found, absent = charts_of(measures, runs, identifier)
    html = grid(found)
    if absent:
        html += note(f"Not in metrics.jsonl, or without a value: {', '.join(absent)}.")
    return _Part(identifier=identifier, title=title, html=html, charts=tuple(found))


def _routes(runs: Sequence[Run]) -> _Part:
    html, every = "", []
    for run in runs:
        several = len(runs) > 1
        found = route_charts(run, f"routes-{slug(run.name)}" if several else "routes", run.name if several else "")
        every += found
        head = f"<h3>{escape(run.name)}</h3>" if several else ""
        if losses_of(run):
            html += head + grid(found)
        else:
            html += head + note("metrics.jsonl says nothing of single losses: there is no train/route/… in it.")
    return _Part(identifier="routes", title="Routes", html=html, charts=tuple(every))


def _time(runs: Sequence[Run]) -> _Part:
    part = _measured("time", "Time", SECONDS, runs)
    html = ""
    for run in runs:
        html += (f"<h3>{escape(run.name)}</h3>" if len(runs) > 1 else "") + of_run.time_part(run)
    return _Part(identifier="time", title="Time", html=html + part.html, charts=part.charts)


def _rollouts(shown: Sequence[Shown]) -> _Part:
    html = ""
    for one in shown:
        html += f"<h3>{escape(one.run.name)}</h3>" if len(shown) > 1 else ""
        html += of_run.rollouts_part(one.run, one.kept, one.links, one.commands)
    return _Part(identifier="rollouts", title="Rollouts", html=html)
