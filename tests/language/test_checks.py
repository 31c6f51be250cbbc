"""Every rule: where it fires, a near miss where it does not, and that a comment with a reason silences it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.language import SHORTEST, TRACE, facts, rules_of
from tests.language.rule_cases import CASES, Case
from trace_dsl.checks import CHECKS, RULES, check
from trace_dsl.facts import StoredTeacher
from trace_dsl.lint import lint_file, lint_text, parse_spec
from trace_dsl.model import Severity
from trace_dsl.rules import LANGUAGE_RULES, RuleSelection


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


def test_without_a_run_the_step_passes_every_number_that_a_spec_says() -> None:
    assert rules_of("rest: grpo(w=where(step >= 2000, 1, 0))") == []
    assert rules_of("rest: grpo(w=where(step >= 2000, 1, 0))", facts(total_steps=100)) == ["zero-weight"]


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


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("rest: grpo()\nkey: nll()", "move it above"),
        ("key | error: nll()\nkey when correct: grpo()\nrest: none", "move it above"),
        ("key: nll()\nerror: none\nkey | error when correct: nll()\nrest: none", "move it above"),
        ("key: nll()\nkey: grpo()\nrest: none", "join their losses with `+`"),
        ("key when correct: nll()\nkey when not wrong: grpo()\nrest: none", "join their losses with `+`"),
        ("rest when source == model: grpo()\nrest: nll()", "join their losses with `+`"),
        ("key when correct: nll()\nkey when wrong: none\nkey: grpo()\nrest: none", "take it out, or give"),
        ("key: nll()\nerror: none\nkey | error: grpo()\nrest: none", "take it out, or give"),
    ],
)
def test_shadowed_route_is_moved_up_only_where_that_leaves_the_others_tokens(text: str, fix: str) -> None:
    (found,) = [d for d in lint_text(text).diagnostics if d.rule == "shadowed-route"]
    assert fix in found.fix
    moved = text.split("\n")
    moved.insert(0, moved.pop(found.place.line - 1))
    shadows = "shadowed-route" in rules_of("\n".join(moved))
    assert shadows == (not found.fix.startswith("move"))


def test_a_route_with_an_error_shadows_nothing_and_is_not_shadowed() -> None:
    text = "key when rewrd: nll()\nkey when rewrd: nll()\nkey: nll()\nrest: grpo()\nrest when sourc == tool: nll()"
    assert rules_of(text) == ["unknown-name"] * 3


def test_a_route_with_a_wrong_label_is_not_judged_by_those_it_has_left() -> None:
    labels = "spans key, error\nkey: nll()\n"
    assert rules_of(f"{labels}key | eror: grpo()\nrest: none") == ["unknown-span"]
    assert rules_of(f"{labels}key | error: grpo()\nrest: none") == []
    assert rules_of("key: nll()\nkey | Error: grpo()\nrest: none") == ["unknown-span"]
    # what is wrong with its losses changes nothing about the tokens that it never gets
    assert rules_of("rest: none\nkey: grp()") == ["shadowed-route", "unknown-name"]


def test_a_route_that_lost_a_loss_to_an_error_is_not_said_to_fall_silent() -> None:
    chosen = RuleSelection(select=frozenset({"route-falls-silent"}))
    text = "key: fkl(anneal=linear(30)) + {}\nrest: nll()"
    assert [d.rule for d in lint_text(text.format("grp()"), selection=chosen).diagnostics] == ["unknown-name"]


def test_an_empty_spec_is_one_error() -> None:
    assert rules_of("") == rules_of("# nothing yet\n") == ["syntax"]
    assert rules_of("spans key") == ["no-default-route"]


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
PAGE_RUN = facts(
    total_steps=100,
    group_size=1,
    stored=(StoredTeacher(rollouts="old", teacher="big", top_k=0),),
    context_fields=(("feedback", ("prompt", "feedback", "span")),),
)


def example(rule: str, kind: str) -> str:
    found = re.search(rf"```trace {kind}\n(.*?)```", SECTIONS[rule], flags=re.S)
    assert found is not None, f"the section {rule} has no {kind} example"
    return found[1]


def rules_of_example(folder: Path, text: str) -> set[str]:
    (folder / "base.trace").write_text("key: nll()\nrest: grpo()\n", encoding="utf-8")
    (folder / "big").mkdir(exist_ok=True)
    (folder / "big" / "config.json").write_text('{"vocab_size": 32000}', encoding="utf-8")
    (folder / "chat").mkdir(exist_ok=True)
    (folder / "chat" / "generation_config.json").write_text('{"eos_token_id": [7, 9]}', encoding="utf-8")
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rest: grpo(w=-1)", "against its reward"),
        ("rest: nll(w=-1)", "likelihood"),
        ("rest: entropy(w=-1)", "entropy would be punished"),
        ("rest: fkl(w=-1, anneal=cos)", "the teacher `teacher`"),
        ("rest: k3(base, w=-1)", "the policy `base`"),
    ],
)
def test_what_a_negative_weight_costs_is_said_of_the_loss_at_hand(text: str, said: str) -> None:
    (found,) = (found for found in lint_text(text).diagnostics if "negative" in found.rule)
    assert said in found.consequence


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("rest: grpo(clip=(0.8, 1.28))", "write clip=(0.2, 0.28) for ratios between 0.8 and 1.28"),
        ("rest: grpo(clip=1.2)", "clip=0.2 keeps the ratio at most 1.2"),
        ("rest: grpo(clip=0)", "clip=(0.2, 0.28)"),
        ("teacher = self(ema=0.999)\nrest: fkl(anneal=cos)", "write ema=0.001 for a decay of 0.999"),
    ],
)
def test_numbers_of_another_meaning_are_given_in_this_one(text: str, fix: str) -> None:
    (found,) = lint_text(text).diagnostics
    assert fix in found.fix


def test_a_route_that_has_lost_a_label_shadows_nothing() -> None:
    assert rules_of("key | correct: grpo()\nkey: nll()\nrest: none") == ["unknown-span"]


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("correct and wrong", "a rollout is either correct or wrong"),
        ("1 > 2", "compare something that changes"),
        ("len > 3 and len < 2", "no value meets all of it"),
        ("step > 400", "compare with a step of the run"),
    ],
)
def test_the_fix_of_a_predicate_that_never_holds_is_about_what_it_reads(when: str, said: str) -> None:
    found = lint_text(f"rest when {when}: nll()\nrest: grpo()", facts()).diagnostics
    (one,) = [d for d in found if d.rule == "unreachable-predicate"]
    assert said in one.fix
    assert one.message.endswith("in the 300 steps of this run") is (when == "step > 400")
