"""The language server: pure functions of a document, and one real server."""

from __future__ import annotations

from pathlib import Path

from lsprotocol import types

from trace_dsl.lsp.document import Document, Surroundings, analyse

CURSOR = "\u2038"
WHOLE = types.Range(start=types.Position(line=0, character=0), end=types.Position(line=10_000, character=0))


def document(
    text: str,
    *,
    path: Path = Path("/nowhere/spec.trace"),
    around: Surroundings | None = None,
    encoding: str = "utf-16",
) -> Document:
    """A spec that is open in an editor."""
    return analyse(path.as_uri(), text, path, encoding=encoding, around=around)


def with_cursor(
    text: str, *, path: Path = Path("/nowhere/spec.trace"), encoding: str = "utf-16"
) -> tuple[Document, types.Position]:
    """A spec and the place of the cursor mark in it, which is taken out."""
    before, mark, after = text.partition(CURSOR)
    assert mark, "the text has a cursor"
    last = before.replace("\r\n", "\n").split("\n")[-1]
    units = {"utf-8": len(last.encode()), "utf-16": len(last.encode("utf-16-le")) // 2, "utf-32": len(last)}
    position = types.Position(line=before.count("\n"), character=units[encoding])
    return document(before + after, path=path, encoding=encoding), position


def text_at(of: Document, where: types.Range) -> str:
    """The text in a range, counted in UTF-16 as an editor counts, independently of the server's own counting."""
    lines = of.text.split("\n")

    def cut(line: str, start: int, end: int | None) -> str:
        units = line.encode("utf-16-le")
        return units[2 * start : None if end is None else 2 * end].decode("utf-16-le")

    if where.start.line == where.end.line:
        return cut(lines[where.start.line], where.start.character, where.end.character)
    middle = lines[where.start.line + 1 : where.end.line]
    first = cut(lines[where.start.line], where.start.character, None)
    last = cut(lines[where.end.line], 0, where.end.character) if where.end.line < len(lines) else ""
    return "\n".join([first, *middle, last])


def applied(of: Document, edits: list[types.TextEdit]) -> str:
    """The text, with its line ends, after edits, as an editor applies them."""
    lines = of.text.split("\n")
    text = of.text.replace("\n", of.line_end)

    def offset(position: types.Position) -> int:
        before = sum(len(line) + len(of.line_end) for line in lines[: position.line])
        if position.line >= len(lines):
            return len(text)
        units = lines[position.line].encode("utf-16-le")[: 2 * position.character]
        return before + len(units.decode("utf-16-le"))

    for edit in sorted(edits, key=lambda one: offset(one.range.start), reverse=True):
        text = text[: offset(edit.range.start)] + edit.new_text + text[offset(edit.range.end) :]
    return text
