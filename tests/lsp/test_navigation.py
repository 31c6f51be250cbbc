"""Where names are given and used, other names for them, the outline, and hints between the words."""

from __future__ import annotations

from pathlib import Path

import pytest
from lsprotocol import types

from tests.language import TRACE, facts
from tests.lsp import WHOLE, applied, document, text_at, with_cursor
from trace_dsl.errors import SpecError
from trace_dsl.lint import parse_spec
from trace_dsl.lsp.course import course
from trace_dsl.lsp.document import Surroundings
from trace_dsl.lsp.hints import hints
from trace_dsl.lsp.navigation import definition, references
from trace_dsl.lsp.outline import outline
from trace_dsl.lsp.rename import rename, renamed_range

SPEC = """\
spans   key, error
teacher big = model("\N{GRINNING FACE}")
rollouts hinted = policy(n=2)
let kl  = 1
let two = 2*kl

key: fkl(teacher=big, w=kl*two) + grpo(w=gap(big)*sequence, per=sequence)  # kl
error | key when rows == hinted: nll(w=kl)
rest: grpo()
"""


def located(text: str, *, path: Path = Path("/nowhere/spec.trace")) -> tuple[str, int, int] | None:
    spec, position = with_cursor(text, path=path)
    found = definition(spec, position)
    return None if found is None else (found.uri, found.range.start.line, found.range.start.character)


def cursor(before: str, after: str, text: str = SPEC) -> str:
    assert before + after in text
    at = text.index(before + after) + len(before)
    return f"{text[:at]}\u2038{text[at:]}"


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ("w=k", "l*", (3, 4)),
        ("2*", "kl", (3, 4)),
        ("kl*two", ")", (4, 4)),
        ("teacher=", "big,", (1, 8)),
        ("gap(b", "ig", (1, 8)),
        ("rows == hint", "ed", (2, 9)),
        ("| k", "ey", (0, 8)),
        ("error", " |", (0, 13)),
        ("let k", "l", (3, 4)),
    ],
)
def test_definitions(before: str, after: str, place: tuple[int, int]) -> None:
    assert located(cursor(before, after)) == ("file:///nowhere/spec.trace", *place)


@pytest.mark.parametrize(
    ("before", "after"), [("per=seq", "uence"), ("re", "st"), ("grp", "o("), ("# k", "l"), ("ga", "p(")]
)
def test_words_of_the_language_have_none(before: str, after: str) -> None:
    assert located(cursor(before, after)) is None


def test_labels_without_a_declaration_and_teachers_without_a_name() -> None:
    assert located("key when correct: nll()\nk‸ey: none\n") == ("file:///nowhere/spec.trace", 0, 0)
    assert located("teacher = self(frozen)\nrest: fkl(teacher=te‸acher)\n") == ("file:///nowhere/spec.trace", 0, 0)
    assert located("rest: fkl(teacher=te‸acher)\n") is None


def test_broken_lines_give_and_use_names_too() -> None:
    assert located("let a = (\nrest: grpo(w=a‸ +\n") == ("file:///nowhere/spec.trace", 0, 4)


