"""What a message says to write is right: the spec with it has no errors, and is the one that was meant."""

from __future__ import annotations

import pytest

from trace_dsl.lint import lint_text, parse_spec


def assert_mended(text: str, fix: str, mended: str) -> None:
    """The errors of `text` say `fix`, and `mended`, where it is written, has none and lints no worse."""
    fixes = [found.fix for found in parse_spec(text)[1]]
    assert any(fix in one for one in fixes), fixes
    assert [found.message for found in lint_text(mended).errors] == []


@pytest.mark.parametrize(
    ("text", "fix", "mended"),
    [
        ("rest: grpo(clip=3e-4, 4e-4)", "write clip=(3e-4, 4e-4)", "rest: grpo(clip=(3e-4, 4e-4))"),
        ("rest: grpo(clip=0.2, 0.28)", "write clip=(0.2, 0.28)", "rest: grpo(clip=(0.2, 0.28))"),
        ("rest: grpo(clip=20%, 28%)", "write clip=(20%, 28%)", "rest: grpo(clip=(20%, 28%))"),
        ("rest: grpo(0.2, 0.28)", "write clip=(0.2, 0.28)", "rest: grpo(clip=(0.2, 0.28))"),
        ("rest: grpo((0.2, 0.28))", "grpo(clip=(0.2, 0.28))", "rest: grpo(clip=(0.2, 0.28))"),
        ("rest: grpo(token)", "grpo(per=token)", "rest: grpo(per=token)"),
        ("rest: pg(A)", "pg(adv=A)", "rest: pg(adv=A)"),
        (
            "rest: grpo(w=schedule(0.5, 10, 30))",
            "schedule(anneal=linear(30))",
            "rest: grpo(w=schedule(0.5, warmup=10, anneal=linear(30)))",
        ),
        (
            'teacher big = model("m")\nrest: fkl(big)',
            "fkl(teacher=big)",
            'teacher big = model("m")\nrest: fkl(teacher=big)',
        ),
        (
            "rest: rkl(ref, w=0.001)",
            "`teacher ref = self(frozen)`",
            "teacher ref = self(frozen)\nrest: rkl(teacher=ref, w=0.001)",
        ),
        (
            "teacher start = self(frozen)\nrest: rkl(ref, w=0.001)",
            "write rkl(teacher=start, w=0.001)",
            "teacher start = self(frozen)\nrest: rkl(teacher=start, w=0.001)",
        ),
        (
            "rest: rkl(teacher=ref, w=0.001)",
            "add `teacher ref = self(frozen)`",
            "teacher ref = self(frozen)\nrest: rkl(teacher=ref, w=0.001)",
        ),
        ("spans key(25)\nkey: none\nrest: grpo()", "key(cap=25%)", "spans key(cap=25%)\nkey: none\nrest: grpo()"),
        ("spans key(25%)\nkey: none\nrest: grpo()", "key(cap=25%)", "spans key(cap=25%)\nkey: none\nrest: grpo()"),
        ("spans key(0.25)\nkey: none\nrest: grpo()", "key(cap=25%)", "spans key(cap=25%)\nkey: none\nrest: grpo()"),
        ("teacher = self(10)\nrest: rkl()", "self(sync=10)", "teacher = self(sync=10)\nrest: rkl()"),
        ("teacher = self(sync=1, solution)\nrest: grpo()", "self(sees=solution)", "rest: grpo()"),
        ("advantage = group(none)\nrest: grpo()", "group(scale=none)", "advantage = group(scale=none)\nrest: grpo()"),
    ],
)
def test_arguments_without_a_name(text: str, fix: str, mended: str) -> None:
    assert_mended(text, fix, mended)


@pytest.mark.parametrize("text", ["rest: grpo(w=1, clip=0.2, 3, 4)", "rest: nll(w=1, 2)", "rest: grpo(0.5, w=1)"])
def test_an_argument_that_is_given_is_never_offered(text: str) -> None:
    assert all("(w=" not in found.fix for found in parse_spec(text)[1])


