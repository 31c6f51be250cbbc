"""The tables and the parser that runs them: those of the grammar, and as lark itself reads it."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import lark
import pytest
from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedToken

from tests.lowering.random_specs import random_spec
from tools.make_parse_tables import GRAMMAR, TABLES, parser, source
from trace_dsl.syntax.lines import split_lines
from trace_dsl.syntax.machine import Build, Obstacle, parse, tokens
from trace_dsl.syntax.tables import RULES

ROOT = Path(__file__).parents[2]
WORDS = (
    *("key", "rest", "fkl", "w", "x1", "spans", "teacher", "advantage", "rollouts", "let", "extends", "when", "and"),
    *("or", "not", "steps", "token", "3", "0.5", ".5", "3.", "2e6", '"a b"', '""', "==", "=", "<=", "!=", "<", "%"),
    *("+", "-", "*", "/", ",", ":", "|", "(", ")", "(", ")", "@", '"', "&", "é", "\n", "\t", "10%", "30steps", "1and"),
)


@cache
def by_lark() -> Lark:
    return parser()


def test_the_tables_are_those_of_the_grammar() -> None:
    """When this fails: python tools/make_parse_tables.py."""
    assert TABLES.read_text(encoding="utf-8") == source()


def test_the_grammar_has_no_conflicts(caplog: pytest.LogCaptureFixture) -> None:
    """lark settles shift/reduce conflicts in silence unless asked to log them."""
    lark.logger.setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG, logger=lark.logger.name):
        lark.logger.propagate = True
        Lark(GRAMMAR.read_text(encoding="utf-8"), parser="lalr", lexer="contextual", debug=True)
        with pytest.raises(lark.exceptions.GrammarError):
            Lark("start: a | b\na: X\nb: X\nX: /x/", parser="lalr", lexer="contextual")
    assert "conflict" not in caplog.text.lower()


def ours(text: str) -> object:
    def builds(what: str) -> Build:
        def build(at: tuple[int, int], parts: list[object]) -> object:
            return (what, *at, tuple(tuple(part) if hasattr(part, "kind") else part for part in parts))

        return build

    return parse(text, {what: builds(what) for what, *_ in RULES})


def plain(tree: object) -> object:
    """lark's tree in the shape of `ours`."""
    if isinstance(tree, Token):
        return (tree.type, str(tree), tree.start_pos, tree.end_pos)
    if isinstance(tree, Tree):
        return (str(tree.data), tree.meta.start_pos, tree.meta.end_pos, tuple(plain(child) for child in tree.children))
    return tree


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Where lark stops; nothing is expected where its lexer already does."""

    at: int
    found: str
    expected: frozenset[str]


def larks(text: str) -> object:
    try:
        return plain(by_lark().parse(text))
    except UnexpectedToken as error:
        end = error.token.type == "$END"
        at = len(text) if end else error.token.start_pos
        return Stop(at=at, found="" if end else str(error.token), expected=frozenset(error.accepts))
    except UnexpectedCharacters as error:
        return Stop(at=error.pos_in_stream, found=text[error.pos_in_stream], expected=frozenset())


def compare(text: str) -> None:
    here, there = ours(text), larks(text)
    if not isinstance(there, Stop):
        assert here == there
        return
    assert isinstance(here, Obstacle)
    if "=" in here.found and here.found != "=" and there.found == "=":
        # lark looks for `=` alone where a name gets its value and stops at the second sign of `==`; we read `==`.
        assert there.at == here.at + 1
        return
    assert (here.at, here.found) == (there.at, there.found)
    if there.expected:
        assert here.expected == there.expected


def statements(text: str) -> list[str]:
    return [line.text for line in split_lines(text).statements]


def test_every_spec_of_the_repository_is_read_as_lark_reads_it() -> None:
    paths = sorted({*ROOT.glob("specs/**/*.trace"), *ROOT.glob("tests/**/*.trace")})
    assert len(paths) > 50
    for path in paths:
        for statement in statements(path.read_text(encoding="utf-8")):
            compare(statement)


def test_random_specs_are_read_as_lark_reads_them() -> None:
    rng = random.Random(0)
    for _ in range(150):
        for statement in statements(random_spec(rng)):
            compare(statement)


def test_broken_statements_stop_where_lark_stops_and_expect_the_same() -> None:
    rng = random.Random(1)
    for _ in range(1500):
        if rng.random() < 0.5:
            words = [rng.choice(WORDS) for _ in range(rng.randint(1, 9))]
        else:
            words = [word.text for word in tokens(rng.choice(statements(random_spec(rng))))]
            for _ in range(rng.randint(1, 3)):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
        compare(" ".join(words))


def test_keywords_are_names_where_only_a_name_can_stand() -> None:
    assert [token.kind for token in tokens("teacher when = f(let=let)")][:2] == ["TEACHER", "NAME"]
    assert [token.text for token in tokens("key when: fkl()")] == ["key", "when"]  # as far as it is a statement
