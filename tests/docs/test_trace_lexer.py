"""The colours of specs follow the tables of the language."""

from __future__ import annotations

import pytest
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, Punctuation, String, Token, Whitespace

from tests.pages import ROOT
from tools.docs.trace_lexer import TraceLexer
from trace_dsl.vocabulary import FUNCTIONS, LOSSES, SIGNALS, STATEMENTS

SPECS = sorted([*(ROOT / "specs").rglob("*.trace"), *(ROOT / "tests" / "language").rglob("*.trace")])


def words(text: str) -> list[tuple[object, str]]:
    """The tokens that are no blanks."""
    return [(kind, value) for kind, value in TraceLexer().get_tokens(text) if kind is not Whitespace]


def kind_of(word: str, text: str) -> object:
    (kind,) = {kind for kind, value in words(text) if value == word}
    return kind


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_no_character_is_lost_and_none_is_an_error(path) -> None:
    text = path.read_text(encoding="utf-8")
    tokens = list(TraceLexer(stripnl=False, ensurenl=False).get_tokens(text))
    assert "".join(value for _, value in tokens) == text
    assert not [value for kind, value in tokens if kind is Error or kind is Token or not value]


def test_every_word_of_the_tables_has_its_colour() -> None:
    assert all(kind_of(name, f"rest: {name}()") is Name.Function for name in LOSSES)
    assert all(kind_of(name, f"rest: pg(adv={name}(1))") is Name.Builtin for name in set(FUNCTIONS) - set(LOSSES))
    assert all(kind_of(name, f"rest: pg(adv={name} + 1)") is Name.Variable for name in SIGNALS)
    assert all(kind_of(name, f"{name} x = 1") is Keyword.Declaration for name in STATEMENTS)


def test_a_spec_word_by_word() -> None:
    assert words('key | teacher when not wrong: fkl(w=kl, teacher="x") + none  # why\nlet kl = 2e6 tokens') == [
        (Name.Label, "key"),
        (Operator, "|"),
        (Name.Label, "teacher"),
        (Keyword, "when"),
        (Operator.Word, "not"),
        (Name.Variable, "wrong"),
        (Punctuation, ":"),
        (Name.Function, "fkl"),
        (Punctuation, "("),
        (Name.Attribute, "w"),
        (Operator, "="),
        (Name, "kl"),
        (Punctuation, ","),
        (Name.Attribute, "teacher"),
        (Operator, "="),
        (String, '"x"'),
        (Punctuation, ")"),
        (Operator, "+"),
        (Name.Constant, "none"),
        (Comment.Single, "# why"),
        (Keyword.Declaration, "let"),
        (Name, "kl"),
        (Operator, "="),
        (Number, "2e6 tokens"),
    ]


@pytest.mark.parametrize(
    ("text", "word", "kind"),
    [
        ("rest when entropy > 1: entropy(w=1)", "1", Number),
        ("teacher = self(frozen)", "teacher", Keyword.Declaration),
        ("teacher when correct: nll()", "teacher", Name.Label),
        ('extends "a.trace"', "extends", Keyword.Declaration),
        ("rest: grpo(\n    w=kl,\n)", "w", Name.Attribute),
        ("rest: grpo(w=a == b)", "a", Name),
        ("rest: kl()", "kl", Name),
        ("rest: grpo()  # trace: ignore[zero-weight] why", "# trace: ignore[zero-weight] why", Comment.Special),
        ("spans key(cap=25%)", "25%", Number),
        ("rest: grpo(w=where(source == tool, 1, 0))", "tool", Name.Constant),
    ],
)
def test_a_word_in_its_place(text: str, word: str, kind: object) -> None:
    assert kind_of(word, text) is kind