def test_definitions_in_extended_specs(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.trace").write_text('teacher b = model("x")\nlet a = 1\n', encoding="utf-8")
    (tmp_path / "base.trace").write_text('# b\nextends "sub/deep.trace"\nlet c = a\nkey: nll()\n', encoding="utf-8")
    path = tmp_path / "child.trace"
    text = 'extends "base.trace"\nlet c = 3\nkey: fkl(teacher=b, w=a*c)\nrest: grpo()\n'
    deep, base = (tmp_path / "sub/deep.trace").as_uri(), (tmp_path / "base.trace").as_uri()
    assert located(cursor('"base', ".trace", text), path=path) == (base, 0, 0)
    assert located(cursor("w=", "a*", text), path=path) == (deep, 1, 4)
    assert located(cursor("teacher=b", ",", text), path=path) == (deep, 0, 8)
    assert located(cursor("a*", "c", text), path=path) == (path.as_uri(), 1, 4)  # the document's own replaces
    assert located('extends "go‸ne.trace"\nrest: grpo()\n', path=path) is None


def test_references() -> None:
    spec, position = with_cursor(cursor("let k", "l"))
    found = references(spec, position, with_definition=True)
    assert [text_at(spec, one.range) for one in found] == ["kl"] * 4
    assert [one.range.start.line for one in found] == [3, 4, 6, 7]
    assert len(references(spec, position, with_definition=False)) == 3
    assert references(spec, types.Position(8, 0), with_definition=True) == []


# --------------------------------------------------------------------------------------------------------------- rename


def renamed(text: str, name: str, *, path: Path = Path("/nowhere/spec.trace")) -> str:
    spec, position = with_cursor(text, path=path)
    assert renamed_range(spec, position)
    changes = rename(spec, position, name).changes
    assert changes is not None
    return applied(spec, list(changes[spec.uri]))


def test_names_are_replaced_everywhere_and_nowhere_else() -> None:
    lets = renamed(cursor("let k", "l"), "weight_of_kl")
    assert lets == SPEC.replace("kl  =", "weight_of_kl  =").replace("2*kl", "2*weight_of_kl").replace(
        "w=kl", "w=weight_of_kl"
    )
    assert renamed(cursor("gap(", "big"), "large") == SPEC.replace("big", "large")
    assert renamed(cursor("rows == ", "hinted"), "other") == SPEC.replace("hinted", "other")
    assert renamed(cursor("spans   ", "key"), "decisive") == SPEC.replace("key", "decisive")
    assert renamed("let a = 1\r\nrest: grpo(w=a‸)\r\n", "b") == "let b = 1\r\nrest: grpo(w=b)\r\n"


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (SPEC.replace("let kl", "let k\u2038l"), "two", "stands in this spec already"),
        (SPEC.replace("let kl", "let k\u2038l"), "key", "stands in this spec already"),
        (SPEC.replace("let kl", "let k\u2038l"), "entropy", "is a word of the language"),
        (SPEC.replace("let kl", "let k\u2038l"), "and", "is a word of the language"),
        ('rollouts o\u2038ld = cached("f")\nrest: grpo()\n', "policy", "there would be new findings: duplicate-name"),
        (SPEC.replace("policy(n", "poli\u2038cy(n"), "x", "only lets, teachers, labels and rollouts"),
        (SPEC.replace("let kl", "let k\u2038l"), "2x", "is no name"),
        (SPEC.replace("let kl", "let k\u2038l"), "a-b", "is no name"),
        (SPEC.replace("let kl", "let k\u2038l") + "error when: nll(\n", "x", "does not parse"),
        ("teacher = self(frozen)\nrest: fkl(teacher=teach\u2038er)\n", "x", "give it one first: teacher NAME = ..."),
        ("re\u2038st: grpo()\n", "x", "only lets"),
    ],
)
def test_what_cannot_be_renamed_says_why(text: str, name: str, words: str) -> None:
    spec, position = with_cursor(text)
    with pytest.raises(SpecError, match=words):
        rename(spec, position, name)


