"""What a message says to write is right: the spec with it has no errors, and is the one that was meant."""

from __future__ import annotations

import re

import pytest

from tests.language import facts
from trace_dsl.lint import lint_text, parse_spec

SOLUTION = "teacher = self(sync=1, sees=solution)"
_ARGUMENT = re.compile(r"\w+=(?:\([^()]*\)|[\w.%-]+(?:\([^()]*\))?)")


def assert_mended(text: str, fix: str, mended: str) -> None:
    """The errors of `text` say `fix`; `mended`, where what it says stands, is without a finding.

    Of arguments that a fix offers as a choice one stands there.
    """
    fixes = [found.fix for found in parse_spec(text)[1]]
    assert any(fix in one for one in fixes), fixes
    offered = _ARGUMENT.findall(fix)
    stands = [argument in mended for argument in offered]
    assert (any(stands) or not offered) if " or " in fix else all(stands)
    assert [found.message for found in lint_text(mended).diagnostics if found.rule != "no-default-route"] == []


@pytest.mark.parametrize(
    ("text", "fix", "mended"),
    [
        ("rest: grpo(clip=3e-4, 4e-4)", "write clip=(3e-4, 4e-4)", "rest: grpo(clip=(3e-4, 4e-4))"),
        ("rest: grpo(clip=0.2, 0.28)", "write clip=(0.2, 0.28)", "rest: grpo(clip=(0.2, 0.28))"),
        ("rest: grpo(clip=20%, 28%)", "write clip=(20%, 28%)", "rest: grpo(clip=(20%, 28%))"),
        ("rest: grpo(0.2, 0.28)", "write clip=(0.2, 0.28)", "rest: grpo(clip=(0.2, 0.28))"),
        ("rest: grpo((0.2, 0.28))", "grpo(clip=(0.2, 0.28))", "rest: grpo(clip=(0.2, 0.28))"),
        ("rest: grpo(token)", "grpo(per=token)", "rest: grpo(per=token)"),
        ("rest: k3(0.01)", "write k3(ref, w=0.01)", "rest: k3(ref, w=0.01)"),
        ("rest: grpo(w=mean(A, group))", "mean(over=group)", "rest: grpo(w=mean(reward, over=group))"),
        ("rest: grpo(high=0.28)", "clip=(0.2, 0.28)", "rest: grpo(clip=(0.2, 0.28))"),
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
        ("teacher = self(sync=1, solution)\nrest: grpo()", "self(sees=solution)", f"{SOLUTION}\nrest: rkl(anneal=cos)"),
        ("advantage = group(none)\nrest: grpo()", "group(scale=none)", "advantage = group(scale=none)\nrest: grpo()"),
    ],
)
def test_arguments_without_a_name(text: str, fix: str, mended: str) -> None:
    assert_mended(text, fix, mended)


