"""What is said at every state of the parser on every word that cannot stand there."""

from __future__ import annotations

import re

import pytest

from tests.language.parser_states import (
    END,
    EXAMPLES,
    FOREIGN,
    advanced,
    complaints,
    prefixes,
    read_as_a_name,
    table,
    unexpected,
)
from tests.language.parser_states_update import EXPECTED, table_text
from trace_dsl.lint import lint_text
from trace_dsl.model import Diagnostic
from trace_dsl.syntax.machine import tokens
from trace_dsl.syntax.messages.scene import shown

BEFORE = "spans key, error\nlet w = 1\n"
BEHIND = "\nrest: grpo(w=w)\n"
# What a message says of the end of a statement, where nothing is found that it could name.
MISSING = re.compile(r"end of the line|never closed|missing|has no losses|no value|no name|no labels|needs a")


def found_in(text: str) -> list[Diagnostic]:
    """The syntax errors of a file whose third line is `text`; those of other lines are for the caller to refuse."""
    return [found for found in lint_text(f"{BEFORE}{text}{BEHIND}").diagnostics if found.rule == "syntax"]


def test_the_walk_meets_every_state() -> None:
    met: set[int] = set()
    for prefix in prefixes():
        for terminal in EXAMPLES:
            advanced(prefix.stack, terminal, met)
    assert met == set(table().states)


def test_every_text_of_the_walk_is_read_as_it_says() -> None:
    """The walk is over lark's table; our parser takes the very same words."""
    for prefix in prefixes():
        assert tuple(token.kind for token in tokens(prefix.text)) == prefix.terminals, prefix.text


@pytest.mark.parametrize("part", range(8))
def test_every_unexpected_word_has_a_message_for_people(part: int) -> None:
    terminals = re.compile(rf"\b({'|'.join(name for name in EXAMPLES if name != END)}|ANONYMOUS)\b|\$END|Token")
    for prefix in prefixes()[part::8]:
        for word in unexpected(prefix):
            text = f"{prefix.text} {word}".strip(" ")
            case = f"{text!r}, unexpected {word!r}"
            if not text:
                continue  # an empty line, which is no statement
            if read_as_a_name(prefix, word):
                assert tokens(text)[-1].kind == "NAME", case
                continue
            found = found_in(text)
            assert [x.place.line for x in found] == [3], case
            (one,) = found
            message = one.message
            assert 1 <= one.place.column <= len(text) + 1, case
            assert one.place.column < one.place.end_column <= len(text) + 2, case
            assert one.place.end_line == 3, case
            assert message, case
            assert one.fix, case
            assert message[0] in '`"=' or message[0].islower(), f"{case}: {message}"
            assert not terminals.search(message), f"{case}: {message}"
            assert message.isprintable(), f"{case}: {message!r}"
            assert one.fix.isprintable(), f"{case}: {one.fix!r}"
            if word:
                whole = word if word[0].isalnum() or word in EXAMPLES.values() else word[0]
                assert shown(whole) in message, f"{case}: {message}"
            else:
                assert MISSING.search(message), f"{case}: {message}"


def test_a_keyword_read_as_a_name_is_answered_like_any_name() -> None:
    """`spans teacher` is `spans foo`: accepted, or stopped at the end of the line as every name is."""
    accounted = 0
    for prefix in prefixes():
        for word in unexpected(prefix):
            if word and read_as_a_name(prefix, word):
                accounted += 1
                kinds = [
                    [x.place.end_column > len(f"{prefix.text} {w}") for x in complaints(prefix, w)]
                    for w in (word, "foo")
                ]
                assert kinds[0] == kinds[1], (prefix.text, word)
    assert accounted > 100


def test_the_messages_are_those_that_were_read_through() -> None:
    """When this fails: python -m tests.language.parser_states_update, and read the diff as who made that mistake."""
    assert EXPECTED.read_text(encoding="utf-8") == table_text()


def test_foreign_characters_are_of_no_terminal() -> None:
    for character in FOREIGN:
        assert tokens(f"let x = {character}") == tokens("let x =")