def test_names_that_other_files_know_are_not_renamed(tmp_path: Path) -> None:
    (tmp_path / "base.trace").write_text("let a = 1\nrest: grpo(w=a)\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"base\.trace too, which this spec extends"):
        renamed('extends "base.trace"\nkey: nll(w=a‸)\n', "b", path=tmp_path / "child.trace")
    (tmp_path / "child.trace").write_text('extends "base.trace"\nkey: nll(w=a)\n', encoding="utf-8")
    with pytest.raises(SpecError, match="extends this spec and may use `a`"):
        renamed("let a‸ = 1\nrest: grpo(w=a)\n", "b", path=tmp_path / "base.trace")


# -------------------------------------------------------------------------------------------------------------- outline


def test_the_outline_has_every_statement() -> None:
    spec = document('extends "x.trace"\nadvantage = loo\n' + SPEC + "key when: nll(\nlet broken = (\n")
    found = outline(spec)
    assert [(one.name, one.detail) for one in found] == [
        ('extends "x.trace"', None),
        ("advantage", "loo"),
        ("spans", None),
        ("big", 'model("\N{GRINNING FACE}")'),
        ("hinted", "policy(n=2)"),
        ("kl", "let"),
        ("two", "let"),
        ("key", "fkl(teacher=big, w=kl*two) + grpo(w=gap(big)*sequence, per=sequence)"),
        ("error | key when rows == hinted", "nll(w=kl)"),
        ("rest", "grpo()"),
        ("key", "does not parse"),
        ("broken", "does not parse"),
    ]
    assert [child.name for child in found[2].children or ()] == ["key", "error"]
    for one in found:
        assert (one.range.start.line, one.range.start.character) <= (
            one.selection_range.start.line,
            one.selection_range.start.character,
        )
    assert outline(document("")) == []
    assert all(one.name for one in outline(document(")\n(\n= =\n")))


# ---------------------------------------------------------------------------------------------------------------- hints


def with_hints(text: str, around: Surroundings | None = None) -> str:
    """The text with its hints in place, in angle brackets."""
    spec = document(text, around=around)
    edits = []
    for hint in hints(spec, WHOLE):
        at = types.Range(start=hint.position, end=hint.position)
        label = f" <{hint.label}>" if hint.padding_left else f"<{hint.label}>"
        edits.append(types.TextEdit(range=at, new_text=label))
    return applied(spec, edits)


def test_hints_of_weights_over_the_run() -> None:
    told = with_hints(TRACE).split("\n")
    assert told[4] == (
        "key   when correct: fkl(w=kl, topk=100<, of=teacher>, tail=bucket, per=sequence)"
        " <0.5 until step 10 -> 0 @ step 40> + grpo(w=1 - kl/0.5) <0 until step 10 -> 1 @ step 40>"
    )
    assert told[6] == "rest:               grpo(clip=(0.2, 0.28))"


@pytest.mark.parametrize(
    ("weight", "words", "in_60_steps"),
    [
        ("schedule(1.0, anneal=linear(100))", "1 -> 0 @ step 100", "1 -> 0 @ step 100"),
        ("schedule(1, anneal=cos)", "1 -> 0 @ the end of the run", "1 -> 0 @ step 60"),
        (
            "schedule(1, warmup=10%, anneal=cos, floor=0.1)",
            "1 until 10% of the run -> 0.1 @ the end of the run",
            "1 until step 6 -> 0.1 @ step 60",
        ),
        (
            "schedule(1, start=5, ramp=10, warmup=20, anneal=step(10))",
            "0 until step 5 -> 1 @ step 15 until step 45, then 0",
            "0 until step 5 -> 1 @ step 15 until step 45, then 0",
        ),
        ("schedule(1, start=20)", "0 until step 20, then 1", "0 until step 20, then 1"),
        (
            "schedule(1, warmup=2e6 tokens, anneal=linear(1e6 tokens))",
            "1 until 2e+06 tokens -> 0 @ 3e+06 tokens",
            "1 until 2e+06 tokens -> 0 @ 3e+06 tokens",
        ),
        (
            "schedule(1, warmup=10%, anneal=linear(30))",
            "1 until 10% of the run -> 0 @ step 30 + 10% of the run",
            "1 until step 6 -> 0 @ step 36",
        ),
        ("1/schedule(1, anneal=linear(10))", None, None),
        ("schedule(1, warmup=10)", None, None),
        ("min(step/100, 1)", None, None),
        ("schedule(1, anneal=cos)*schedule(1, anneal=exp)", None, None),
        ("gap*schedule(1, anneal=cos)", None, None),
        ("2", None, None),
    ],
)
def test_courses(weight: str, words: str | None, in_60_steps: str | None) -> None:
    spec, found = parse_spec(f"rest: grpo(w={weight})\n")
    assert spec is not None, found
    expr = spec.routes[0].channels[0].weight
    assert (course(expr), course(expr, 60)) == (words, in_60_steps)


def test_a_run_makes_shares_of_it_steps() -> None:
    text = "rest: grpo(anneal=cos)\n"
    assert with_hints(text) == "rest: grpo(anneal=cos) <1 -> 0 @ the end of the run>\n"
    assert with_hints(text, Surroundings(facts=facts(total_steps=50))) == "rest: grpo(anneal=cos) <1 -> 0 @ step 50>\n"


def test_the_teacher_that_is_read_when_none_is_named() -> None:
    assert with_hints("rest: fkl() + rkl(w=2)\n") == (
        "rest: fkl(<teacher: self(sync=10, sees=diagnosis)>) + rkl(<teacher: self(sync=10, sees=diagnosis), >w=2)\n"
    )
    two = 'teacher = self(frozen)\nteacher big = model("x")\n'
    assert with_hints(f"{two}rest: fkl( w=2) + rkl(teacher=big)\n") == (
        f"{two}rest: fkl( <teacher=teacher, >w=2) + rkl(teacher=big)\n"
    )
    one = "teacher = self(frozen)\nrest: fkl()\n"
    assert with_hints(one) == one


def test_hints_of_a_range_and_of_lines_that_are_right() -> None:
    text = "key: grpo(anneal=cos)\nerror: grpo(aneal=cos)\nrest: nll(anneal=cos\n"
    assert with_hints(text) == text.replace("cos)\nerror", "cos) <1 -> 0 @ the end of the run>\nerror")
    line = types.Range(types.Position(1, 0), types.Position(2, 0))
    assert hints(document(text), line) == []
