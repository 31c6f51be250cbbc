"""A preview as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trace_dsl.page import asset, document, inline_json, theme
from trace_dsl.preview.page_data import TeacherPrompt, page_data, rollout_data
from trace_dsl.preview.preview import Preview

_PACKAGE = "trace_dsl.preview"
_SCRIPTS = ("numbers.js", "tokens.js", "panels.js", "page.js")


def html_of(found: Preview, *, run: str, notes: Sequence[str], start: int, teacher_prompt: TeacherPrompt) -> str:
    """The page. run: what is known of the run, in words; start: the step that it opens at."""
    data = page_data(found, run=run, notes=notes, start=start)
    texts = [inline_json(f"rollout-{row}", rollout_data(found, row, teacher_prompt)) for row in range(found.batch.rows)]
    body = "\n".join((asset(_PACKAGE, "assets", "page.html"), inline_json("page-data", data), *texts))
    return document(
        title=f"{Path(found.spec.path).name or 'spec'} on {Path(found.file.path).name}",
        styles=(theme(), asset(_PACKAGE, "assets", "page.css")),
        body=body,
        scripts=tuple(asset(_PACKAGE, "assets", name) for name in _SCRIPTS),
    )
