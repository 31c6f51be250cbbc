"""Cuts a file into logical statements, so that one broken line neither hides nor invents errors on the others.

A statement is one line; inside brackets it goes on over line ends. When a bracket is never closed, the next line at the
left margin that starts like a statement ends the broken one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trace_dsl.model import Place

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
# What only a new statement can start with: an argument line such as `teacher=big,` is none of these.
STARTS_STATEMENT = re.compile(
    rf"spans\s+{_NAME}"
    rf"|teacher\s+{_NAME}\s*="
    rf"|teacher\s*=\s*{_NAME}\s*\("
    r"|advantage\s*="
    rf"|rollouts\s+{_NAME}"
    rf"|let\s+{_NAME}"
    r"|extends\s*\""
    rf"|{_NAME}(\s*\|\s*{_NAME})*\s*(when\b(?!\s*=)|:)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalLine:
    """One statement's text, whole lines with comments blanked out, so that its columns are the file's.

    first_line: the line of the file it starts on; opened: where the bracket stands that was never closed, if any;
    stray_line: the line of an indented continuation that stands outside brackets, if any (its text is left out).
    """

    text: str
    first_line: int
    opened: Place | None = None
    stray_line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment with its `#`."""

    text: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    statements: tuple[LogicalLine, ...]
    comments: tuple[Comment, ...]


def _without_comment(line: str) -> tuple[str, str, int]:
    """(the line without its comment, the comment, its 0-based column); a `#` inside a string is text."""
    in_string = False
    for column, character in enumerate(line):
        if character == '"':
            in_string = not in_string
        elif character == "#" and not in_string:
            return line[:column], line[column:], column
    return line, "", 0


def _brackets(line: str) -> list[tuple[str, int]]:
    """The brackets of a line outside strings, with their 0-based columns. An unclosed string runs to the line's end."""
    found: list[tuple[str, int]] = []
    in_string = False
    for column, character in enumerate(line):
        if character == '"':
            in_string = not in_string
        elif character in "()" and not in_string:
            found.append((character, column))
    return found


class _Splitter:
    """Collects the lines of the statement at hand; `cut` ends it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.done: list[LogicalLine] = []
        self.comments: list[Comment] = []
        self.lines: list[str] = []
        self.first_line = 0
        self.open: list[Place] = []
        self.stray_line: int | None = None

    def cut(self) -> None:
        if not self.lines:
            return
        opened = self.open[-1] if self.open else None
        text = "\n".join(self.lines).rstrip()
        self.done.append(LogicalLine(text=text, first_line=self.first_line, opened=opened, stray_line=self.stray_line))
        self.lines, self.open, self.stray_line = [], [], None

    def add(self, number: int, line: str) -> None:
        code, comment, column = _without_comment(line)
        if comment:
            place = Place(line=number, column=column + 1, end_line=number, end_column=len(line) + 1, path=self.path)
            self.comments.append(Comment(text=comment.rstrip(), place=place))
        if not code.strip():
            if self.open:
                self.lines.append("")
            return
        starts = STARTS_STATEMENT.match(code.lstrip()) is not None
        indented = code[0] in " \t"
        if self.open and starts and not indented:
            self.cut()
        if not self.open:
            if self.lines and indented and not starts:
                self.stray_line = self.stray_line or number
                return
            self.cut()
            self.first_line = number
        self.lines.append(code)
        for bracket, at in _brackets(code):
            if bracket == "(":
                place = Place(line=number, column=at + 1, end_line=number, end_column=at + 2, path=self.path)
                self.open.append(place)
            elif self.open:
                self.open.pop()


def split_lines(text: str, *, path: str = "") -> Lines:
    """Cut `text` into logical statements and comments; never raises. `path` goes into the places."""
    splitter = _Splitter(path)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, start=1):
        splitter.add(number, line)
    splitter.cut()
    return Lines(statements=tuple(splitter.done), comments=tuple(splitter.comments))
