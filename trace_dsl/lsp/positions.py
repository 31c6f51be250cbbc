"""Places of the language (lines and columns from 1, in characters) and positions of editors (from 0, in code units)."""

from __future__ import annotations

from dataclasses import dataclass

from lsprotocol import types

from trace_dsl.model import Place

Encoding = types.PositionEncodingKind | str


def _units(text: str, encoding: Encoding) -> int:
    """How long a text is in the code units of an encoding. Half of a surrogate pair counts as one character."""
    match encoding:
        case types.PositionEncodingKind.Utf8:
            return len(text.encode("utf-8", errors="surrogatepass"))
        case types.PositionEncodingKind.Utf32:
            return len(text)
        case _:  # UTF-16 is what holds when nothing else was agreed on
            return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLines:
    """The lines of a text, without their ends, and how the editor counts along them."""

    lines: tuple[str, ...]
    encoding: Encoding = types.PositionEncodingKind.Utf16

    def line(self, number: int) -> str:
        """A line by its number from 1; empty when there is none."""
        return self.lines[number - 1] if 1 <= number <= len(self.lines) else ""

    def position(self, line: int, column: int) -> types.Position:
        """The editor's position of a line and column."""
        return types.Position(line=line - 1, character=_units(self.line(line)[: column - 1], self.encoding))

    def range(self, place: Place) -> types.Range:
        """The editor's range of a place; a place after the end of its line is the end of the line."""
        return types.Range(
            start=self.position(place.line, place.column), end=self.position(place.end_line, place.end_column)
        )

    def column(self, position: types.Position) -> tuple[int, int]:
        """(line, column) of an editor's position; one inside a character is before it, one after the end is the end."""
        text = self.line(position.line + 1)
        taken = 0
        for column, character in enumerate(text, start=1):
            taken += _units(character, self.encoding)
            if taken > position.character:
                return position.line + 1, column
        return position.line + 1, len(text) + 1

    def before(self, position: types.Position) -> str:
        """The text before a position, lines joined by bare newlines."""
        line, column = self.column(position)
        return "\n".join((*self.lines[: line - 1], self.line(line)[: column - 1]))


def text_lines(text: str, encoding: Encoding) -> TextLines:
    """The lines of a text whose lines end in bare newlines."""
    return TextLines(lines=tuple(text.split("\n")), encoding=encoding)


def overlap(one: types.Range, other: types.Range) -> bool:
    """Whether two ranges share a character or touch."""
    return _key(one.start) <= _key(other.end) and _key(other.start) <= _key(one.end)


def _key(position: types.Position) -> tuple[int, int]:
    return position.line, position.character
