"""Every rule: where it fires, a near miss where it does not, and that a comment with a reason silences it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.language import SHORTEST, TRACE, facts, rules_of
from trace_dsl.checks import CHECKS, RULES, check
from trace_dsl.facts import RunFacts
from trace_dsl.lint import lint_file, lint_text, parse_spec
from trace_dsl.model import Severity
from trace_dsl.rules import LANGUAGE_RULES


@dataclass(frozen=True, kw_only=True)
class Case:
    """`fires`: specs in which the rule finds something once; `misses`: specs close to them in which it does not."""

    rule: str
    fires: tuple[str, ...]
    misses: tuple[str, ...]
    run: RunFacts | None = None
    miss_run: RunFacts | None = field(default=None)


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
)


@pytest.mark.parametrize(
    ("case", "text"), [(case, text) for case in CASES for text in case.fires], ids=lambda x: getattr(x, "rule", "")
)
def test_fires(case: Case, text: str) -> None:
    result = lint_text(text, case.run)
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
    result = lint_text(text, case.run)
    assert result.spec is not None, result.diagnostics
    assert case.rule not in [d.rule for d in result.diagnostics]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_suppressed_with_a_reason(case: Case) -> None:
    text = case.fires[0]
    (found,) = [d for d in lint_text(text, case.run).diagnostics if d.rule == case.rule]
    lines = text.split("\n")
    lines[found.place.line - 1] += f"  # trace: ignore[{case.rule}] a test"
    assert not {case.rule, "unused-suppression"} & set(rules_of("\n".join(lines), case.run))


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} == {one.info.name for one in CHECKS}


def test_rules_that_need_facts_are_silent_without() -> None:
    for case in CASES:
        if RULES[case.rule].needs_facts:
            for text in case.fires:
                assert case.rule not in rules_of(text)


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
PAGE_RUN = facts(total_steps=100, group_size=1)


def example(rule: str, kind: str) -> str:
    found = re.search(rf"```trace {kind}\n(.*?)```", SECTIONS[rule], flags=re.S)
    assert found is not None, f"the section {rule} has no {kind} example"
    return found[1]


def rules_of_example(folder: Path, text: str) -> set[str]:
    (folder / "base.trace").write_text("key: nll()\nrest: grpo()\n", encoding="utf-8")
    path = folder / "spec.trace"
    path.write_text(text, encoding="utf-8")
    return {found.rule for found in lint_file(path, PAGE_RUN).diagnostics}


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


def test_the_rules_page_explains_no_other_rule() -> None:
    assert set(SECTIONS) == set(RULES)
