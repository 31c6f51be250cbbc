"""The gallery: every published objective on the same rollouts, with its formulas and weights over a run.

The page is Markdown with a strip of tokens for each spec; each links to the whole preview, a page of its own.
"""

from __future__ import annotations

import contextlib
import html
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trace_dsl.certainty import weight_known_at
from trace_dsl.cli.preview import preview as write_preview
from trace_dsl.facts import run_of_length
from trace_dsl.lint import lint_file
from trace_dsl.plan import Plan, compile_plan
from trace_dsl.plan.plan import PlannedLoss, loss_names
from trace_dsl.preview.page_data import route_hue, route_letter
from trace_dsl.preview.preview import Preview, preview, token_route
from trace_dsl.preview.rollouts import RolloutFile, read_rollouts
from trace_dsl.preview.routing import NO_ROUTE
from trace_dsl.schedules import Progress

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "specs" / "published"
ROLLOUTS = Path(__file__).with_name("gallery.jsonl")
FOLDER = "gallery"
STEPS = 100
SHOWN = 2  # rollouts of which the page shows the tokens
_WIDTH, _HEIGHT = 320, 64


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
hatched ones are decided by what a run measures. Beside them stand each loss's formula and its weight over the run.
*Open* leads to the whole preview, with a slider over all steps and the reasons for every token."""


def _specs() -> list[Path]:
    return sorted(SPECS.glob("*.trace"))


def _section(path: Path, file: RolloutFile) -> str:
    found = lint_file(path)
    assert found.spec is not None
    plan = compile_plan(found.spec, run_of_length(STEPS))
    shown = preview(found.spec, plan, file, at=0)
    what = " ".join(line.removeprefix("#").strip() for line in _comment(path))
    return "\n\n".join(
        [
            f"## {path.stem}",
            html.escape(what),
            "\n".join(_losses(plan)),
            "\n".join(_strip(shown, row) for row in range(SHOWN)),
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
            told = f"<code>{html.escape(names[r, c])}</code><br>{html.escape(loss.formula)}"
            yield f"<tr>{head if c == 0 else '<td></td><td></td>'}<td>{told}</td><td>{_curve(loss, _hue(plan, r))}</td></tr>"
    yield "</tbody></table></div>"


def _hue(plan: Plan, route: int) -> str:
    """The class that gives what it is on the colour of a route."""
    return f"r{route_hue([one.route for one in plan.routes], route)}"


def _letter(plan: Plan, route: int) -> str:
    return f'<span class="route {_hue(plan, route)}">{route_letter(route)}</span>'


def _curve(loss: PlannedLoss, hue: str) -> str:
    """The weight over the run as a picture, or its formula where the run decides it."""
    moments = (Progress(step=step, total_steps=STEPS) for step in range(STEPS))
    known = [value for at in moments if (value := weight_known_at(loss.channel.weight, at)) is not None]
    if len(known) < STEPS:
        return f"<code>{html.escape(loss.weight_text)}</code>"
    if min(known) == max(known):
        return f"{known[0]:g}"
    top = max(known)
    points = " ".join(
        f"{step * _WIDTH / (STEPS - 1):.1f},{_HEIGHT - 2 - (value / top) * (_HEIGHT - 4):.1f}"
        for step, value in enumerate(known)
    )
    label = f"from {known[0]:g} at step 0 to {known[-1]:g} at step {STEPS - 1}"
    return (
        f'<svg class="weight {hue}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f'<polyline points="{points}"/></svg><br>{label}'
    )


def _strip(shown: Preview, row: int) -> str:
    """The tokens of a response, each in the colour of its route."""
    rollout, first = shown.file.rollouts[row], shown.batch.start_R[row]
    parts = []
    for n, (start, end) in enumerate(rollout.intervals):
        route = token_route(shown, 0, first + n)
        kind = "decided" if route is None else "none" if route == NO_ROUTE else _hue(shown.plan, route)
        said = "decided during the run" if route is None else "no route" if route == NO_ROUTE else f"route {route_letter(route)}"
        parts.append(f'<span class="{kind}" title="{said}">{html.escape(rollout.response[start:end])}</span>')
    outcome = "correct" if rollout.correct else "wrong"
    return f'<p class="gallery"><b>{outcome}</b>{"".join(parts)}</p>'
