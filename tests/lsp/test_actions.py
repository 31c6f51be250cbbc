"""Formatting and quick fixes: what an editor would have in its buffer afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lsprotocol import types

from tests.language import TRACE
from tests.lsp import WHOLE, applied, document
from trace_dsl.format import format_source
from trace_dsl.lint import lint_text
from trace_dsl.lsp.actions import actions
from trace_dsl.lsp.document import Document
from trace_dsl.lsp.edits import edits_to, formatting
from trace_dsl.syntax import parse_source

FIX_ALL = types.CodeActionKind.SourceFixAll.value
UGLY = "key :nll( )  # \N{GRINNING FACE}\nrest:   grpo(clip=(.2,0.28))\n"
PRETTY = "key:  nll()  # \N{GRINNING FACE}\nrest: grpo(clip=(0.2, 0.28))\n"


# ----------------------------------------------------------------------------------------------------------- formatting


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_formatting_is_that_of_fmt_with_the_line_ends_of_the_document(end: str) -> None:
    spec = document(UGLY.replace("\n", end))
    assert applied(spec, formatting(spec)) == PRETTY.replace("\n", end)
    assert formatting(document(PRETTY.replace("\n", end))) == []


@pytest.mark.parametrize("text", ["key :nll(\nrest: grpo()\n", "key\n", "  )\n"])
def test_what_does_not_parse_is_not_formatted(text: str) -> None:
    assert formatting(document(text)) == []


def test_a_spec_with_errors_that_parses_is_formatted() -> None:
    text = "rest :grpo(w=rewrd)  # trace: ignore[zero-weight]"
    spec = document(text)
    assert applied(spec, formatting(spec)) == format_source(parse_source("", text))


@given(st.text(alphabet="ab\n\r\N{GRINNING FACE}", max_size=12), st.text(alphabet="ab\n\N{GRINNING FACE}", max_size=12))
@settings(max_examples=300)
def test_edits_make_any_text_of_any_other(old: str, new: str) -> None:
    spec = document(old)
    edits = edits_to(spec, new)
    assert applied(spec, edits) == new.replace("\n", spec.line_end) if edits else spec.text == new
    assert len(edits) <= 1


# ---------------------------------------------------------------------------------------------------------- quick fixes


def offered(spec: Document, *only: str) -> dict[str, types.CodeAction]:
    return {action.title: action for action in actions(spec, WHOLE, tuple(only))}


def after(spec: Document, title: str) -> str:
    action = offered(spec)[title]
    assert action.edit is not None
    assert action.edit.changes is not None
    (edits,) = action.edit.changes.values()
    return applied(spec, list(edits))


def test_the_word_that_was_meant() -> None:
    spec = document('teacher = model("\N{GRINNING FACE}", seees=nothing)\nrest: fkl(aneal=cos) + gRPO()\n')
    assert after(spec, "write `sees`").split("\n")[0] == 'teacher = model("\N{GRINNING FACE}", sees=nothing)'
    assert "fkl(anneal=cos)" in after(spec, "write `anneal`")
    assert "+ grpo()" in after(spec, "write `grpo`")
    action = offered(spec)["write `anneal`"]
    assert action.is_preferred
    assert action.diagnostics is not None
    assert action.diagnostics[0].code == "unknown-argument"


def test_a_rule_that_an_ignore_comment_misspells() -> None:
    spec = document("rest: grpo(w=0)  # trace: ignore[hard-pclip , zero-wait] why\n")
    assert after(spec, "write `zero-weight`") == "rest: grpo(w=0)  # trace: ignore[hard-pclip , zero-weight] why\n"


@pytest.mark.parametrize(
    ("text", "title", "result"),
    [
        ("let a = 1  # x\nrest: grpo()\n", "take out `let a = 1  # x`", "rest: grpo()\n"),
        ("rest: grpo()\r\nlet a = 1", "take out `let a = 1`", "rest: grpo()"),
        ("rest: grpo()  # trace: ignore[zero-weight] x", "take out `# trace: ignore[zero-weight] x`", "rest: grpo()"),
        ('teacher a = model("x")\nrest: grpo()\n', 'take out `teacher a = model("x")`', "rest: grpo()\n"),
    ],
)
def test_what_is_unused_is_taken_out(text: str, title: str, result: str) -> None:
    assert after(document(text), title) == result


def test_everything_unused_at_once() -> None:
    spec = document("let a = 1\nlet b = a\nrest: grpo()\n")
    assert after(spec, "take out what nothing uses") == "rest: grpo()\n"
    assert set(offered(spec, FIX_ALL)) == {"take out what nothing uses"}
    assert offered(document(TRACE), FIX_ALL) == {}


def test_nothing_is_taken_out_while_its_meaning_is_not_known() -> None:
    assert not any(title.startswith("take out") for title in offered(document("let a = 1\nrest: grpo(w=rewrd)\n")))


def test_nothing_is_taken_out_of_a_spec_that_another_extends(tmp_path: Path) -> None:
    text = "let a = 1\nrest: grpo()\n"
    path = tmp_path / "base.trace"
    path.write_text(text, encoding="utf-8")
    assert "take out `let a = 1`" in offered(document(text, path=path))
    (tmp_path / "other.trace").write_bytes(b"\xff")
    assert set(offered(document(text, path=path))) == {"ignore unused-let on this line"}
    (tmp_path / "other.trace").write_text('extends "base.trace"\nkey: nll(w=a)\n', encoding="utf-8")
    assert set(offered(document(text, path=path))) == {"ignore unused-let on this line"}


@pytest.mark.parametrize(
    ("text", "title", "result"),
    [
        ("rest: grpo(w=0)   \n", "", "rest: grpo(w=0)  # trace: ignore[zero-weight] \n"),
        (
            "rest: grpo(w=0)  #  an ablation\n",
            ", its comment being the reason",
            "rest: grpo(w=0)  # trace: ignore[zero-weight] an ablation\n",
        ),
        (
            "rest: grpo(w=0)  # trace: ignore[hard-pclip] why\n",
            "",
            "rest: grpo(w=0)  # trace: ignore[hard-pclip, zero-weight] why\n",
        ),
        ("rest: grpo(w=0)  # trace: ignore[]\n", "", "rest: grpo(w=0)  # trace: ignore[zero-weight]\n"),
        ("rest: grpo(\n  w=0)\n", "", "rest: grpo(  # trace: ignore[zero-weight] \n  w=0)\n"),
    ],
)
def test_ignoring_a_rule_on_its_line(text: str, title: str, result: str) -> None:
    spec = document(text)
    assert after(spec, f"ignore zero-weight on this line{title}") == result
    # without a reason the linter does not accept the comment; with one it does
    rules = {found.rule for found in lint_text(result).diagnostics}
    assert ("bad-suppression" in rules) == result.rstrip().endswith(("]", "w=0)"))
    with_reason = result.replace("weight] \n", "weight] a reason\n").replace("weight]\n", "weight] a reason\n")
    assert {found.rule for found in lint_text(with_reason).diagnostics} <= {"unused-suppression"}


def test_what_cannot_be_ignored_is_not_offered() -> None:
    for text in (
        "rest: grpo(w=rewrd_)\n",
        "rest: grpo()  # trace: ignore[zero-weight] old\n",
        "rest: grpo(w=0)# trace: x\n",
    ):
        assert not any(title.startswith("ignore") for title in offered(document(text)))


def test_only_what_is_asked_for_and_where() -> None:
    spec = document("let a = 1\nrest: grpo(w=0)\n")
    assert set(offered(spec, types.CodeActionKind.Refactor.value)) == set()
    assert set(offered(spec, types.CodeActionKind.Source.value)) == {"take out what nothing uses"}
    line = types.Range(types.Position(1, 12), types.Position(1, 12))
    assert [action.title for action in actions(spec, line, (types.CodeActionKind.QuickFix.value,))] == [
        "ignore zero-weight on this line"
    ]


def test_findings_of_an_extended_spec_are_not_mended_here(tmp_path: Path) -> None:
    (tmp_path / "base.trace").write_text("let a = 1\nrest: grpo(w=0)\n", encoding="utf-8")
    spec = document('extends "base.trace"\nkey: nll()\n', path=tmp_path / "child.trace")
    assert spec.result.diagnostics
    assert offered(spec) == {}
