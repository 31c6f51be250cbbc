"""What an editor writes at one key press is right: every replacement, applied to very many wrong specs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.language.wrong_specs import wrong_specs
from trace_dsl.lint import lint_text
from trace_dsl.model import Diagnostic, Place

PARTS = 8
LONGEST_CHAIN = 12


def _offset(text: str, line: int, column: int) -> int:
    return sum(len(one) + 1 for one in text.split("\n")[: line - 1]) + column - 1


def _ends(text: str, place: Place) -> tuple[int, int]:
    return _offset(text, place.line, place.column), _offset(text, place.end_line, place.end_column)


def applied(text: str, place: Place, new: str) -> str:
    begin, end = _ends(text, place)
    return text[:begin] + new + text[end:]


def errors_of(text: str) -> tuple[Diagnostic, ...]:
    return lint_text(text).errors


def _was_hidden(found: Diagnostic, later: Diagnostic) -> bool:
    """Whether the second error could not be seen before the first was mended: a known name of the wrong kind."""
    return later.rule == "wrong-rank" and found.rule in ("unknown-name", "wrong-rank") and later != found


def wrongs_of(text: str) -> Iterator[str]:
    """What is wrong with the replacements that are offered for a text."""
    errors = errors_of(text)
    for found in errors:
        if found.replacement is None or found.replacement.place.path:
            continue
        place, new = found.replacement.place, found.replacement.text
        begin, end = _ends(text, place)
        old, after = text[begin:end], applied(text, place, new)
        said = f"{found.message}: `{new}` for `{old}`"
        if after == text:
            yield f"{said} changes nothing"
            continue
        lost = set(re.findall(r"\d+", old)) - set(re.findall(r"\d+", new))
        if lost and "compares with nothing" not in found.message:
            yield f"{said} loses {', '.join(sorted(lost))}"
        before = {(one.rule, one.message) for one in errors} - {(found.rule, found.message)}
        for other in errors_of(after):
            first, last = _ends(after, other.place)
            inside = begin <= first and last <= begin + len(new)
            is_new = (other.rule, other.message) not in before
            if is_new and (inside or other.rule in ("duplicate-argument", "syntax")) and not _was_hidden(found, other):
                yield f"{said} gives: {other.message}"


def ends(text: str) -> bool:
    """Whether the replacements of a text, applied one after the other, come to an end without meeting a text twice."""
    seen = {text}
    for _ in range(LONGEST_CHAIN):
        offered = [one.replacement for one in errors_of(text) if one.replacement and not one.replacement.place.path]
        if not offered:
            return True
        text = applied(text, offered[0].place, offered[0].text)
        if text in seen:
            return False
        seen.add(text)
    return False


@pytest.mark.parametrize("part", range(PARTS))
def test_every_replacement_is_right_and_every_error_says_what_to_write(part: int) -> None:
    for text in wrong_specs()[part::PARTS]:
        assert {text: tuple(wrongs_of(text))} == {text: ()}
        assert {text: [found.message for found in errors_of(text) if not found.fix]} == {text: []}
        assert ends(text), text
