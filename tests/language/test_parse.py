"""Text -> syntax tree: what is read, what a person is told, and that nothing raises."""

from __future__ import annotations

import sys
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.language import SHORTEST, TRACE
from trace_dsl.lint import lint_text
from trace_dsl.syntax import parse_source
from trace_dsl.syntax.lines import split_lines
from trace_dsl.syntax.tree import BrokenStatement, Call, Number, RouteStatement, SpansStatement, Unit


def messages(text: str) -> list[tuple[int, int, str, str]]:
    return [
        (found.place.line, found.place.column, found.message, found.fix)
        for found in parse_source("x.trace", text).diagnostics
    ]


# ------------------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("text", [TRACE, SHORTEST, "key: fkl(w=1.0, warmup=50, anneal=cos)"])
def test_specs_of_the_language_page_parse(text: str) -> None:
    assert messages(text) == []


def test_places_are_those_of_the_file() -> None:
    parsed = parse_source("x", "# comment\n\n  key when correct:  fkl(w=1,\n      warmup=3)  # more\nrest: none\n")
    route = parsed.statements[0]
    assert isinstance(route, RouteStatement)
    call = route.losses[0].value
    assert isinstance(call, Call)
    assert (call.place.line, call.place.column, call.place.end_line, call.place.end_column) == (3, 22, 4, 16)
    argument = call.arguments[1]
    assert (argument.place.line, argument.place.column) == (4, 7)
    assert route.text == "key when correct"
    assert route.losses[0].text == "fkl(w=1, warmup=3)"


def test_keywords_are_names_where_no_keyword_can_stand() -> None:
    assert messages("teacher when = self(frozen)\nkey: fkl(teacher=when, spans=let)") == []


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("10%", 10, Unit.PERCENT),
        ("10 %", 10, Unit.PERCENT),
        ("30 steps", 30, Unit.STEPS),
        ("1 step", 1, Unit.STEPS),
        ("2e6 tokens", 2e6, Unit.TOKENS),
        (".5", 0.5, Unit.NONE),
        ("3.", 3, Unit.NONE),
    ],
)
def test_numbers(text: str, value: float, unit: Unit) -> None:
    route = parse_source("x", f"key: fkl(warmup={text})").statements[0]
    assert isinstance(route, RouteStatement)
    call = route.losses[0].value
    assert isinstance(call, Call)
    number = call.arguments[0].value
    assert isinstance(number, Number)
    assert (number.value, number.unit, number.text) == (value, unit, text)


def test_comments_and_strings() -> None:
    parsed = parse_source("x", 'teacher = model("a#b")  # c # d\n')
    assert parsed.diagnostics == ()
    assert [comment.text for comment in split_lines('a("#")  # c # d').comments] == ["# c # d"]


# ------------------------------------------------------------------------------------------------------------ recovery


def test_a_broken_line_neither_hides_nor_invents_errors() -> None:
    text = "key: fkl(w=1\nrest: grpo()\nlet x == 2\nspans a, b\n"
    parsed = parse_source("x", text)
    assert [(found.place.line, found.place.column) for found in parsed.diagnostics] == [(1, 9), (3, 7)]
    assert isinstance(parsed.statements[1], RouteStatement)
    assert isinstance(parsed.statements[3], SpansStatement)


def test_arguments_at_the_margin_do_not_end_a_statement() -> None:
    assert messages("key: fkl(\nteacher=big,\nw=1\n)\nrest: none") == []


def test_a_broken_statement_keeps_the_names_it_declares() -> None:
    parsed = parse_source("x", "teacher big = model(\nlet kl = = 2\nspans key(cap=), error\n")
    broken = [s for s in parsed.statements if isinstance(s, BrokenStatement)]
    assert [s.declares for s in broken] == [("big",), ("kl",), ("key", "error")]


def test_a_continuation_outside_brackets_is_one_error() -> None:
    (found,) = messages("key: fkl() +\n    grpo()\nrest: none")
    assert found[:2] == (1, 13)
    assert "line 2 looks like the rest of it" in found[3]
    (found,) = messages("key: fkl()\n    + grpo()\nrest: none")
    assert found[0] == 2
    assert "only inside brackets" in found[2]


# ------------------------------------------------------------------------------------------------------------ messages


# A too deep expression X in every statement that has one.
DEEP = (
    "spans key(cap=X)",
    "teacher = self(sync=X)",
    "advantage = group(center=X)",
    "rollouts more = policy(n=X)",
    "key when X > 0: none",
    "key: fkl(w=1) + grpo(w=X)",
)


