"""Changes of a document's text, and the text in its canonical form."""

from __future__ import annotations

from lsprotocol import types

from trace_dsl.format import format_source
from trace_dsl.lsp.document import Document


def edits_to(document: Document, text: str) -> list[types.TextEdit]:
    """The change that turns a document into `text`, of the lines that differ; none when nothing does."""
    old, new = document.text.split("\n"), text.split("\n")
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    tail = 0
    while tail < min(len(old), len(new)) - same and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    if same == len(old) == len(new):
        return []
    lines = new[same : len(new) - tail]
    if tail:  # whole lines, each with its end
        start, end = types.Position(line=same, character=0), types.Position(line=len(old) - tail, character=0)
        written = "".join(f"{line}{document.line_end}" for line in lines)
    elif same:  # everything after the end of the last line that stays
        start = document.lines.position(same, len(old[same - 1]) + 1)
        end = document.lines.position(len(old), len(old[-1]) + 1)
        written = "".join(f"{document.line_end}{line}" for line in lines)
    else:
        start = types.Position(line=0, character=0)
        end = document.lines.position(len(old), len(old[-1]) + 1)
        written = document.line_end.join(lines)
    return [types.TextEdit(range=types.Range(start=start, end=end), new_text=written)]


def formatting(document: Document) -> list[types.TextEdit]:
    """What `trace-dsl fmt` would change; nothing when the spec does not parse.

    Raises SpecError when the spec would be too large then.
    """
    return edits_to(document, format_source(document.parsed)) if document.parses else []