@pytest.mark.parametrize(
    "text",
    [
        "rest: grpo(0.2, 0.28)",
        "rest: grpo(w=1, clip=0.2, 3, 4)",
        "rest: nll(w=1, 2)",
        "rest: grpo(clip=0.2, 0.3, 3)",
        "rest: grpo(0.5, w=1)",
    ],
)
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
            f"{SOLUTION}\nrest: rkl(anneal=cos)",
        ),
        (
            "teacher = self(sync=1, sees=[feedback, solution])\nrest: none",
            "sees=feedback or sees=solution",
            f"{SOLUTION}\nrest: rkl(anneal=cos)",
        ),
        ("teacher = self(frozen=true)\nrest: rkl()", "`frozen` without", "teacher = self(frozen)\nrest: rkl()"),
        ("teacher = self(frozen=frozen)\nrest: rkl()", "`frozen` without", "teacher = self(frozen)\nrest: rkl()"),
        ("teacher = self(frozen=false)\nrest: rkl()", "sync=10", "teacher = self(sync=10)\nrest: rkl()"),
        ("rest: grpo(clip=20)", "write clip=20%", "rest: grpo(clip=20%)"),
        ("rest: grpo(clip=(20, 28))", "clip=(20%, 28%)", "rest: grpo(clip=(20%, 28%))"),
        ("rest: grpo(clip=(20, 0.28))", "clip=(20%, 0.28)", "rest: grpo(clip=(20%, 0.28))"),
        ("let k = 20\nrest: grpo(clip=(k, 28))", "clip=(20%, 28%)", "rest: grpo(clip=(20%, 28%))"),
        ("rest: grpo(clip=(300%, 28%))", "write clip=(0.2, 0.28)", "rest: grpo(clip=(0.2, 0.28))"),
        ("rest: cispo(0.28)", "name it: cispo(high=0.28)", "rest: cispo(high=0.28)"),
        ("rest: grpo(w=schedule(0.5, 0.1))", "schedule(warmup=10%)", "rest: grpo(w=schedule(0.5, warmup=10%))"),
        ("rest: nll(w=0.5, floor=0.1)", "add anneal=cos", "rest: nll(w=0.5, anneal=cos, floor=0.1)"),
        (
            "rest: nll(w=schedule(1, ramp=10, floor=0.2))",
            "add anneal=cos",
            "rest: nll(w=schedule(1, ramp=10, anneal=cos, floor=0.2))",
        ),
        ('rest: nll(anneal="linear(30)")', "drop the quotes: linear(30)", "rest: nll(anneal=linear(30))"),
        ("rest: nll(anneal='cosine')", "write `cos`", "rest: nll(anneal=cos)"),
        ("rest: nll(anneal='linear(30)')", "write `linear(30)`", "rest: nll(anneal=linear(30))"),
        ("rest: nll(per='const(4096)')", "write `const(4096)`", "rest: nll(per=const(4096))"),
        ("let Advantage = A*2\nrest: nll(w=advantage)", "`Advantage`", "let Advantage = A*2\nrest: nll(w=Advantage)"),
        ("let scores = reward\nrest: nll(w=score)", "`scores`", "let scores = reward\nrest: nll(w=scores)"),
        ("rest: jsd(lmbda=0.5)", "`beta`", "rest: jsd(beta=0.5, anneal=cos)"),
        ("rest: grpo() - entropy(w=0.01)", "write `+ entropy(w=0.01)`", "rest: grpo() + entropy(w=0.01)"),
        ("rest: grpo() - k3(w=1e-3)", "write `+ k3(w=1e-3)`", "rest: grpo() + k3(w=1e-3)"),
        ("rest: - entropy(w=0.01)", "write `entropy(w=0.01)`", "rest: entropy(w=0.01)"),
        ("key and has(sibling): nll()", "write `key when has(sibling)`", "key when has(sibling): nll()"),
        ("key and entropy > 3: nll()", "write `key when entropy > 3`", "key when entropy > 3: nll()"),
        ("teacher = self(ema=1.5)\nrest: rkl()", "such as ema=0.01", "teacher = self(ema=0.01)\nrest: rkl()"),
        ("spans key(cap=0)\nkey: nll()\nrest: none", "such as 25%", "spans key(cap=25%)\nkey: nll()\nrest: none"),
        ("rest: rkl(temperature=0)", "write a number above 0", "rest: rkl(temperature=1, anneal=cos)"),
        ("rest: grpo(tis=True)", "write tis=2", "rest: grpo(tis=2)"),
        (
            "rest: grpo(beta=0.04)",
            "grpo(...) + rkl(teacher=ref, w=0.04), with the line `teacher ref = self(frozen)`",
            "teacher ref = self(frozen)\nrest: grpo() + rkl(teacher=ref, w=0.04)",
        ),
        ("rest when is_correct == True: grpo()", "write `correct`", "rest when correct: grpo()"),
        ("rest when 0 == passed: grpo()", "write `not correct`", "rest when not correct: grpo()"),
        ("rest when pos > 50%: grpo()", "pos > 0.5*len", "rest when pos > 0.5*len: grpo()"),
        ("rest when pos > 120%: grpo()", "such as 1.2", "rest when pos > 1.2: grpo()"),
        ("rest when step == 50%: none", "step == 2; a share compares by <", "rest when step == 2: none\nrest: grpo()"),
        ("rest when pos != 10%: grpo()", "pos != 2", "rest when pos != 2: grpo()"),
        ("rest when group_size == 50%: grpo()", "group_size == 4", "rest when group_size == 4: grpo()"),
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
        ("key + not correct: nll()", "write `key when not correct`", "key when not correct: nll()\nrest: none"),
        ("key | correct: nll()", "write `key when correct: ...`", "key when correct: nll()\nrest: none"),
        ("wrong: none", "write `rest when wrong: ...`", "rest when wrong: none\nrest: grpo()"),
        ("all when correct: grpo()", "did you mean `rest`?", "rest when correct: grpo()"),
    ],
)
def test_values_and_words(text: str, fix: str, mended: str) -> None:
    assert_mended(text, fix, mended)


@pytest.mark.parametrize(
    ("text", "fix", "mended"),
    [
        (
            "rest: nll(warmup=60%, anneal=linear(60%))",
            "anneal=cos, lasts to the end",
            "rest: nll(warmup=60%, anneal=cos)",
        ),
        ("rest: nll(ramp=60%, warmup=50%)", "to 100% or less", "rest: nll(ramp=60%, warmup=40%)"),
        (
            "rest: grpo(w=schedule(1, start=80%, anneal=cos(30%)))",
            "100% or less",
            "rest: grpo(w=schedule(1, start=70%, anneal=cos(30%)))",
        ),
    ],
)
def test_shares_of_a_run_that_add_up_to_more(text: str, fix: str, mended: str) -> None:
    assert_mended(text, fix, mended)
    assert [found.rule for found in lint_text(text).diagnostics] == ["invalid-value"]


