"""What an editor writes at one key press is right: every replacement, applied to very many wrong specs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import pytest

from tests.language.wrong_specs import foreign_words, of_the_tests, wrong_specs
from trace_dsl.lint import lint_text
from trace_dsl.model import Diagnostic, Place
from trace_dsl.vocabulary import LOSSES, NO_LOSS, SOURCES, STATEMENTS

PARTS = 8
LONGEST_CHAIN = 12


def _offset(text: str, line: int, column: int) -> int:
    return sum(len(one) + 1 for one in text.split("\n")[: line - 1]) + column - 1


def _ends(text: str, place: Place) -> tuple[int, int]:
    return _offset(text, place.line, place.column), _offset(text, place.end_line, place.end_column)


def applied(text: str, place: Place, new: str) -> str:
    begin, end = _ends(text, place)
    return text[:begin] + new + text[end:]


@lru_cache(maxsize=64)
def errors_of(text: str) -> tuple[Diagnostic, ...]:
    return lint_text(text).errors


def _was_hidden(found: Diagnostic, later: Diagnostic) -> bool:
    """Whether the second error could not be seen before the first was mended: a known name of the wrong kind."""
    return later.rule == "wrong-rank" and (found.rule == "unknown-name" or "compares with nothing" in found.message)


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


_WRITE = re.compile(r"write `?([^`]*?)`?(?: here)?")
_SCHEMATIC = re.compile(r"[A-Z]{4}|\.\.\.| or ")


def test_what_a_syntax_error_says_to_write_is_another_text_without_that_error() -> None:
    tried = 0
    for text in of_the_tests():
        for found in errors_of(text):
            fix = _WRITE.fullmatch(found.fix)
            if found.rule != "syntax" or found.place.path or fix is None or _SCHEMATIC.search(fix[1]):
                continue
            later = {(one.message, one.place) for one in errors_of(applied(text, found.place, fix[1]))}
            assert (found.message, found.place) not in later, (text, found)
            tried += 1
    assert tried > 100


_OF_THE_LANGUAGE = {*LOSSES, *SOURCES, *STATEMENTS, NO_LOSS}


@pytest.mark.parametrize("word", [word for word in foreign_words() if len(word) > 3 and word not in _OF_THE_LANGUAGE])
def test_what_the_spec_declares_is_meant_before_what_the_word_is_elsewhere(word: str) -> None:
    """A let is called nearly as the word is; so are a label and a teacher."""
    own = f"{word}x"
    for text in (
        f"let {own} = 2\nrest: nll(w={word})",
        f"let {own.capitalize()} = 2\nrest: nll(w={own})",
        f"spans {own}, wrong\n{word}: nll()\nrest: none",
        f"teacher {own} = self(frozen)\nteacher old = self(sync=2)\nrest: rkl(teacher={word})",
    ):
        (found,) = (one for one in errors_of(text) if one.replacement is not None)
        assert found.replacement is not None
        assert found.replacement.text.lower() == own.lower(), text
