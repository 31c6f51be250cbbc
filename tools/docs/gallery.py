"""The gallery: every published objective on the same rollouts, with its formulas and weights over a run.

The page is Markdown with a strip of tokens for each spec; each links to the whole preview, a page of its own.
"""

from __future__ import annotations

import contextlib
import html
import io
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from trace_dsl.certainty import weight_known_at
from trace_dsl.cli.preview import preview as write_preview
from trace_dsl.expressions import schedule_text, schedules_of
from trace_dsl.facts import run_of_length
from trace_dsl.lint import lint_file
from trace_dsl.model import Spec
from trace_dsl.plan import Plan, compile_plan
from trace_dsl.plan.describe import default_steps, describe
from trace_dsl.plan.plan import PlannedLoss, advantage_of, loss_names
from trace_dsl.plan.support import unsupported
from trace_dsl.plan.table import table_rows
from trace_dsl.plan.wording import per_text
from trace_dsl.preview.page_data import route_hue, route_letter
from trace_dsl.preview.preview import Preview, preview, token_route
from trace_dsl.preview.rollouts import RolloutFile, read_rollouts
from trace_dsl.preview.routing import NO_ROUTE
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr, Scheduled

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "specs" / "published"
ROLLOUTS = Path(__file__).with_name("gallery.jsonl")
FOLDER = "gallery"
STEPS = 100
GROUP = 8  # of the plans
SHOWN = 2  # rollouts of which the page shows the tokens
_WIDTH, _HEIGHT = 200, 44
_MOST_TURNS = 4


def gallery_page() -> str:
    """gallery.md."""
    file = read_rollouts(ROLLOUTS)
    return "\n\n".join([_INTRODUCTION, *(_section(path, file) for path in _specs())]) + "\n"


def preview_pages() -> dict[str, str]:
    """The whole preview of each spec, by its place in the site."""
    pages = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for path in _specs():
            out = Path(folder) / f"{path.stem}.html"
            write_preview(str(path), ROLLOUTS, run=None, steps=STEPS, html=out, terminal=False, step=0, limit=1)
            pages[f"{FOLDER}/{path.stem}.html"] = out.read_text(encoding="utf-8")
    return pages


_INTRODUCTION = f"""# Gallery

Every [published objective](published.md) on the same two responses to one problem, at the first of {STEPS} steps: a
correct one and a wrong one, with a key span and an error span. Tokens have the colour of the route that takes them;
hatched ones are decided by what a run measures. Above them stand each loss's formula with its denominator, and its
weight over the run. *Plan* unfolds what `trace-dsl plan` says, for groups of {GROUP}; *Open* leads to the whole
preview, with a slider over all steps and the reasons for every token."""


def _specs() -> list[Path]:
    return sorted(SPECS.glob("*.trace"))


def _section(path: Path, file: RolloutFile) -> str:
    found = lint_file(path)
    assert found.spec is not None
    plan = compile_plan(found.spec, replace(run_of_length(STEPS), group_size=GROUP))
    shown = preview(found.spec, plan, file, at=0)
    what = " ".join(line.removeprefix("#").strip() for line in _comment(path))
    return "\n\n".join(
        [
            f"## {path.stem}",
            html.escape(what),
            "\n".join(_losses(plan)),
            "\n".join(_strip(shown, row) for row in range(SHOWN)),
            _plan_text(found.spec, plan),
            f"[Open]({FOLDER}/{path.stem}.html) · [the spec](../specs/published/{path.name})",
        ]
    )