@pytest.mark.parametrize(
    ("schedule", "fix", "mended"),
    [
        ("warmup=90, anneal=linear(20)", "give steps in percent", "warmup=60%, anneal=linear(20%)"),
        ("warmup=90, anneal=linear(20)", "leave out the length", "warmup=90, anneal=linear"),
        ("warmup=90%, anneal=linear(20)", "warmup, anneal: all of them have to fit into 100", "anneal=linear(20)"),
    ],
)
def test_schedules_longer_than_the_run(schedule: str, fix: str, mended: str) -> None:
    run = facts(total_steps=100)
    (found,) = lint_text(f"rest: nll({schedule})", run).diagnostics
    assert fix in found.fix
    assert lint_text(f"rest: nll({mended})", run).diagnostics == ()


@pytest.mark.parametrize(
    ("schedule", "leaves_out"),
    [("start=70, anneal=linear(5)", False), ("start=60, anneal=linear", False), ("start=50, anneal=linear(50)", True)],
)
def test_an_anneal_that_never_begins_is_not_told_to_end_later(schedule: str, leaves_out: bool) -> None:
    found = lint_text(f"rest: nll({schedule})", facts(total_steps=60)).diagnostics[0]
    assert found.rule == "schedule-exceeds-run"
    assert ("leave out the length" in found.fix) is leaves_out


@pytest.mark.parametrize(
    ("cap", "fix"), [("120%", "100% or less"), ("25", "write cap=25%"), ("1.2", "100% or less"), ("300", "or less")]
)
def test_a_cap_of_more_than_all(cap: str, fix: str) -> None:
    (found,) = lint_text(f"spans key(cap={cap})\nkey: nll()\nrest: none").diagnostics
    assert (found.rule, fix in found.fix) == ("cap-exceeds-one", True)


@pytest.mark.parametrize(
    ("loss", "weight"),
    [
        ("nll(w=1e-3)", "w=-1e-3"),
        ("nll(per=token, w=kl)", "w=-kl"),
        ("nll()", "w=-1.0"),
        ("nll(w=1 - kl)", "w=-(1 - kl)"),
    ],
)
def test_the_weight_of_a_loss_behind_a_minus_is_taken_whole(loss: str, weight: str) -> None:
    (found,) = (one for one in lint_text(f"rest: grpo() - {loss}").errors if one.rule == "syntax")
    assert found.fix == f"give the loss a negative weight, {weight}, if that is meant"


def test_a_schedule_of_shares_is_not_told_to_be_one() -> None:
    (found,) = lint_text("rest: grpo(w=schedule(1, ramp=100%))", facts(total_steps=100)).diagnostics
    assert found.rule == "schedule-exceeds-run"
    assert "percent" not in found.fix
    assert "anneal" not in found.fix


@pytest.mark.parametrize(
    ("weight", "fix", "mended"),
    [
        ("w=0.5, anneal=linear(30), floor=0.1", "take `floor` out", "w=0.5, anneal=linear(30)"),
        ("w=0.1+schedule(1, anneal=cos)", "what is added", "w=schedule(1, anneal=cos)"),
        ("w=0.5", "anneal=linear(30)", "w=0.5, anneal=linear(30)"),
    ],
)
def test_what_never_stops_following(weight: str, fix: str, mended: str) -> None:
    teacher = "teacher = self(sync=10, sees=solution)\nrest: fkl({})"
    (found,) = lint_text(teacher.format(weight)).diagnostics
    assert (found.rule, fix in found.fix) == ("unbounded-privileged-exposure", True)
    assert lint_text(teacher.format(mended)).diagnostics == ()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("---\nspans:\n  - key\nroutes:\n  key: fkl\n", 1),
        ("# my spec\nspans:\n- key\n- error\n", 2),
        ("# my spec\n\n---\nkey: fkl\n", 3),
        ("routes:\n  # first\n\n  key: fkl()\n", 1),
        ("first:\n  key: fkl()\nsecond:\n  key: fkl()\n", 1),
    ],
)
def test_yaml_is_one_error(text: str, line: int) -> None:
    (found,) = lint_text(text).diagnostics
    assert found.message == "this is YAML, and a spec is not"
    assert found.place.line == line


@pytest.mark.parametrize(
    "text",
    ["key:\n    fkl()\nrest: none", "rest: none # spans:\n", "rest:\nkey: nll()", "spans key\nrest:\n  key: nll()"],
)
def test_what_only_looks_like_yaml(text: str) -> None:
    assert all("YAML" not in found.message for found in lint_text(text).diagnostics)


@pytest.mark.parametrize(
    "text", ["let len = 0.5\nrest when reward > 50%: grpo()", "rest when gap > 50% and reward < 10%: grpo()"]
)
def test_shares_of_what_counts_nothing_are_numbers(text: str) -> None:
    assert [found.rule for found in parse_spec(text)[1] if found.rule == "ambiguous-unit"] == []
