"""How findings are shown."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from trace_dsl.lint import LintResult, lint_file, lint_text
from trace_dsl.report import as_json, concise, full, print_full, render, summary

SHADOWED = "rest: grpo()\nkey when correct: nll()\n"


def blocks(text: str) -> list[str]:
    return [block.plain for block in full(lint_text(text, path="a.trace"))]


def printed(result: LintResult, **options: object) -> str:
    stream = io.StringIO()
    print_full((result,), Console(file=stream, **options))  # type: ignore[arg-type]  # options of one call below
    return stream.getvalue()


def test_full_shows_line_place_other_place_cost_and_fix() -> None:
    (block,) = blocks(SHADOWED)
    assert block == (
        "error[shadowed-route]: no token reaches `key when correct`: `rest` takes them all\n"
        " --> a.trace:2:1\n"
        "  |\n"
        "2 | key when correct: nll()\n"
        "  | ^^^^^^^^^^^^^^^^^^^^^^^\n"
        " ::: a.trace:1:1: `rest` comes first\n"
        "  |\n"
        "1 | rest: grpo()\n"
        "  | ^^^^^^^^^^^^\n"
        "  = cost: the first route that matches wins, so the losses written here would never train anything\n"
        "  = fix: move it above the other, or give the other a predicate"
    )


@pytest.mark.parametrize(
    ("text", "line", "underline"),
    [
        ("rest: grpo(w=rewrd)", "rest: grpo(w=rewrd)", "             ^^^^^"),
        ("rest:\tgrpo(w=rewrd)", "rest:\tgrpo(w=rewrd)", "     \t       ^^^^^"),
        ('teacher = model("漢字", seees=no)\nrest: none', 'teacher = model("漢字", seees=no)', " " * 24 + "^^^^^"),
        ("rest: grpo(w=fkl(\n  1))", "rest: grpo(w=fkl(", "             ^^^^"),
        ("key", "key", "   ^"),
        ("rest: grpo()\x1b[31m", "rest: grpo()\N{REPLACEMENT CHARACTER}[31m", "            ^"),
    ],
)
def test_the_underline_stands_below_its_place(text: str, line: str, underline: str) -> None:
    rows = blocks(text)[0].split("\n")
    assert rows[3] == f"1 | {line}"
    assert rows[4] == f"  | {underline}"


def test_line_numbers_line_up() -> None:
    block = blocks("\n" * 9 + "rest: grpo(w=rewrd)\n")[0]
    assert "\n  --> a.trace:10:14\n   |\n10 | rest" in block


def test_concise_is_one_line_a_finding() -> None:
    assert list(concise(lint_text(SHADOWED, path="a.trace"))) == [
        "a.trace:2:1: error[shadowed-route] no token reaches `key when correct`: `rest` takes them all"
    ]


def test_json_has_every_field() -> None:
    (found,) = json.loads(as_json([lint_text(SHADOWED, path="a.trace")]))
    assert found["others"] == [{"path": "a.trace", "line": 1, "column": 1, "note": "`rest` comes first"}]
    assert {key: found[key] for key in ("path", "line", "column", "end_line", "end_column", "severity", "rule")} == {
        "path": "a.trace",
        "line": 2,
        "column": 1,
        "end_line": 2,
        "end_column": 24,
        "severity": "error",
        "rule": "shadowed-route",
    }
    assert found["message"]
    assert found["consequence"]
    assert found["fix"]


def test_summary_counts() -> None:
    clean = lint_text("rest: grpo()")
    assert summary((clean,)) == "1 spec checked, nothing found"
    wrong = lint_text(SHADOWED + "let a = 1")
    assert summary((clean, wrong)) == "2 specs checked: 1 error, 1 warning"


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    result = lint_text(SHADOWED)
    assert "\x1b[" not in printed(result)
    assert "\x1b[1;31m" in printed(result, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in printed(result, force_terminal=True, color_system="standard")


def test_square_brackets_of_a_spec_are_no_markup() -> None:
    assert "[bold]" in printed(lint_text("rest: grpo(w=[bold])"))


def test_long_lines_are_not_folded() -> None:
    text = "rest: grpo(w=" + "1 + " * 60 + "rewrd)"
    assert text in printed(lint_text(text), width=40)


def test_render_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    path.write_text(SHADOWED, encoding="utf-8")
    assert "2 | key when correct: nll()" in render(lint_file(path).errors, path)
