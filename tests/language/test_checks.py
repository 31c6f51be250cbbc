"""Every rule: where it fires, a near miss where it does not, and that a comment with a reason silences it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.language import SHORTEST, TRACE, facts, rules_of
from trace_dsl.checks import CHECKS, RULES, check
from trace_dsl.facts import RunFacts, StoredTeacher
from trace_dsl.lint import lint_file, lint_text, parse_spec
from trace_dsl.model import Severity
from trace_dsl.rules import LANGUAGE_RULES, RuleSelection


@dataclass(frozen=True, kw_only=True)
class Case:
    """`fires`: specs in which the rule finds something once; `misses`: specs close to them in which it does not."""

    rule: str
    fires: tuple[str, ...]
    misses: tuple[str, ...]
    run: RunFacts | None = None
    pedantic: bool = False

    @property
    def selection(self) -> RuleSelection:
        return RuleSelection(pedantic=self.pedantic)


MODELS = Path(__file__).parent / "models"
BIG = 'teacher big = model("Qwen/Qwen3-32B")\n'
OLD = BIG + 'rollouts old = cached("old.jsonl")\n'
WIDE = BIG + 'rollouts wide = cached("wide.jsonl")\n'
DECAY = "let kl = schedule(0.5, warmup=10, anneal=linear(30))\n"
CASES = (
    Case(
        rule="shadowed-route",
        fires=(
            "rest: none\nkey: nll()",
            "key: none\nkey when correct: nll()\nrest: none",
            "key | error: none\nerror when wrong: nll()\nrest: none",
            "key when correct: none\nkey when correct: nll()\nrest: none",
            "key when correct: none\nkey when wrong: none\nkey: nll()\nrest: none",
            "key: none\nerror: none\nkey | error: nll()\nrest: none",
            "key when reward > 0: none\nkey when not reward <= 0: nll()\nrest: none",
            "rollouts r = policy()\nrest when rows == r: none\nkey when rows == r: nll()\nrest: none",
        ),
        misses=(
            "key: nll()\nrest: none",
            "key when correct: none\nkey: nll()\nrest: none",
            "error: none\nkey | error: nll()\nrest: none",
            "key when correct: none\nkey when wrong: nll()\nrest: none",
            "rollouts r = policy()\nrest when rows == r: none\nkey: nll()\nrest: none",
            "rest: grpo()\nrest when source == tool: nll()",
            "key when gap > 1: none\nkey when gap > 2: nll()\nrest: none",
        ),
    ),
    Case(
        rule="no-default-route",
        fires=("key: nll()", "key: nll()\nrest when correct: none", "rest when source == tool: nll()"),
        misses=(
            "key: nll()\nrest: none",
            "rest when correct: none\nrest when wrong: grpo()",
            "rest when source == model: nll()",
        ),
    ),
    Case(
        rule="unreachable-predicate",
        fires=(
            "key when correct and wrong: nll()\nrest: none",
            "key when all_wrong and correct: nll()\nrest: none",
            "key when mixed and (all_correct or all_wrong): nll()\nrest: none",
            "key when gap > 1 and gap <= 1: nll()\nrest: none",
            "key when 1 > 2: nll()\nrest: none",
            "rollouts r = policy(when=mixed and all_wrong)\nrest: none",
        ),
        misses=(
            "key when correct or wrong: nll()\nrest: none",
            "key when mixed and correct: nll()\nrest: none",
            "key when gap > 1 and gap <= 2: nll()\nrest: none",
        ),
    ),
    Case(
        rule="zero-weight",
        fires=(
            "rest: grpo(w=0)",
            "rest: grpo(w=schedule(0, warmup=10, anneal=linear))",
            "rest: grpo(w=step - step)",
            "rest: grpo(w=schedule(1, start=50))",
        ),
        misses=("rest: grpo(w=1e-9)", "rest: grpo(w=schedule(0, anneal=step(5), floor=1))", "rest: grpo(w=0*gap)"),
        run=facts(total_steps=50),
    ),
    Case(
        rule="undefined-weight",
        fires=("rest: grpo(w=1/step)", "rest: grpo(w=log(10 - step))", "rest: grpo(w=exp(step*step))"),
        misses=("rest: grpo(w=1/(step + 1))", "rest: grpo(w=where(step > 0, 1/step, 0))", "rest: grpo(w=1/reward)"),
    ),
    Case(
        rule="negative-kl-weight",
        fires=(
            "rest: fkl(w=-0.1)",
            "rest: k3(w=-0.1)",
            "rest: rkl(w=0.5, anneal=linear(30), floor=-0.1)",
            DECAY + "rest: fkl(w=0.4 - kl)",
            "rest: fkl(w=1 - schedule(1.001, ramp=100, anneal=step(1)))",
        ),
        misses=(
            "rest: fkl(w=0.1)",
            DECAY + "rest: fkl(w=0.5 - kl)",
            DECAY + "rest: grpo(w=0.4 - kl)",
            "rest: entropy(w=-0.01)",
            "rest: fkl(w=max(0, 100 - step))",
        ),
    ),
    Case(
        rule="negative-weight",
        fires=(
            "rest: grpo(w=-1)",
            "rest: entropy(w=-0.01)",
            "rest: nll(w=schedule(0.1, anneal=linear(5), floor=-0.1))",
            DECAY + "rest: grpo(w=0.4 - kl)",
        ),
        misses=(
            "rest: grpo(w=1)",
            DECAY + "rest: grpo(w=1 - kl/0.5)",
            "rest: fkl(w=-0.1)",
            "rest: grpo(w=where(A > 0, 1, -1))",
        ),
    ),
    Case(
        rule="self-teacher-no-op",
        fires=("teacher = self(sync=1)\nrest: fkl()", "teacher = self(ema=1)\nrest: fkl()"),
        misses=(
            "teacher = self(sync=2)\nrest: fkl()",
            "teacher = self(sync=1, sees=solution)\nrest: fkl(anneal=cos)",
            "teacher = self(ema=0.9)\nrest: fkl()",
            "teacher = self(sync=1)\nrest: pg(adv=gap)",
        ),
    ),
    Case(
        rule="unbounded-privileged-exposure",
        fires=(
            "rest: fkl()",
            "rest: fkl(w=0.5, warmup=10)",
            "rest: fkl(anneal=linear(30), floor=0.01)",
            "rest: fkl(w=sigmoid(gap))",
            DECAY + "rest: fkl(w=0.6 - kl)",
        ),
        misses=(
            SHORTEST,
            DECAY + "rest: fkl(w=kl*sigmoid(gap))",
            "rest: fkl(warmup=5 tokens, anneal=cos(5 tokens))",
            "teacher = self(sync=10)\nrest: fkl()",
            "teacher = self(sync=10, sees=mismatched)\nrest: fkl()",
            "rest: fkl(w=where(step < 100, 1, 0))",
            "rest: pg(adv=gap)",
        ),
    ),
    Case(
        rule="teacher-unused",
        fires=(
            "teacher = self(sync=3)\nrest: grpo()",
            "teacher a = self(frozen)\nteacher b = self(frozen)\nrest: fkl(teacher=a)",
        ),
        misses=(
            "teacher = self(sync=3)\nrest: fkl()",
            "teacher a = self(frozen)\nrest: grpo(anchor=mix(old, a, .5))",
            "teacher a = self(frozen)\nrest when gap > 1: none\nrest: none",
            "teacher a = self(frozen)\nrest: pg(adv=gap(a))",
        ),
    ),
    Case(
        rule="unused-let",
        fires=("let a = 1\nrest: none", "let a = 1\nlet b = a\nrest: none"),
        misses=(
            "let a = 1\nrest: grpo(w=a)",
            "let a = 10%\nrest: grpo(w=1, warmup=a)",
            "let a = 1\nlet b = a\nrest: grpo(w=b)",
        ),
    ),
    Case(
        rule="cap-exceeds-one",
        fires=("spans key(cap=25)\nkey: none\nrest: none", "spans key(cap=101%)\nkey: none\nrest: none"),
        misses=(
            "spans key(cap=25%)\nkey: none\nrest: none",
            "spans key(cap=1)\nkey: none\nrest: none",
            "spans key\nkey: none\nrest: none",
        ),
    ),
    Case(
        rule="schedule-exceeds-run",
        fires=(
            DECAY + "rest: grpo(w=kl) + nll(w=kl)",
            "rest: grpo(w=schedule(1, ramp=39))",
            "rest: grpo(w=schedule(1, start=50))",
            "rest: pg(adv=A*schedule(1, warmup=50%, anneal=cos(60%)))",
        ),
        misses=(
            "rest: grpo(w=schedule(1, warmup=9, anneal=linear(30)))",
            "rest: grpo(w=schedule(1, warmup=50%, anneal=cos))",
            "rest: grpo(w=schedule(1, warmup=1e9 tokens))",
            DECAY + "rest: grpo()",
        ),
        run=facts(total_steps=39),
    ),
    Case(
        rule="anneal-never-reached",
        fires=("rest: grpo(w=1, warmup=39, anneal=cos)", "rest: grpo(w=1, warmup=100, anneal=linear(30))"),
        misses=("rest: grpo(w=1, warmup=38, anneal=cos)", "rest: grpo(w=1, warmup=100)"),
        run=facts(total_steps=39),
    ),
    Case(
        rule="dead-advantage",
        fires=("rest: grpo()", "advantage = loo\nrest: cispo(high=5)", "rest: pg(adv=A*gap)"),
        misses=("advantage = none\nrest: grpo()", "rest: pg(adv=reward)", "rest: nll()"),
        run=facts(group_size=1),
    ),
    Case(
        rule="span-never-annotated",
        fires=(
            "kye: nll()\nrest: none",
            "key | err: nll()\nrest: none",
            "kye when correct: nll()\nkye: none\nrest: none",
        ),
        misses=("key | error: nll()\nrest: none", "spans other\nrest: none"),
        run=facts(),
    ),
    Case(
        rule="teacher-context-missing",
        fires=(
            "teacher = self(sync=9, sees=solution)\nrest: fkl()",
            "rollouts r = policy(sees=solution)\nrest: none",
        ),
        misses=("teacher = self(sync=9, sees=diagnosis)\nrest: fkl()", "teacher = self(sync=9)\nrest: fkl()", SHORTEST),
        run=facts(),
    ),
    Case(
        rule="topk-without-tail",
        fires=("rest: fkl(topk=9)",),
        misses=("rest: fkl(topk=9, tail=drop)", "rest: fkl()"),
    ),
    Case(
        rule="rkl-on-teacher-topk",
        fires=("rest: rkl(topk=9)", "rest: srkl(0.1, topk=9, tail=bucket)"),
        misses=("rest: rkl(topk=9, of=student)", "rest: fkl(topk=9)", "rest: rkl()"),
    ),
    Case(rule="hard-pclip", fires=("rest: fkl(pclip=0.05)",), misses=("rest: fkl()",)),
    Case(
        rule="jsd-near-endpoint",
        fires=("rest: jsd(0.049)", "rest: jsd(0.951)"),
        misses=("rest: jsd(0.05)", "rest: jsd(0.95)", "rest: skl(0.01)"),
    ),
    Case(
        rule="state-only-advantage",
        fires=(
            "rest: pg(adv=entropy)",
            "rest: pg(adv=teacher_entropy)",
            "rest: pg(adv=overlap)",
            "rest: cispo(adv=overlap, high=5)",
            "rest: pg(adv=1)",
            "rest when mixed and pos < 100: pg(adv=1 - overlap)",
            "rest: pg(adv=entropy - mean(entropy, over=batch))",
            "rest: pg(adv=window_mean(teacher_entropy, 8), w=exp(-entropy))",
            "rest: pg(adv=where(pos > 3, overlap, 0), tis=2)",
        ),
        misses=(
            "rest: pg(adv=A*entropy)",
            "rest: pg(adv=gap)",
            "rest: pg(adv=reward)",
            "rest: pg(adv=reward_to_go(entropy, 1))",
            "rest: pg(adv=mean(entropy, over=row))",
            "rest when correct: pg(adv=1)\nrest: none",
            "key: pg(adv=overlap)\nrest: none",
            "rest: pg(adv=overlap, w=where(correct, 1, 0))",
            "rest: pg(adv=entropy, anchor=mix(old, teacher, 0.5))",
            "rollouts r = policy(sees=solution)\nrest when rows == r: pg(adv=entropy)\nrest: none",
            "rest: grpo(w=exp(-teacher_entropy))",
            "rest: entropy(w=0.01)",
        ),
    ),
    Case(
        rule="advantage-whitened-after-kl",
        fires=(
            "rest: pg(adv=(gap - mean(gap, over=group))/sqrt(mean(gap*gap, over=group)))",
            "let x = reward + 0.1*mean(gap, over=row)\n"
            "rest: pg(adv=(x - mean(x, over=group))/(sqrt(mean(x*x, over=group)) + 1e-6))",
            "rest: cispo(adv=(reward + ref_logp)/max(abs(ref_logp), over=batch), high=5)",
        ),
        misses=(
            "rest: pg(adv=A + 0.1*gap)",
            "rest: pg(adv=gap - mean(gap, over=group))",
            "rest: pg(adv=(reward - mean(reward, over=group))/sqrt(mean(reward*reward, over=group)) + gap)",
            "rest: pg(adv=gap/5)",
            "rest: pg(adv=gap/max(abs(gap), over=row))",
            "rest: nll(w=gap/max(abs(gap), over=group))",
            "rest: pg(adv=A/max(abs(gap), over=group))",
        ),
    ),
    Case(
        rule="teacher-independent-gradient",
        fires=(
            "rest: fkl(topk=1, tail=renorm)",
            "rest: rkl(topk=1, of=student, tail=renorm)",
            "rest: skl(0.99)",
            "rest: srkl(0.999)",
            "rest: grpo(anchor=mix(old, teacher, 0.99))",
            "rest: pg(adv=A + 0*gap)",
            "rest: pg(adv=A*clip(exp(gap), 1, 1))",
            "let a = teacher_logp - logp\nrest: pg(adv=A + (a - a))",
            "rest: pg(adv=A*where(correct, gap/gap, 1))",
            "rest: pg(adv=where(1 > 2, gap, A))",
            "rest: nll(w=where(min(teacher_entropy, teacher_entropy) > teacher_entropy, 1, 0))",
            "teacher = self(sync=1)\nrest: pg(adv=gap)",
            "teacher = self(sync=1)\nrest: grpo(w=exp(-teacher_entropy))",
        ),
        misses=(
            "rest: fkl(topk=1, tail=bucket)",
            "rest: fkl(topk=2, tail=renorm)",
            "rest: skl(0.9)",
            "rest: jsd(0.99)",
            "rest: grpo(anchor=mix(old, teacher, 0.9))",
            "rest: pg(adv=A + 0.01*gap)",
            "rest: pg(adv=A*clip(exp(gap), 0.8, 1.2))",
            "let L = schedule(0.5, anneal=linear(50))\nrest: pg(adv=A*((1 - L) + L*clip(exp(sign(A)*gap), .8, 1.2)))",
            "teacher = self(sync=2)\nrest: pg(adv=gap)",
            "teacher = self(sync=1, sees=solution)\nrest: pg(adv=gap)",
        ),
    ),
    Case(
        rule="vocab-mismatch",
        fires=(
            f'teacher = model("{MODELS}/other")\nrest: fkl()',
            f'teacher = model("{MODELS}/nested")\nrest: fkl()',
        ),
        misses=(
            f'teacher = model("{MODELS}/same")\nrest: fkl()',
            f'teacher = model("{MODELS}/silent")\nrest: fkl()',
            f'teacher = model("{MODELS}/broken")\nrest: fkl()',
            f'teacher = model("{MODELS}/absent")\nrest: fkl()',
            'teacher = model("Qwen/Qwen3-32B")\nrest: fkl()',
            "rest: fkl()",
        ),
        run=facts(),
    ),
    Case(
        rule="payload-too-weak",
        fires=(
            OLD + "rest when rows == old: fkl(teacher=big)\nrest: grpo()",
            OLD + "rest when rows == old: rkl(teacher=big, topk=8, tail=bucket)\nrest: grpo()",
            OLD + "rest when rows == old: pg(adv=gap(big), w=exp(-teacher_entropy(big)))\nrest: grpo()",
            OLD + "rest when rows == old and overlap(big) > 0.5: pg(adv=gap(big))\nrest: grpo()",
            WIDE + "rest when rows == wide: jsd(0.5, teacher=big)\nrest: grpo()",
            WIDE + "rest when rows == wide: fkl(teacher=big, topk=65, tail=bucket)\nrest: grpo()",
            WIDE + "rest when rows == wide: rkl(teacher=big, topk=8, of=student, tail=bucket)\nrest: grpo()",
        ),
        misses=(
            OLD + "rest when rows == old: pg(adv=gap(big))\nrest: grpo()",
            OLD + "rest when rows == old: nll(w=teacher_logp(big))\nrest: grpo()",
            OLD + "teacher live = self(sync=9)\nrest when rows == old: fkl(teacher=live)\nrest: pg(adv=gap(big))",
            OLD + "rest when rows == old: none\nrest: fkl(teacher=big)",
            WIDE + "rest when rows == wide: fkl(teacher=big, topk=64, tail=bucket)\nrest: grpo()",
            BIG + 'rollouts full = cached("full.jsonl")\nrest when rows == full: fkl(teacher=big)\nrest: grpo()',
            BIG + 'rollouts other = cached("x.jsonl")\nrest when rows == other: fkl(teacher=big)\nrest: grpo()',
        ),
        run=facts(
            stored=(
                StoredTeacher(rollouts="old", teacher="big", top_k=0),
                StoredTeacher(rollouts="wide", teacher="big", top_k=64),
                StoredTeacher(rollouts="full", teacher="big", top_k=None),
            )
        ),
    ),
    Case(
        rule="stop-token-untrained",
        fires=(
            "key: nll()\nrest: none",
            "key: nll()",
            "key: nll()\nrest: grpo(w=0)",
            "key: nll()\nrest: grpo(w=schedule(1, start=300))",
            "key: nll()\nrest when source == tool: nll()\nrest: none",
        ),
        misses=(
            "key: none\nrest: nll()",
            "key: nll()\nrest when correct: grpo()\nrest: none",
            "key: nll()\nrest: grpo(w=schedule(1, start=299))",
            "rollouts r = policy()\nkey: nll()\nrest when rows == r: nll()\nrest: none",
            "rest: none",
            "key: nll()\nrest: grpo(w=0) + entropy(w=0.01)",
        ),
        run=facts(),
    ),
    Case(
        rule="mixed-denominator",
        fires=(
            "rest: grpo(per=token) + nll()",
            "key: nll(per=selected)\nrest: grpo()",
            "key: nll(per=const(10))\nrest: grpo(per=const(20))",
            "key: nll(per=selected)\nerror: nll()\nrest: grpo()",
        ),
        misses=(TRACE, "rest: grpo(per=token) + nll(per=token)", "key: nll(per=const(10))\nrest: grpo(per=const(10))"),
        pedantic=True,
    ),
    Case(
        rule="direction-vs-condition",
        fires=(
            "error when wrong: fkl()\nrest: grpo()",
            "rest when all_wrong: skl(0.1)\nrest: grpo()",
            "key when correct: rkl()\nrest: grpo()",
            "key when correct and has(sibling): srkl(0.1)\nrest: grpo()",
        ),
        misses=(
            "key when correct: fkl()\nerror when wrong: rkl()\nrest: grpo()",
            "error when wrong or pos > 3: fkl()\nrest: grpo()",
            "rest when mixed: rkl()\nrest: grpo()",
            "key when correct: jsd(0.5)\nrest: grpo()",
        ),
        pedantic=True,
    ),
    Case(
        rule="zero-variance-groups-kept",
        fires=(
            "rest: grpo(per=token)",
            "rest: grpo(per=selected)",
            "rest when mixed: grpo(per=token)\nrest: none",
            "rest when correct: cispo(high=5, per=selected)\nrest: none",
        ),
        misses=(
            "rest when mixed: grpo(per=selected)\nrest: none",
            "rest: grpo()",
            "rest: pg(adv=gap, per=token)",
            "advantage = none\nrest: grpo(per=token)",
            "rest: nll(per=token)",
        ),
        pedantic=True,
    ),
)


@pytest.mark.parametrize(
    ("case", "text"), [(case, text) for case in CASES for text in case.fires], ids=lambda x: getattr(x, "rule", "")
)
def test_fires(case: Case, text: str) -> None:
    result = lint_text(text, case.run, selection=case.selection)
    assert result.spec is not None, result.diagnostics
    (found,) = [d for d in result.diagnostics if d.rule == case.rule]
    assert found.severity is RULES[case.rule].severity
    assert found.message
    assert found.consequence
    assert found.fix or case.rule == "span-never-annotated"


@pytest.mark.parametrize(
    ("case", "text"), [(case, text) for case in CASES for text in case.misses], ids=lambda x: getattr(x, "rule", "")
)
def test_near_miss(case: Case, text: str) -> None:
    result = lint_text(text, case.run, selection=case.selection)
    assert result.spec is not None, result.diagnostics
    assert case.rule not in [d.rule for d in result.diagnostics]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_suppressed_with_a_reason(case: Case) -> None:
    text = case.fires[0]
    before = lint_text(text, case.run, selection=case.selection)
    (found,) = [d for d in before.diagnostics if d.rule == case.rule]
    lines = text.split("\n")
    lines[found.place.line - 1] += f"  # trace: ignore[{case.rule}] a test"
    after = lint_text("\n".join(lines), case.run, selection=case.selection)
    assert not {case.rule, "unused-suppression"} & {d.rule for d in after.diagnostics}


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} == {one.info.name for one in CHECKS}


def test_rules_that_need_facts_are_silent_without() -> None:
    for case in CASES:
        if RULES[case.rule].needs_facts:
            for text in case.fires:
                assert case.rule not in rules_of(text)


def test_pedantic_rules_are_silent_unless_asked_for() -> None:
    for case in CASES:
        assert RULES[case.rule].pedantic is case.pedantic
        if case.pedantic:
            assert case.rule not in rules_of(case.fires[0], case.run)
            chosen = lint_text(case.fires[0], case.run, selection=RuleSelection(select=frozenset({case.rule})))
            assert [d.rule for d in chosen.diagnostics] == [case.rule]
            # its suppression is judged only where the rule is
            assert "unused-suppression" not in rules_of(f"rest: nll()  # trace: ignore[{case.rule}] a test")


def test_selected_and_ignored_rules() -> None:
    text = "key: nll(w=0)\nrest when rewrd: nll()"

    def found(**chosen: frozenset[str]) -> list[str]:
        return [d.rule for d in lint_text(text, selection=RuleSelection(**chosen)).diagnostics]

    assert found() == ["zero-weight", "unknown-name"]
    assert found(select=frozenset({"no-default-route"})) == ["unknown-name"]
    assert found(ignore=frozenset({"zero-weight"})) == ["unknown-name"]
    left_over = "rest: grpo()  # trace: ignore[zero-weight] left over"
    assert rules_of(left_over) == ["unused-suppression"]
    chosen = RuleSelection(ignore=frozenset({"unused-suppression"}))
    assert lint_text(left_over, selection=chosen).diagnostics == ()
    assert found(select=frozenset({"zero-weight"}), ignore=frozenset({"zero-weight"})) == ["unknown-name"]


def test_the_papers_spec_is_clean() -> None:
    assert rules_of(TRACE, facts()) == []
    assert rules_of(SHORTEST, facts()) == []


def test_shadowed_route_names_the_route_that_shadows() -> None:
    spec = parse_spec("key: none\nrest: grpo()\nkey when correct: nll()\n")[0]
    assert spec is not None
    (found,) = [d for d in check(spec) if d.rule == "shadowed-route"]
    assert [other.place.line for other in found.others] == [1]
    assert "`key when correct`" in found.message


def test_a_route_with_an_error_shadows_nothing_and_is_not_shadowed() -> None:
    text = "key when rewrd: nll()\nkey when rewrd: nll()\nkey: nll()\nrest: grpo()\nrest when sourc == tool: nll()"
    assert rules_of(text) == ["unknown-name"] * 3


# ------------------------------------------------------------------------------------------------ suppressions


@pytest.mark.parametrize(
    ("comment", "rules"),
    [
        ("# trace: ignore[zero-weight] an ablation", []),
        ("# trace: ignore[zero-weight, no-default-route] an ablation", ["unused-suppression"]),
        ("# trace: ignore[zero-weight]", ["zero-weight", "bad-suppression"]),
        ("# trace: ignore zero-weight", ["zero-weight", "bad-suppression"]),
        ("# trace: ignore[zero-wait] an ablation", ["zero-weight", "bad-suppression"]),
        ("# trace: ignore[syntax] an ablation", ["zero-weight", "bad-suppression"]),
        ("# trace: ignore[dead-advantage, zero-weight] judged only with a run file", []),
        ("# a plain comment", ["zero-weight"]),
    ],
)
def test_suppression_comments(comment: str, rules: list[str]) -> None:
    assert rules_of(f"rest: grpo(w=0)  {comment}\n") == rules


def test_a_suppression_covers_the_lines_of_its_finding_only() -> None:
    text = "rest: grpo(\n  w=0)  # trace: ignore[zero-weight] an ablation\n"
    assert rules_of(text) == []
    text = "# trace: ignore[zero-weight] an ablation\nrest: grpo(w=0)\n"
    assert rules_of(text) == ["unused-suppression", "zero-weight"]


# ------------------------------------------------------------------------------------------------------- docs/rules.md

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### ([a-z0-9-]+)\n(.*?)(?=^##|\Z)", PAGE, flags=re.M | re.S))
PAGE_RUN = facts(total_steps=100, group_size=1, stored=(StoredTeacher(rollouts="old", teacher="big", top_k=0),))


def example(rule: str, kind: str) -> str:
    found = re.search(rf"```trace {kind}\n(.*?)```", SECTIONS[rule], flags=re.S)
    assert found is not None, f"the section {rule} has no {kind} example"
    return found[1]


def rules_of_example(folder: Path, text: str) -> set[str]:
    (folder / "base.trace").write_text("key: nll()\nrest: grpo()\n", encoding="utf-8")
    (folder / "big").mkdir(exist_ok=True)
    (folder / "big" / "config.json").write_text('{"vocab_size": 32000}', encoding="utf-8")
    path = folder / "spec.trace"
    path.write_text(text, encoding="utf-8")
    return {found.rule for found in lint_file(path, PAGE_RUN, selection=RuleSelection(pedantic=True)).diagnostics}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_rules_page_explains_every_rule(rule: str, tmp_path: Path) -> None:
    assert rule in rules_of_example(tmp_path, example(rule, "bad"))
    assert rule not in rules_of_example(tmp_path, example(rule, "good"))
    language = {info.name for info in LANGUAGE_RULES}
    said = SECTIONS[rule].strip().split("\n")[0]
    info = RULES[rule]
    if rule not in language:
        assert said.startswith("Error" if info.severity is Severity.ERROR else "Warning")
        assert ("with a run file" in said) is info.needs_facts
        assert ("pedantic" in said) is info.pedantic


def test_the_rules_page_explains_no_other_rule() -> None:
    assert set(SECTIONS) == set(RULES)


def test_a_route_below_a_shadowed_one_is_judged_too() -> None:
    assert rules_of("rest: none\nkey when len > 1: nll()\nkey when source == tool: nll()\n") == ["shadowed-route"]
