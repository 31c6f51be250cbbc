"""The page about the word below the pointer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.language import facts
from tests.lsp import document, text_at, with_cursor
from trace_dsl.explain.pages import Example, rule_pages
from trace_dsl.lsp.document import Surroundings
from trace_dsl.lsp.hover import hover

SPEC = """\
# \N{GRINNING FACE}
spans   key(cap=25%), error
teacher = self(sync=10, sees=diagnosis)
teacher big = model("x")
rollouts hinted = policy(sees=solution, when=all_wrong, n=2)
advantage = group(scale=none)
let kl = schedule(0.5, warmup=10, anneal=linear(30))

key when correct and source == tool: fkl(w=kl, teacher=big, per=const(9)) + grpo(w=1 - kl/0.5)
error when rows == hinted: nll(w=where(has(solution), mean(gap(big), over=row), 0))
rest: entropy(w=entropy, floor=0.1, anneal=cos) + k3(ref)  # trace: ignore[zero-weight, hard-pclip] a test
"""


def page(text: str, **options: object) -> str:
    spec, position = with_cursor(text)
    found = hover(spec, position)
    return "" if found is None else found.contents.value  # type: ignore[union-attr]  # always Markdown here


def over(word: str, after: str = "") -> str:
    """The page of a word of SPEC, of its first occurrence behind `after`."""
    at = SPEC.index(word, SPEC.index(after))
    return page(f"{SPEC[: at + 1]}\u2038{SPEC[at + 1 :]}")


@pytest.mark.parametrize(
    ("word", "after", "words"),
    [
        ("spans", "", "**spans** — statement"),
        ("key", "spans", "**key** — span label, cap=25%"),
        ("error", "spans", "**error** — span label, no cap"),
        ("cap", "", "the largest part of one response"),
        (
            "teacher",
            "",
            "```\n\nthe policy's weights, copied every 10 steps, sees diagnosis",
        ),
        ("sync", "", "**sync** — argument, of teacher"),
        ("self", "", "**teacher** — statement"),
        ("diagnosis", "", "**sees** — argument, of teacher"),
        ("big", "", 'teacher big = model("x", sees=nothing)'),
        ("hinted", "", "rollouts hinted = policy(sees=solution, when=all_wrong, n=2)"),
        ("when", "rollouts", "**when** — argument, of rollouts"),
        ("all_wrong", "", "**all_wrong** — signal, group rank"),
        ("scale", "", "**scale** — argument, of advantage"),
        ("none", "", "**scale** — argument, of advantage"),
        ("let", "", "**let** — statement"),
        ("kl", "let", "0.5 until step 10 -> 0 @ step 40"),
        ("schedule", "let", "**schedule** — function"),
        ("warmup", "let", "**warmup** — argument, of every loss"),
        ("linear", "let", "**anneal** — argument, of every loss"),
        ("when", "key when", "**route** — statement"),
        ("correct", "key when", "**correct** — signal, row rank"),
        ("tool", "", "**source** — signal, token rank"),
        ("fkl", "", "KL(teacher || student)\n```\n\nweight `schedule(0.5, warmup=10, anneal=linear(30))`"),
        ("w", "fkl(", "**w** — argument, of every loss"),
        ("kl", "w=kl", "**kl** — let"),
        ("teacher", "fkl(", "**teacher** — argument, of fkl, rkl, jsd, skl, srkl"),
        ("big", "fkl(", "**big** — teacher"),
        ("const", "", "**per** — argument, of every loss"),
        ("grpo", "", "0 until step 10 -> 1 @ step 40"),
        ("rows", "error when", "**route** — statement"),
        ("hinted", "error when", "**hinted** — rollouts"),
        ("where", "", "**where** — function"),
        ("solution", "has(", "**has** — function"),
        ("gap", "", "**gap** — signal, token rank"),
        ("big", "gap(", "**big** — teacher"),
        ("over", "gap(", "**mean** — function"),
        ("entropy", "rest", "**entropy** — loss"),
        ("entropy", "w=entropy", "**entropy** — signal"),
        ("rest", "rest:", "**route** — statement"),
        ("ref", "k3", "**to** — argument, of k3"),
        ("zero-weight", "ignore", "**zero-weight** — rule, warning"),
        ("hard-pclip", "ignore", "**hard-pclip** — rule, warning"),
    ],
)
def test_pages(word: str, after: str, words: str) -> None:
    assert words in over(word, after)


def test_pages_are_those_of_explain() -> None:
    told = over("hard-pclip", "ignore")
    for part in rule_pages()["hard-pclip"].parts:
        assert part.text in told
        assert not isinstance(part, Example) or f"```trace\n{part.text}\n```" in told


@pytest.mark.parametrize("text", ["# co‸mment", 'teacher = model("ke‸y")', "rest: grpo(w=3‸0)", "rest: gr‸po_("])
def test_where_there_is_nothing_to_say(text: str) -> None:
    assert page(text) == ""


def test_a_line_that_does_not_parse_has_pages_too() -> None:
    assert "**sees** — argument" in page("teacher = self(sync=10, se‸es=\nrest: grpo()\n")
    assert "**fkl** — loss" in page("key fk: fk‸l(w=\n".replace("key fk", "key"))
    assert "**kl** — let" in page("let kl = 1\nrest: grpo(w=k‸l +\n")


def test_the_range_is_the_word_in_utf_16() -> None:
    spec, position = with_cursor('teacher = model("\N{GRINNING FACE}\N{SNAKE}", s\u2038ees=nothing)\nrest: fkl()\n')
    found = hover(spec, position)
    assert found is not None
    assert found.range is not None
    assert text_at(spec, found.range) == "sees"


def test_a_let_that_is_no_value_or_has_an_error_shows_what_is_written_alone() -> None:
    for value in ("(0.2, 0.28)", "30 steps", '"text"', "rewrd * 2"):
        assert page(f"let a‸ = {value}\nrest: grpo(clip=a)\n") == f"**a** — let\n\n```trace\nlet a = {value}\n```"


def test_values_over_a_run_are_those_of_its_length() -> None:
    text = "let kl = schedule(1, warmup=10%, anneal=cos)\nrest: grpo(w=kl)\n"
    spec = document(text, around=Surroundings(facts=facts(total_steps=100)))
    found = hover(spec, spec.lines.position(1, 5))
    assert found is not None
    told = found.contents.value  # type: ignore[union-attr]
    assert "1 until step 10 -> 0 @ step 100" in told
    assert (
        "| step 0 | step 5 | step 10 | step 55 | step 99 |\n| --- | --- | --- | --- | --- |\n| 1 | 1 | 1 | 0.5 |"
        in told
    )
    assert "| 0% | 25% | 50% | 75% | 100% |" in page("let kl = schedule(1, anneal=cos)\nrest: grpo(w=k‸l)\n")


def test_the_teacher_of_a_spec_without_one() -> None:
    told = page("key: fkl(teacher=teac‸her, anneal=cos)\nrest: grpo()\n")
    assert "self(sync=10, sees=diagnosis)" in told
    assert "No statement declares it" in told


def test_names_of_an_extended_spec(tmp_path: Path) -> None:
    (tmp_path / "base.trace").write_text("# base\nlet kl = schedule(1, anneal=linear(5))\nrest: grpo(w=kl)\n")
    spec, position = with_cursor('extends "base.trace"\nkey: nll(w=k‸l)\n', path=tmp_path / "child.trace")
    found = hover(spec, position)
    assert found is not None
    told = found.contents.value  # type: ignore[union-attr]
    assert "let kl = schedule(1, anneal=linear(5))" in told
    assert "1 -> 0 @ step 5" in told
