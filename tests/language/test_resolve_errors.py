"""What has no meaning, and what is said about it."""

from __future__ import annotations

import pytest

from tests.language import rules_of
from tests.language.resolving import errors_of
from trace_dsl.lint import lint_text, parse_spec
from trace_dsl.model import Severity
from trace_dsl.resolve import arguments
from trace_dsl.resolve.findings import MOST_HINTS


@pytest.mark.parametrize(
    ("text", "rule", "underlined"),
    [
        ("rest: grpo(w=rewrd)", "unknown-name", "rewrd"),
        ("rest: grpp()", "unknown-name", "grpp"),
        ("rest: grpo(w=expp(1))", "unknown-name", "expp"),
        ("rest: grpo(per=tokens)", "unknown-name", "tokens"),
        ("rest: fkl(anneal=cosine)", "unknown-name", "cosine"),
        ("teacher = slef(sync=1)\nrest: fkl()", "unknown-name", "slef"),
        ("rest when rows == x: none", "unknown-name", "x"),
        ("let a = b\nlet b = 1\nrest: grpo(w=a)", "unknown-name", "b"),
        ("let a = a + 1\nrest: grpo(w=a)", "unknown-name", "a"),
        ("rest: grpo(w=k)\nlet k = 1", "unknown-name", "k"),
        ("spans key\nkeey: nll()\nrest: none", "unknown-span", "keey"),
        ("rest: grpo(lr=1)", "unknown-argument", "lr"),
        ("rest: grpo(0.5)", "unknown-argument", "0.5"),
        ("rest: grpo(w=exp(1, 2))", "unknown-argument", "exp(1, 2)"),
        ("rest: jsd()", "missing-argument", "jsd()"),
        ("rest: grpo(w=mean(gap))", "missing-argument", "mean(gap)"),
        ("rest: fkl(tail=drop)", "missing-argument", "tail=drop"),
        ("rest: grpo", "missing-argument", "grpo"),
        ("teacher = self()\nrest: fkl()", "missing-argument", "self()"),
        ("rest: grpo(w=1, w=2)", "duplicate-argument", "w=2"),
        ("let a = 1\nlet a = 2\nrest: grpo(w=a)", "duplicate-name", "a"),
        ("let A = 1\nrest: grpo()", "duplicate-name", "A"),
        ("advantage = loo\nadvantage = none\nrest: grpo()", "duplicate-name", "advantage = none"),
        ("rest: fkl(warmup=0.1)", "ambiguous-unit", "0.1"),
        ("rest when step < 10%: none", "ambiguous-unit", "10%"),
        ("let c = 10%\nrest when step >= 1 and c > step: none", "ambiguous-unit", "c"),
        ("rest: fkl(anneal=cos(0.5))", "ambiguous-unit", "0.5"),
        ("rest: fkl(warmup=2e6)", "ambiguous-unit", "2e6"),
        ("rest: fkl(warmup=5 tokens, anneal=cos)", "ambiguous-unit", "fkl(warmup=5 tokens, anneal=cos)"),
        ("rest when reward: none", "wrong-rank", "reward"),
        ("rest: grpo(w=correct)", "wrong-rank", "correct"),
        ("rest: grpo(w=correct + 1)", "wrong-rank", "correct"),
        ("rest when not reward: none", "wrong-rank", "reward"),
        ("rest: grpo(w=schedule(step))", "wrong-rank", "step"),
        ("rest: fkl(w=gap, warmup=3)", "wrong-rank", "gap"),
        ("rest: grpo(w=mean(reward, over=row))", "wrong-rank", "mean(reward, over=row)"),
        ("rest: grpo(w=cumcount(correct))", "wrong-rank", "cumcount(correct)"),
        ("rest when latch(gap > 1, gap < 1): none", "wrong-rank", "latch(gap > 1, gap < 1)"),
        ("rest: grpo(w=source)", "wrong-rank", "source"),
        ("rest: grpo(w=3 steps)", "wrong-rank", "3 steps"),
        ("rollouts r = policy(when=correct)\nrest: grpo()", "wrong-rank", "correct"),
        ("rest: jsd(1.5)", "invalid-value", "1.5"),
        ("rest: fkl(topk=0)", "invalid-value", "0"),
        ("rest: grpo(clip=(1, 2, 3))", "invalid-value", "(1, 2, 3)"),
        ("rest: grpo(w=1/0)", "invalid-value", "1/0"),
        ("rest: grpo(w=log(0))", "invalid-value", "log(0)"),
        ("rest | key: none", "invalid-value", "rest"),
        ("rest: none + grpo()", "invalid-value", "none"),
        ("rest: fkl(warmup=120%)", "invalid-value", "120%"),
        ("rest: fkl(warmup=-3)", "invalid-value", "-3"),
        ("rollouts r = policy()\nrest when rows == r or wrong: none", "invalid-value", "rows == r"),
        ("teacher a = self(frozen)\nrest: fkl(teacher=b)", "teacher-undeclared", "b"),
        ("rest: fkl(teacher=b)", "teacher-undeclared", "b"),
        ("teacher a = self(frozen)\nrest: grpo(anchor=mix(old, b, .5))", "teacher-undeclared", "b"),
        ("teacher a = self(frozen)\nteacher b = self(frozen)\nrest: fkl()", "teacher-undeclared", "fkl()"),
        ("", "syntax", ""),
    ],
)
def test_errors_of_the_language(text: str, rule: str, underlined: str) -> None:
    assert errors_of(text) == [(rule, underlined)]


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("rest: grpo(w=rewrd)", "reward"),
        ("let klw = 1\nrest: grpo(w=kl)", "klw"),
        ("rest: grpo(w=softpus(1))", "softplus"),
        ("rest: fkl(topkk=3)", "topk"),
        ("rest: nlll()", "nll"),
        ("rest: kl()", "KL(teacher || student)"),
        ("rest: grpo(adv=gap)", "pg(adv=...)"),
        ("spans key\nkye: nll()\nrest: none", "key"),
        ("teacher big = self(frozen)\nrest: fkl(teacher=bgi)", "big"),
        ("rest: fkl(warmup=0.5)", "warmup=50%"),
        ("rest when step < 10%: none", "schedule(1, anneal=step(10%))"),
        ("rest when 10% > step: none", "schedule(1, anneal=step(10%))"),
        ("rest when step >= 10%: none", "schedule(1, start=10%)"),
        ("rest when 10% <= step: none", "schedule(1, start=10%)"),
        ("rest: fkl(anneal=cos(0.5))", "cos(50%)"),
        ("rest: fkl(anneal=linear(1e2))", "linear(100 steps), or linear(1e2 tokens)"),
        ("rest when incorrect: none", "`wrong`"),  # nearer in letters is its opposite
        ("rest: reverse_kl()", "`rkl`"),
        ("rest: grpo(epsilon=0.2)", "`clip`"),
        ("spans key\nelse: grpo()\nrest: none", "`rest`"),
    ],
)
def test_did_you_mean(text: str, guess: str) -> None:
    assert guess in parse_spec(text)[1][0].fix


