"""A response cut into numbered segments, the units in which an annotator answers.

Rules, in this order:

1. Kept whole: display mathematics (`$$..$$`, `\\[..\\]`, `\\begin{x}..\\end{x}` with what it nests), fenced code, and
   inline mathematics (`\\(..\\)`, `$..$` within a line). A mark that is never closed is plain text.
2. A line break ends a segment.
3. In a line, a sentence ends behind `.`, `!`, `?` (and closing quotes or brackets) before white space, and behind
   `。`, `！`, `？` anywhere; not behind an abbreviation (`e.g.`, `Eq.`), one capital letter or a number that starts a
   line.
4. White space belongs to the segment before it (at the start of the text, to the first).

The segments joined are the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ABBREVIATIONS = frozenset(
    {
        *("al", "approx", "cf", "ch", "def", "dr", "e.g", "eg", "eq", "eqs", "etc", "ex", "fig", "figs", "i.e", "ie"),
        *("lem", "mr", "mrs", "ms", "no", "nos", "p", "pp", "prof", "ref", "resp", "sec", "st", "thm", "vs"),
    }
)
_OPENINGS = re.compile(r"\$\$|\\\[|\\\(|\\begin\{(?P<name>[A-Za-z]+\*?)\}|```|\$")
# A run of marks is tried once, at its start: a text of nothing but full stops takes linear time.
_TERMINATOR = re.compile(r"(?<![.!?])[.!?]++[)\]}\"'”’»*_]*+(?=\s)|[。！？]+[」』）”’]*|\n")
_WORD_BEFORE = re.compile(r"[A-Za-z0-9.]*$")
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([A-Za-z]+\*?)\}")
_DEEPEST_LIST = 40  # spaces before the number of a list
_LONGEST_INLINE = 1000  # characters between two dollar signs
_CLOSINGS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "```": "```"}


@dataclass(frozen=True, slots=True)
class Segment:
    """Characters [start, end) of a response; `number` counts from 1."""

    number: int
    start: int
    end: int


def segments(text: str) -> tuple[Segment, ...]:
    """The segments of `text`, see the rules above; none for a text of white space only."""
    ends: list[int] = []
    at, line_start = 0, 0
    blocks = _blocks(text)
    block = next(blocks, None)
    while (found := _TERMINATOR.search(text, at)) is not None:
        while block is not None and block[1] <= found.start():
            block = next(blocks, None)
        if block is not None and block[0] <= found.start():
            at = block[1]
            continue
        at = found.end()
        if found[0] == "\n":
            line_start = at
        elif _is_no_end(text, line_start, found.start(), found[0]):
            continue
        ends.append(at)
    return _numbered(text, [*ends, len(text)])


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Characters [start, end) without white space at either end."""
    inside = text[start:end]
    start += len(inside) - len(inside.lstrip())
    return start, max(start, start + len(inside.strip()))


def _numbered(text: str, ends: list[int]) -> tuple[Segment, ...]:
    """Segments up to `ends`; a piece of white space joins the one before it, and the first one after it."""
    result: list[Segment] = []
    start = last = 0
    for end in ends:
        blank, last = not text[last:end].strip(), end
        if not blank:
            result.append(Segment(len(result) + 1, start, end))
            start = end
        elif result:
            result[-1] = Segment(result[-1].number, result[-1].start, end)
            start = end
    return tuple(result)


def _is_no_end(text: str, line_start: int, stop: int, mark: str) -> bool:
    """Whether the full stop at `stop` ends an abbreviation, an initial or the number of a list."""
    if not mark.startswith(".") or mark.startswith(".."):
        return False
    word = _WORD_BEFORE.search(text[max(line_start, stop - 12) : stop])[0]
    if word.lower().strip(".") in _ABBREVIATIONS or (len(word) == 1 and word.isupper()):
        return True
    first = stop - len(word)
    return word.isdigit() and first - line_start <= _DEEPEST_LIST and not text[line_start:first].strip()


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """[start, end) of what is kept whole, in order, none inside another."""
    at = 0
    closings = _Closings(text)
    while (found := _OPENINGS.search(text, at)) is not None:
        if text[max(0, found.start() - 1) : found.start()] == "\\":  # an escaped mark
            at = found.start() + 1
            continue
        end = closings.end_of(found)
        if end is None:
            at = found.end()
            continue
        yield found.start(), end
        at = end


class _Closings:
    """Where an opened block ends. Remembers what is never closed, so that a hostile text costs linear time."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._never: set[str] = set()
        self._environment_ends: dict[int, int] = {}
        opened: dict[str, list[int]] = {}
        for found in _ENVIRONMENT.finditer(text):
            if found[1] == "begin":
                opened.setdefault(found[2], []).append(found.start())
            elif opened.get(found[2]):
                self._environment_ends[opened[found[2]].pop()] = found.end()

    def end_of(self, opening: re.Match[str]) -> int | None:
        """The end of the block that `opening` starts, None if it is never closed."""
        mark = opening[0]
        if opening["name"] is not None:
            return self._environment_ends.get(opening.start())
        if mark == "$":
            return self._end_of_inline(opening.end())
        if mark in self._never:
            return None
        closed = self._text.find(_CLOSINGS[mark], opening.end())
        if closed < 0:
            self._never.add(mark)
            return None
        return closed + len(_CLOSINGS[mark])

    def _end_of_inline(self, start: int) -> int | None:
        closed = self._text.find("$", start, start + _LONGEST_INLINE)
        if closed <= start or "\n" in self._text[start:closed]:
            return None
        return closed + 1