def _comment(path: Path) -> Iterator[str]:
    """The lines of the comment that a spec begins with."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return
        yield line


def _losses(plan: Plan) -> Iterator[str]:
    """A table: route, loss, formula, the weight over the run."""
    names = loss_names(plan)
    yield '<div class="gallery"><table class="gallery"><thead>'
    yield "<tr><th></th><th>tokens</th><th>loss</th><th>weight</th></tr></thead><tbody>"
    for r, route in enumerate(plan.routes):
        head = f"<td>{_letter(plan, r)}</td><td>{html.escape(route.route.text)}</td>"
        if not route.losses:
            yield f"<tr>{head}<td>no loss</td><td></td></tr>"
        for c, loss in enumerate(route.losses):
            formula = html.escape(f"{loss.formula} · per {per_text(loss.channel.per)}")
            told = f"<code>{html.escape(names[r, c])}</code><br>{formula}"
            first = head if c == 0 else "<td></td><td></td>"
            yield f"<tr>{first}<td>{told}</td><td>{_weight(loss, _hue(plan, r))}</td></tr>"
    yield "</tbody></table></div>"


def _hue(plan: Plan, route: int) -> str:
    """The class that gives what it is on the colour of a route."""
    return f"r{route_hue([one.route for one in plan.routes], route)}"


def _letter(plan: Plan, route: int) -> str:
    return f'<span class="route {_hue(plan, route)}">{route_letter(route)}</span>'


def _weight(loss: PlannedLoss, hue: str) -> str:
    """The weight over the run as a picture, or its formula where the run decides it; and the schedules that its formula
    and the advantage read.
    """
    channel, told = loss.channel, ""
    known = _over_run(channel.weight)
    if known is None:
        told = f"<code>{html.escape(loss.weight_text)}</code>" + _schedules(channel.weight, hue, "with")
    elif min(known) == max(known):
        told = f"{known[0]:g}"
    else:
        told = _picture(known, hue, "")
    advantage = advantage_of(channel)
    return told + ("" if advantage is None else _schedules(advantage, hue, "in the advantage"))


def _schedules(expr: Expr, hue: str, where: str) -> str:
    found = ((schedule, _over_run(Scheduled(schedule=schedule))) for schedule in schedules_of(expr))
    told = ((schedule_text(schedule), values) for schedule, values in found if values is not None)
    return "".join(
        f"<br>{where} <code>{html.escape(text)}</code>{_picture(values, hue, text)}" for text, values in told
    )


def _over_run(expr: Expr) -> list[float] | None:
    """The value at every step; None where the run decides one."""
    moments = (Progress(step=step, total_steps=STEPS) for step in range(STEPS))
    known = [value for at in moments if (value := weight_known_at(expr, at)) is not None]
    return known if len(known) == STEPS else None


def _picture(values: list[float], hue: str, name: str) -> str:
    top, low = max(*values, 0.0), min(*values, 0.0)
    points = " ".join(
        f"{step * _WIDTH / (STEPS - 1):.1f},{2 + (_HEIGHT - 4) * (top - value) / (top - low):.1f}"
        for step, value in enumerate(values)
    )
    label = ", ".join(f"{values[step]:.4g} at step {step}" for step in _turns(values))
    return (
        f'<svg class="weight {hue}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{html.escape(f"{name}: {label}" if name else label)}">'
        f'<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT - 1}" y2="{_HEIGHT - 1}"/><polyline points="{points}"/></svg>{label}'
    )


def _turns(values: list[float]) -> list[int]:
    """The first step, the last, and those at which a line turns; no turns of a curve that turns at every step."""
    slopes = [after - before for before, after in pairwise(values)]
    turns = [step + 1 for step, (a, b) in enumerate(pairwise(slopes)) if not math.isclose(a, b, abs_tol=1e-9)]
    return [0, *(turns if len(turns) <= _MOST_TURNS else ()), len(values) - 1]


def _plan_text(spec: Spec, plan: Plan) -> str:
    """What `trace-dsl plan` prints, folded."""
    rows = table_rows(describe(plan, default_steps(plan), unsupported(spec)))
    text = html.escape("\n".join(row.plain for row in rows))
    return f"<details><summary>Plan</summary><pre><code>{text}</code></pre></details>"


def _strip(shown: Preview, row: int) -> str:
    """The tokens of a response, each in the colour of its route."""
    rollout, first = shown.file.rollouts[row], shown.batch.start_R[row]
    parts = []
    for n, (start, end) in enumerate(rollout.intervals):
        route = token_route(shown, 0, first + n)
        kind = "decided" if route is None else "none" if route == NO_ROUTE else _hue(shown.plan, route)
        letter = "no route" if route == NO_ROUTE else f"route {route_letter(route or 0)}"
        said = "decided during the run" if route is None else letter
        parts.append(f'<span class="{kind}" title="{said}">{html.escape(rollout.response[start:end])}</span>')
    outcome = "correct" if rollout.correct else "wrong"
    return f'<p class="gallery"><b>{outcome}</b>{"".join(parts)}</p>'