@pytest.mark.parametrize(
    ("text", "column", "message", "fix"),
    [
        ("key fkl()", 5, "missing `:` before `fkl`", "write `: fkl`"),
        ("key: 0.5*fkl()", 6, "a loss is not multiplied from outside", "put the weight inside: fkl(w=0.5)"),
        ("key: fkl()*0.5", 11, "a loss is not multiplied from outside", "w=0.5"),
        ("key: kl*fkl()", 8, "a loss is not multiplied from outside", "fkl(w=kl)"),
        ("key: fkl(w=1", 9, "this bracket is never closed", "close it with `)`"),
        ("key when x = 1: fkl()", 12, "`=` gives a name its value", "write `==`"),
        ("let a == 3", 7, "`==` compares", "write `=`"),
        ("key when a && b: fkl()", 12, "`&&` is written `and`", "write `and`"),
        ("key when a || b: fkl()", 12, "`||` is written `or`", "write `or`"),
        ("key when a | b: fkl()", 12, "`|` joins labels", "write `or`"),
        ("key when !a: fkl()", 10, "`!` is written `not`", "write `not`"),
        ("rest: grpo(topk: 100)", 16, "arguments are written with `=`, not `:`", "write `topk=100`"),
        ("key correct: fkl()", 5, "`correct` stands where `when` or `:`", "write `when correct`"),
        ("key if correct: fkl()", 5, "`if` is written `when`", "write `when`"),
        ("key when correct wrong: none", 18, "follows a complete predicate", "`and` or `or`"),
        ("key = fkl()", 5, "`key =` is no statement", "write `key: fkl...`"),
        ("key:", 5, "a loss is missing after `:`", "none"),
        ("key", 4, "the route `key` has no losses", "add `: LOSS`"),
        ("key, error: fkl()", 4, "joined by `|`", "write `|`"),
        ("spans: fkl()", 6, "`spans` starts a statement", "something else"),
        ("key: fkl(warmup=10 epochs)", 20, "`epochs` is no unit", "10%"),
        ("key when 1 < a < 3: none", 16, "comparisons do not chain", "and"),
        ("123: fkl()", 1, "no statement starts with `123`", "a label"),
        ("key: fkl(w=)", 12, "a value is missing after `=`", "give a number"),
        ("key: fkl(w=1 warmup=3)", 14, "missing `,`", "commas"),
        ("key: fkl())", 11, "`)` closes no bracket", "take it out"),
        ("key: fkl() grpo()", 12, "missing `+`", "`+`"),
        ("key: fkl(), grpo()", 11, "added, not listed", "`+`"),
        ("key: fkl() - grpo()", 12, "no minus", "w=-1.0"),
        ("key: fkl(w=[1])", 12, "round brackets", "`(`"),
        ('teacher = "x', 11, "never closed on its line", '"'),
        ("teacher = model('x')", 17, "double quotes", '"'),
        ("let a = b ** 2", 11, "no power operator", "exp"),
        ("advantage group", 11, "missing `=`", "= group"),
        ("extends foo", 9, '"quoted" path', ""),
        ("spans a b", 9, "missing `,`", "labels"),
        ("let x = " + "(" * 33 + "1" + ")" * 33, 1, "brackets are nested 33 deep", "let"),
        ("let x = " + "-" * 60 + "1", 1, "more than 60 operations deep", "let"),
        *((text.replace("X", "-" * 60 + "1"), 1, "more than 60 operations deep", "let") for text in DEEP),
    ],
)
def test_messages_for_people(text: str, column: int, message: str, fix: str) -> None:
    (found,) = messages(text)
    assert found[:2] == (1, column)
    assert message in found[2]
    assert fix in found[3]


# ------------------------------------------------------------------------------------------------------------ garbage


# Calls of Python functions while a text is judged: those for any text (what is imported at first included), and a bound
# of those for each character. The worst of the texts below takes 24.
CALLS_BEFORE, CALLS_A_CHARACTER = 20_000, 50


@pytest.mark.parametrize(
    "text",
    [
        "let x = " + "(" * 5000 + "1" + ")" * 5000,
        "let x = " + "-" * 5000 + "1",
        "let x = " + "+".join(["1"] * 5000),
        "let x = " + "not " * 5000 + "p",
        "let x0 = step\n" + "".join(f"let x{i + 1} = x{i} + x{i}\n" for i in range(60)) + "rest: grpo(w=x60)",
        "rest: " + "+".join(["grpo()"] * 2000),
        "let x0 = step\n" + "".join(f"let x{i + 1} = x{i} + 1\n" for i in range(3000)) + "rest: grpo(w=x3000)",
        "key: fkl(" * 300,
        "\x00\x1b[31m",
        "let x = 1e999",
        "let x = 1e300*1e300",
        "key: fkl(warmup=1e999 steps)",
        "key: fkl(warmup=1e999, anneal=cos(1e999%), topk=1e999)",
        "key: grpo(w=exp(10000))",
        "\ufeffrest: grpo()",
        "a" * 30_000,
    ],
)
def test_deep_or_strange_text_is_a_finding_not_a_crash(text: str) -> None:
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        lint_text(text)
    finally:
        sys.setprofile(None)
    assert calls < CALLS_BEFORE + CALLS_A_CHARACTER * len(text)


_PIECES = [
    *TRACE.replace("(", " ( ").replace(")", " ) ").replace("=", " = ").split(),
    *[
        "(",
        ")",
        ",",
        ":",
        "|",
        "=",
        "==",
        "+",
        "-",
        "*",
        "/",
        "<",
        "%",
        '"',
        "'",
        "#",
        "\n",
        "\t",
        "&",
        "[",
        "{",
        ".",
        "1e9",
        "2",
        "0.5",
        "when",
        "and",
        "or",
        "not",
        "rest",
        "none",
        "steps",
        "tokens",
        "let",
    ],
    *[
        "extends",
        "spans",
        "rollouts",
        "policy",
        "cached",
        "rows",
        "source",
        "tool",
        "mean",
        "over",
        "batch",
        "row",
        "latch",
        "schedule",
        "jsd",
        "mix",
        "gap",
    ],
    "# trace: ignore[",
    "# trace: ignore[zero-weight] x",
]


@settings(max_examples=150)
@given(st.data())
def test_mutated_text_never_crashes_the_linter(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([TRACE, SHORTEST]))
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        piece = data.draw(st.one_of(st.sampled_from(_PIECES), st.text(max_size=4)))
        text = text[:start] + piece + text[end:]
    result = lint_text(text)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for found in result.diagnostics:
        assert 1 <= found.place.line <= len(lines)
        assert 1 <= found.place.column <= len(lines[found.place.line - 1]) + 1


@settings(max_examples=100)
@given(st.lists(st.sampled_from(_PIECES), max_size=25))
def test_words_of_the_language_in_any_order_never_crash_the_linter(pieces: list[str]) -> None:
    lint_text(" ".join(pieces))