def test_independent_errors_of_one_statement_are_all_reported() -> None:
    text = "key when rewrd > 1: fkl(w=gpa, warmup=0.1, tpk=3, per=sequnce, teacher=bg) + grp()"
    assert sorted(rule for rule, _ in errors_of("teacher big = self(frozen)\n" + text)) == [
        "ambiguous-unit",
        "teacher-undeclared",
        "unknown-argument",
        "unknown-name",
        "unknown-name",
        "unknown-name",
        "unknown-name",
    ]


def test_an_error_brings_no_follow_up_errors() -> None:
    """What a broken statement declares counts as declared, and what it reads as read."""
    text = (
        "let kl = schedule(0.5 anneal=cos)\n"
        "teacher big = modle(\n"
        "spans key(cap=25%, error\n"
        "key: fkl(w=kl, teacher=big)\n"
        "error: fkl(w=2*kl, teacher=big)\n"
        "rest: grpo( + 1\n"
    )
    assert rules_of(text) == ["syntax"] * 4


def test_parse_spec_gives_no_spec_when_there_are_errors() -> None:
    assert parse_spec("rest: grp()")[0] is None
    assert lint_text("rest: grp()").spec is None
    assert lint_text("rest: grpo()\nkey: nll()").spec is not None  # an error of a rule leaves the spec whole


def test_so_many_hints_are_given_and_no_more() -> None:
    text = "let known = 1\n" + "".join(f"let a{index} = knwn\n" for index in range(MOST_HINTS + 50)) + "rest: none\n"
    fixes = [found.fix for found in lint_text(text).diagnostics if found.rule == "unknown-name"]
    assert fixes[: MOST_HINTS + 1] == ["did you mean `known`?"] * MOST_HINTS + [
        "write the value, or name one with `let knwn = ...`"
    ]
    assert "did you mean `known`?" not in fixes[MOST_HINTS:]


def test_a_share_beside_a_step_that_is_no_share_of_the_run() -> None:
    text = "rest when step/30 < 10% or 10%*step > 3: nll()\nrest: grpo(w=10%*step)"
    assert errors_of(text) == []


@pytest.mark.parametrize(
    "text, message, fix",
    [
        ("rest: grpo(tis=none)", "`none` is no value", "leave the argument out"),
        ("rest: grpo(w=beta * 2)", "there is no signal or `let` called `beta`", "`let beta = ...`"),
        ("teacher = ref\nrest: rkl()", "`ref` is no teacher; allowed: self, model", "write self(frozen)"),
        ('rest: grpo(level="sequence")', "the ratio level is a word without quotes", "drop the quotes: sequence"),
    ],
)
def test_the_fix_says_what_to_write(text: str, message: str, fix: str) -> None:
    (found,) = lint_text(text).errors
    assert message in found.message
    assert fix in found.fix


@pytest.mark.parametrize(
    "text",
    ["kl = schedule(0.5, warmup=10)\nrest: grpo(w=1 - kl)", "spans: key, error\nkey | error: nll()\nrest: grpo()"],
)
def test_a_declaration_that_does_not_parse_still_declares(text: str) -> None:
    (found,) = lint_text(text).errors
    assert found.rule == "syntax"


@pytest.mark.parametrize("given", ["frozen=frozen, sync=3", "sync=3, frozen=true", "ema=0.1, frozen=1"])
def test_a_frozen_with_a_value_beside_another_way_is_one_error(given: str) -> None:
    found = lint_text(f"teacher = self({given})\nrest: fkl()").diagnostics
    (one,) = [d for d in found if d.severity is Severity.ERROR]
    assert one.fix.startswith("take it out: `")


def test_of_very_many_unnamed_arguments_the_first_are_told_what_they_could_be(monkeypatch: pytest.MonkeyPatch) -> None:
    advised = 0

    def counted(*given: object) -> str:
        nonlocal advised
        advised += 1
        return "name it"

    monkeypatch.setattr(arguments, "fix_for_unnamed", counted)
    found = lint_text(f"rest: grpo({','.join('1' * 5_000)})").diagnostics
    assert len(found) == 5_000
    assert advised == arguments.MOST_ADVISED
    assert all(one.fix for one in found)