@pytest.mark.parametrize(
    ("text", "fix", "mended"),
    [
        (
            "teacher = self(sync=1, sees=(feedback, solution))\nrest: grpo()",
            "write one word: sees=feedback or sees=solution",
            "teacher = self(sync=1, sees=feedback)\nrest: rkl(anneal=cos)",
        ),
        (
            "teacher = self(sync=1, sees=feedback+solution)\nrest: grpo()",
            "sees=feedback or sees=solution",
            "rest: none",
        ),
        (
            "teacher = self(sync=1, sees=[feedback, solution])\nrest: none",
            "sees=feedback or sees=solution",
            "rest: none",
        ),
        ("teacher = self(frozen=true)\nrest: rkl()", "`frozen` without", "teacher = self(frozen)\nrest: rkl()"),
        ("teacher = self(frozen=frozen)\nrest: rkl()", "`frozen` without", "teacher = self(frozen)\nrest: rkl()"),
        ("teacher = self(frozen=false)\nrest: rkl()", "sync=10", "teacher = self(sync=10)\nrest: rkl()"),
        ("rest: grpo(clip=20)", "write clip=20%", "rest: grpo(clip=20%)"),
        ("rest: grpo(clip=(20, 28))", "clip=(20%, 28%)", "rest: grpo(clip=(20%, 28%))"),
        ("rest: grpo(tis=True)", "write tis=2", "rest: grpo(tis=2)"),
        (
            "rest: grpo(beta=0.04)",
            "grpo(...) + rkl(teacher=ref, w=0.04), with the line `teacher ref = self(frozen)`",
            "teacher ref = self(frozen)\nrest: grpo() + rkl(teacher=ref, w=0.04)",
        ),
        ("rest when is_correct == True: grpo()", "write `correct`", "rest when correct: grpo()"),
        ("rest when 0 == passed: grpo()", "write `not correct`", "rest when not correct: grpo()"),
        ("rest when pos > 50%: grpo()", "pos > 0.5*len", "rest when pos > 0.5*len: grpo()"),
        ("rest when pos > 120%: grpo()", "such as 1.2", "rest: grpo()"),
        ("rest when 80% < len: none", "quantile(len, 80%", "rest when len > quantile(len, 80%, over=batch): grpo()"),
        ("rest when turn < 10%: none", "0.1*max(turn", "rest when turn < 0.1*max(turn, over=row): grpo()"),
        ("rest when group_size > 10%: none", "group_size > 4", "rest when group_size > 4: grpo()"),
        ("rest when entropy > 80%: none", "top(entropy, 20%", "rest when top(entropy, 20%, over=batch): grpo()"),
        (
            "rest when entropy <= 20%: none",
            "entropy < quantile(entropy, 20%",
            "rest when entropy < quantile(entropy, 20%, over=batch): grpo()",
        ),
        ("key and correct: nll()", "write `key when correct`", "key when correct: nll()\nrest: none"),
        ("key + not correct: nll()", "write `key when not ...`", "key when not correct: nll()\nrest: none"),
        ("key | correct: nll()", "write `key when correct: ...`", "key when correct: nll()\nrest: none"),
        ("wrong: none", "write `rest when wrong: ...`", "spans wrong\nwrong: none\nrest: grpo()"),
        ("all when correct: grpo()", "did you mean `rest`?", "rest when correct: grpo()"),
    ],
)
def test_values_and_words(text: str, fix: str, mended: str) -> None:
    assert_mended(text, fix, mended)


@pytest.mark.parametrize(
    "text", ["let len = 0.5\nrest when reward > 50%: grpo()", "rest when gap > 50% and reward < 10%: grpo()"]
)
def test_shares_of_what_counts_nothing_are_numbers(text: str) -> None:
    assert [found.rule for found in parse_spec(text)[1] if found.rule == "ambiguous-unit"] == []
