"""The words of one statement with the comments that belong to them.

The parser says what a word is (`when` is a keyword in one place and a name in another), so nothing can be read here in
another way than the parser reads it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, replace
from enum import Enum

from trace_dsl.syntax.lines import Comment, LogicalLine
from trace_dsl.syntax.machine import tokens


class Role(Enum):
    """What a piece does to the layout."""

    CALL = "the ( after a name"
    GROUP = "any other ("
    CLOSE = ")"
    COMMA = ","
    EQUAL = "the = of a statement"
    WHEN = "the when of a route"
    COLON = ":"
    WORD = "everything else"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A word or sign. `above`: comments on lines of their own before it; `behind`: comments after it on its line."""

    text: str
    role: Role
    spaced: bool
    above: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()

    @property
    def has_comment(self) -> bool:
        return bool(self.above or self.behind)


_ROLES = {
    "RPAR": Role.CLOSE,
    "COMMA": Role.COMMA,
    "WHEN": Role.WHEN,
    "COLON": Role.COLON,
}
# A minus after one of these, or at the start, is a sign and not a subtraction.
_BEFORE_SIGN = frozenset(
    {"LPAR", "COMMA", "EQUAL", "PLUS", "MINUS", "TIMES", "OVER", "COMPARE", "AND", "OR", "NOT", "WHEN"}
)
_TIGHT_BEFORE = frozenset({"RPAR", "COMMA", "COLON", "PERCENT", "TIMES", "OVER"})
_TIGHT_AFTER = frozenset({"LPAR", "TIMES", "OVER"})
_EXPONENT = re.compile(r"[eE]")


def pieces_of(line: LogicalLine, comments: tuple[Comment, ...]) -> tuple[Piece, ...]:
    """The pieces of a statement that parses; `comments` are those on its lines, in order."""
    words = tokens(line.text)
    line_starts = [0, *(match.end() for match in re.finditer("\n", line.text))]
    found: list[Piece] = []
    starts: list[tuple[int, int]] = []  # (line of the file, column) at which each piece begins
    depth = 0
    before = ""  # the type of the token before, "SIGN" for a sign
    for index, token in enumerate(words):
        kind, text = token.kind, token.text
        if kind == "MINUS" and (before in _BEFORE_SIGN or before == "SIGN"):
            kind = "SIGN"
        if kind == "NUMBER":
            text = _number(text)
        elif kind in ("STEPS", "TOKENS"):
            text = kind.lower() if float(words[index - 1].text) != 1 else kind.lower().removesuffix("s")
        found.append(Piece(text=text, role=_role(kind, before, depth), spaced=_spaced(kind, before, depth)))
        row = bisect_right(line_starts, token.start) - 1
        starts.append((line.first_line + row, token.start - line_starts[row] + 1))
        depth += (kind == "LPAR") - (kind == "RPAR")
        before = kind
    return _with_comments(tuple(found), starts, comments)


def _number(text: str) -> str:
    """`.5` as 0.5, `3.` as 3.0, `2E6` as 2e6; the digits stay as written."""
    mantissa, *exponent = _EXPONENT.split(text)
    if mantissa.startswith("."):
        mantissa = f"0{mantissa}"
    if mantissa.endswith("."):
        mantissa = f"{mantissa}0"
    return "e".join([mantissa, *exponent])


def _role(kind: str, before: str, depth: int) -> Role:
    if kind == "LPAR":
        return Role.CALL if before == "NAME" else Role.GROUP
    if kind == "EQUAL" and depth == 0:
        return Role.EQUAL
    return _ROLES.get(kind, Role.WORD)


def _spaced(kind: str, before: str, depth: int) -> bool:
    """Whether a space stands before a token on one line."""
    if before in ("", "SIGN") or before in _TIGHT_AFTER or kind in _TIGHT_BEFORE:
        return False
    if kind == "LPAR" and before == "NAME":
        return False
    return depth == 0 or "EQUAL" not in (kind, before)


def _with_comments(
    pieces: tuple[Piece, ...], starts: list[tuple[int, int]], comments: tuple[Comment, ...]
) -> tuple[Piece, ...]:
    """Each comment behind the piece before it on its line, else above the piece after it."""
    result = list(pieces)
    for comment in comments:
        at = (comment.place.line, comment.place.column)
        after = next((i for i, start in enumerate(starts) if start > at), len(starts))
        piece = result[after - 1]
        if after > 0 and starts[after - 1][0] == comment.place.line:
            result[after - 1] = replace(piece, behind=(*piece.behind, comment.text))
        else:
            result[after] = replace(result[after], above=(*result[after].above, comment.text))
    return tuple(result)
