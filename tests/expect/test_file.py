"""The file of expected weights: what it may say, and that every mistake is one line that names its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from trace_dsl.errors import ExpectationError, SpecError
from trace_dsl.expect.file import expectations_of, parse_expectations, read_expectations
from trace_dsl.expect.run import run_cases

SPEC = """spans key(cap=25%), error
teacher = self(sync=10, sees=diagnosis)
teacher other = self(frozen)
rollouts hinted = policy(sees=diagnosis)
key when correct: fkl(w=0.5) + grpo()
rest when gap > 0 and entropy > 1: pg(adv=gap(other))
rest: grpo()
"""
ROLLOUT = "{tokens: 4, has: [diagnosis], signals: {gap: 1, entropy: [0, 1, 2, 3], gap(other): 2}}"


def written(folder: Path, text: str, spec: str = SPEC) -> str:
    (folder / "x.trace").write_text(spec, encoding="utf-8")
    path = folder / "x.expect.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def mistakes(folder: Path, text: str) -> list[str]:
    """What is wrong with a file, without its path."""
    path = written(folder, text)
    with pytest.raises(ExpectationError) as raised:
        run_cases(read_expectations(path))
    lines = str(raised.value).split("\n")
    assert all(line.startswith(path) for line in lines), lines
    return [line.removeprefix(f"{path}:") for line in lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps: 9\ncases: []\n", "2: cases: [] is not allowed: list should have at least 1 item"),
        ("steps: 9\n", "1: cases: missing"),
        ("stepz: 9\ncases: [{name: a, step: 0}]\n", "1: stepz: unknown setting; did you mean 'steps'?"),
        ("steps: 9\ncases:\n  - {name: a, stp: 0}\n", "3: cases.0.stp: unknown setting; did you mean 'step'?"),
        ("steps: 9\ncases:\n  - name: a\n    step: 1.5\n", "4: cases.0.step: 1.5 is not allowed"),
        ("steps: 9\nsteps: 8\n", "2:1: not valid YAML: the key 'steps' stands twice"),
        ("- 1\n", " it is a mapping with steps, rollouts and cases"),
        ("steps: 0\ncases: [{name: a, step: 0}]\n", "1: steps: 0 is not allowed"),
        ("steps: 9\nrollouts:\n  a: {tokens: -1}\ncases: [{name: a, step: 0}]\n", "3: rollouts.a.tokens: -1"),
        ("steps: 9\nrollouts:\n  a: {tokens: 2, has: [hint]}\ncases: [{name: a, step: 0}]\n", "3: rollouts.a.has.0"),
        ("steps: 9\nrollouts:\n  a: {tokens: 2, tool: [1]}\ncases: [{name: a, step: 0}]\n", "3: rollouts.a.tool.0"),
        (
            "steps: 9\nrollouts:\n  a: {tokens: 2, reward: none}\ncases: [{name: a, step: 0}]\n",
            "3: rollouts.a.reward: 'none' is not allowed: it is neither a number nor a formula of numbers",
        ),
        (
            "steps: 9\ncases:\n  - name: a\n    step: 0\n    weights: {rest/grpo: {a: [1, gap]}}\n",
            "5: cases.0.weights.rest/grpo.a: [1, 'gap'] is not allowed: it is neither a number nor a formula",
        ),
        ("steps: 9\ncases:\n  - name: a\n    step: 0\n    routes: {a: 11}\n", "5: cases.0.routes.a: 11 is not allowed"),
    ],
)
def test_what_the_file_may_not_say(tmp_path: Path, text: str, expected: str) -> None:
    assert any(line.startswith(expected) for line in mistakes(tmp_path, text)), mistakes(tmp_path, text)


def with_case(rollout: str = ROLLOUT, **case: str) -> str:
    keys = {"name": "a", "step": "0", **case}
    lines = [f"{key}: {value}" for key, value in keys.items()]
    return f"steps: 9\nrollouts:\n  r: {rollout}\ncases:\n  - " + "\n    ".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (with_case(step="9"), "6: cases.0.step: 9 is past the run, whose last step is 8"),
        (with_case(rollouts="{}"), "5: cases.0: there are no rollouts"),
        (with_case("{tokens: 2, spans: {kye: [0, 1]}}"), "3: rollouts.r.spans.kye: the spec has no label 'kye'; did"),
        (with_case("{tokens: 2, spans: {key: [1, 3]}}"), "3: rollouts.r.spans.key: [1, 3] is no stretch"),
        (with_case("{tokens: 2, tool: [2, 1]}"), "3: rollouts.r.tool: [2, 1] is no stretch"),
        (with_case("{tokens: 2, rows: hint}"), "3: rollouts.r.rows: the spec has no rollouts 'hint'; did you mean"),
        (with_case("{tokens: 2, signals: {gap: 1}}"), "3: rollouts.r.signals.gap: the teacher sees the diagnosis and"),
        (with_case("{tokens: 2, signals: {pos: 1}}"), "3: rollouts.r.signals.pos: 'pos' is no measurement"),
        (with_case("{tokens: 2, signals: {gap(x): 1}}"), "3: rollouts.r.signals.gap(x): the spec has no teacher 'x'"),
        (with_case("{tokens: 2, signals: {entropy: [1]}}"), "3: rollouts.r.signals.entropy: 1 numbers for 2 tokens"),
        (with_case("{tokens: 2}"), "3: rollouts.r: the spec reads entropy at step 0: give signals: {entropy: ...}"),
        (with_case("{tokens: 2}"), "3: rollouts.r: the spec reads gap(other) at step 0"),
        (with_case("{tokens: 2, has: [diagnosis]}"), "3: rollouts.r: the spec reads gap at step 0"),
        (with_case("{tokens: 2, signals: {logp: 1}}"), "3: rollouts.r: the spec reads gap(other) at step 0"),
        (with_case(weights="{rest/grop: 0}"), "7: cases.0.weights.rest/grop: the spec has no such loss; did you mean"),
        (with_case(weights="{key/fkl: [1, 2]}"), "7: cases.0.weights.key/fkl: a list has one number a token"),
        (with_case(weights="{key/fkl: {q: 0}}"), "7: cases.0.weights.key/fkl.q: there is no rollout 'q'"),
        (with_case(weights="{key/fkl: {r: [0]}}"), "7: cases.0.weights.key/fkl.r: 1 numbers for 4 tokens"),
        (with_case(advantages="{key/fkl: 0}"), "7: cases.0.advantages.key/fkl: it has no advantage"),
        (with_case(routes='{r: "11"}'), "7: cases.0.routes.r: 2 characters for 4 tokens"),
        (with_case(A="{q: 0}"), "7: cases.0.A.q: there is no rollout 'q'"),
        (with_case() + "  - {name: a, step: 1}\n", "7: cases.1.name: another case is named 'a' too"),
    ],
)
def test_what_its_spec_does_not_know(tmp_path: Path, text: str, expected: str) -> None:
    assert any(line.startswith(expected) for line in mistakes(tmp_path, text)), mistakes(tmp_path, text)


def test_every_mistake_of_every_case_is_told_at_once(tmp_path: Path) -> None:
    text = with_case(step="9", weights="{a/b: 0}") + "  - {name: b, step: 10, A: {x: 1}}\n"
    assert [line.split(":")[0] for line in mistakes(tmp_path, text)] == ["6", "7", "8", "8"]


@pytest.mark.parametrize(
    "rollout",
    [
        "{tokens: 2, signals: {entropy: 1, gap(other): 1}}",  # no diagnosis: the teacher that sees it measures nothing
        "{tokens: 2, has: [diagnosis], signals: {entropy: 1, logp: -1, teacher_logp: -2, teacher_logp(other): -3}}",
        "{tokens: 0}",
    ],
)
def test_what_follows_from_other_measurements_need_not_be_given(tmp_path: Path, rollout: str) -> None:
    run_cases(read_expectations(written(tmp_path, with_case(rollout))))


def test_a_signal_of_the_only_teacher_needs_no_name(tmp_path: Path) -> None:
    spec = "teacher t = self(frozen)\nrest: pg(adv=gap)\n"
    text = "steps: 1\nrollouts:\n  r: {tokens: 1, signals: {gap: 2}}\ncases:\n"
    text += "  - {name: a, step: 0, advantages: {rest/pg: 2}}\n"
    (outcome,) = run_cases(read_expectations(written(tmp_path, text, spec)))
    assert outcome.mismatches == ()


def test_a_number_may_be_a_formula() -> None:
    text = "steps: 1\ncases: [{name: a, step: 0, weights: {x: {r: [1/4, -sqrt(4), 2e-1, 0.5*(1 + 1)]}, y: 10%}}]\n"
    (case,) = parse_expectations("p", text).cases
    assert case.weights == {"x": {"r": [0.25, -2.0, 0.2, 1.0]}, "y": {"*": 0.1}}


def test_files_are_found_beside_their_specs(tmp_path: Path) -> None:
    path = written(tmp_path, "steps: 1\n")
    assert expectations_of(path) == expectations_of(str(tmp_path / "x.trace")) == path
    (tmp_path / "alone.trace").write_text("rest: none\n", encoding="utf-8")
    with pytest.raises(ExpectationError, match=r"alone\.trace has no expectations: there is no .*alone\.expect\.yaml"):
        expectations_of(str(tmp_path / "alone.trace"))
    with pytest.raises(ExpectationError, match=r"run\.yaml is neither a spec"):
        expectations_of("run.yaml")


def test_the_spec_must_be_there_and_mean_something(tmp_path: Path) -> None:
    path = written(tmp_path, "steps: 1\ncases: [{name: a, step: 0}]\n", "rest: grop()\n")
    with pytest.raises(SpecError, match=r"x\.trace:1:7: there is no loss `grop` \(trace-dsl lint"):
        read_expectations(path)
    (tmp_path / "x.trace").unlink()
    with pytest.raises(ExpectationError, match=r"is about .*x\.trace, and there is no such file"):
        read_expectations(path)
    with pytest.raises(SpecError, match="cannot be read"):
        read_expectations(str(tmp_path / "gone.expect.yaml"))
