"""What `lint --fix` takes out: nothing that a run, or another spec, could miss."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.language import SHORTEST, TRACE, facts
from trace_dsl.lint import fix_text, lint_text
from trace_dsl.rules import RuleSelection


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("let a = 1  # why\nrest: grpo()\n", "rest: grpo()\n"),
        ("let a = 1\nlet b = a\nrest: grpo()\n", "rest: grpo()\n"),
        ("let a = 1\nlet b = a\nrest: grpo(w=a)\n", "let a = 1\nrest: grpo(w=a)\n"),
        ("# head\nlet a = schedule(\n  1,  # one\n  anneal=cos)\n\nrest: grpo()", "# head\n\nrest: grpo()"),
        ("teacher = self(frozen)\nrest: grpo()\n", "rest: grpo()\n"),
        (
            'teacher big = model("x")\nteacher = self(frozen)\nrest: fkl()\n',
            "teacher = self(frozen)\nrest: fkl()\n",
        ),
        ("# trace: ignore[zero-weight] old\nrest: grpo()\n", "rest: grpo()\n"),
        ("rest: grpo()   # trace: ignore[zero-weight] old\n", "rest: grpo()\n"),
        (
            "rest: grpo(w=0)  # trace: ignore[hard-pclip, zero-weight] an ablation\n",
            "rest: grpo(w=0)  # trace: ignore[zero-weight] an ablation\n",
        ),
        ("rest: grpo(  # trace: ignore[zero-weight] old\n  w=1)\n", "rest: grpo(\n  w=1)\n"),
    ],
)
def test_taken_out(before: str, after: str) -> None:
    fixed = fix_text(before)
    assert fixed.text == after
    assert fixed.removed
    assert fixed.result == lint_text(after)


@pytest.mark.parametrize(
    "text",
    [
        TRACE,
        SHORTEST,
        "key: nll()\n",
        "rest: grpo(w=0)\n",
        "let a = 1\nrest: grpo(w=rewrd)\n",  # errors of the language: what the line means is not known
        "let a = 1\nrest grpo()\n",
        "let a = 1  # trace: ignore[unused-let] kept for an ablation\nrest: grpo()\n",
        "rest: grpo()  # trace: ignore[dead-advantage] judged with a run alone\n",
        "rest: grpo()  # trace: ignore[mixed-denominator] judged when pedantic alone\n",
    ],
)
def test_left_alone(text: str) -> None:
    assert fix_text(text).text == text
    assert fix_text(text).removed == ()


def test_what_one_run_does_not_need_another_may() -> None:
    text = "rest: grpo()  # trace: ignore[dead-advantage] the small run\n"
    assert fix_text(text, facts()).text == text
    assert [found.rule for found in fix_text(text, facts()).result.diagnostics] == ["unused-suppression"]


def test_nothing_is_taken_out_when_something_new_would_be_found(tmp_path: Path) -> None:
    """Without b the base's a would be unused, and that is not for the child to mend."""
    (tmp_path / "base.trace").write_text("let a = 1\nrest: grpo()\n", encoding="utf-8")
    text = 'extends "base.trace"\nlet b = a\nkey: nll()\n'
    fixed = fix_text(text, path=str(tmp_path / "child.trace"))
    assert (fixed.text, fixed.removed) == (text, ())
    assert [found.place.path for found in fixed.result.diagnostics] == [""]


def test_what_stands_in_an_extended_spec_is_not_taken_out(tmp_path: Path) -> None:
    """Nor is what stands on the same line here."""
    base = "let a = 1\nrest: grpo()  # trace: ignore[zero-weight] left over\n"
    (tmp_path / "base.trace").write_text(base, encoding="utf-8")
    text = 'let b = 1  # trace: ignore[unused-let] kept\nextends "base.trace"\nkey: nll()\n'
    fixed = fix_text(text, path=str(tmp_path / "child.trace"))
    assert (fixed.text, fixed.removed) == (text, ())
    assert [found.rule for found in fixed.result.diagnostics] == ["unused-let", "unused-suppression"]


def test_ignored_findings_are_not_fixed() -> None:
    text = "let a = 1\nrest: grpo()\n"
    assert fix_text(text, selection=RuleSelection(ignore=frozenset({"unused-let"}))).text == text


_LINES = (
    "let a = 1",
    "let b = a",
    "let c = schedule(0.5, anneal=linear(30))",
    "teacher = self(sync=5, sees=diagnosis)",
    "teacher big = self(frozen)",
    "key: fkl(w=c, teacher=big)",
    "key when correct: nll(w=b)  # trace: ignore[zero-weight, hard-pclip] x",
    "error: pg(adv=gap(big))",
    "rest: grpo(w=1 - c)",
    "rest: grpo(w=0)  # trace: ignore[zero-weight] y",
    "# trace: ignore[unused-let] z",
    "",
)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(_LINES), max_size=9))
def test_a_fix_changes_no_route_and_adds_no_finding(lines: list[str]) -> None:
    text = "\n".join(lines)
    before, fixed = lint_text(text), fix_text(text)
    assert fixed.result == lint_text(fixed.text)
    found = [(d.rule, d.message) for d in before.diagnostics]
    assert all((d.rule, d.message) in found for d in fixed.result.diagnostics)
    assert fix_text(fixed.text).text == fixed.text
    if before.spec is None:
        assert fixed.text == text
        return
    assert fixed.result.spec is not None

    def routes(spec: object) -> list[object]:
        return [(r.labels, r.when, [(c.kernel, c.weight, c.per) for c in r.channels]) for r in spec.routes]  # type: ignore[attr-defined]

    assert routes(fixed.result.spec) == routes(before.spec)
