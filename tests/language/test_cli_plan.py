"""`trace-dsl plan`: the table in full, its JSON, and what it does with input it cannot use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from trace_dsl.cli.main import app

ROOT = Path(__file__).parents[2]
RUN = "specs/demo/run.yaml"
PLAN = Path(__file__).parent / "plan"
SPEC = (PLAN / "table.trace").read_text(encoding="utf-8")
TABLE = (PLAN / "table.expected").read_text(encoding="utf-8")


def plan(*arguments: str, spec: str = SPEC) -> Result:
    return CliRunner().invoke(app, ["plan", "-", "--run", RUN, *arguments], input=spec)


def described(spec: str, at: str = "0") -> Any:
    result = plan("--format", "json", "--at", at, spec=spec)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_table_in_full() -> None:
    result = plan("--at", "0,25,end")
    assert result.exit_code == 0
    hash_of_plan = described(SPEC)["hash"]
    assert result.stdout == TABLE.replace("HASH", hash_of_plan)


def test_json_tells_what_the_table_does() -> None:
    """Every number and word of a row of the table is in the JSON."""
    found = described(SPEC, "0,25,end")
    table = TABLE.replace("HASH", found["hash"])
    key, error, measured, rest = found["routes"]
    assert [r["line"] for r in found["routes"]] == [3, 4, 5, 6]
    fkl, pg = key["losses"]
    assert [(at["step"], at["weight"]) for at in fkl["weight"]["at"]] == [(0, 0.5), (25, 0.25), (59, 0.0)]
    assert (fkl["weight"]["active"], fkl["weight"]["last_step"]) == ([[0, 39]], 39)
    assert fkl["support"] == {"text": "full vocabulary", "default": True}
    assert (fkl["teacher"], fkl["context"]) == ("teacher", "diagnosis")
    assert [at["weight"] for at in measured["losses"][0]["weight"]["at"]] == [None, None, None]
    assert error["losses"] == []
    assert {"name": "w", "value": "1", "default": True} in rest["losses"][0]["settings"]
    assert found["teachers"][0]["default"]
    for payload in found["payloads"]:
        losses = f"at the tokens of {', '.join(payload['losses'])}"
        assert f"  {payload['text']}: {'at every response token' if payload['everywhere'] else losses}" in table
    for loss in (fkl, pg, *measured["losses"], *rest["losses"]):
        assert f"  {loss['name']}: {loss['formula']}\n" in table
        for text in (loss["weight"]["text"], *loss["needs"], *loss["signals"]):
            assert text in table
        for setting in loss["settings"]:
            if setting["name"] not in ("teacher", "topk"):
                assert f"{setting['name']}={setting['value']}{' (default)' if setting['default'] else ''}" in table


# ------------------------------------------------------------------------------------------------------------- defaults


def settings(loss: str, header: str = "teacher = self(frozen)\n") -> dict[str, tuple[str, bool]]:
    (route,) = described(f"{header}rest: {loss}\n")["routes"]
    return {s["name"]: (s["value"], s["default"]) for s in route["losses"][0]["settings"]}


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (
            "grpo()",
            {
                **{"per": ("sequence", True), "clip": ("(0.2, 0.2)", True), "dual": ("none", True)},
                **{"level": ("token", True), "anchor": ("old", True), "tis": ("none", True)},
            },
        ),
        # a default that is written is somebody's choice
        (
            "grpo(clip=0.2, per=sequence, level=token, w=1)",
            {
                **{"per": ("sequence", False), "clip": ("(0.2, 0.2)", False), "dual": ("none", True)},
                **{"level": ("token", False), "anchor": ("old", True), "tis": ("none", True)},
            },
        ),
        ("cispo(high=2)", {"per": ("sequence", True), "adv": ("A", True), "high": ("2", False)}),
        ("k3(base, per=token)", {"per": ("token", False), "to": ("base", False)}),
        ("k3()", {"per": ("sequence", True), "to": ("ref", True)}),
        ("nll(anneal=cos)", {"w": ("1", True), "per": ("sequence", True)}),
        (
            "jsd(0.3, topk=8, tail=drop)",
            {
                **{"per": ("sequence", True), "beta": ("0.3", False), "teacher": ("teacher", True)},
                **{"topk": ("8", False), "of": ("teacher", True), "tail": ("drop", False)},
                **{"temperature": ("1", True), "pclip": ("none", True)},
            },
        ),
        (
            "rkl(teacher=teacher, temperature=1)",
            {
                **{"per": ("sequence", True), "teacher": ("teacher", False), "topk": ("none", True)},
                **{"temperature": ("1", False), "pclip": ("none", True)},
            },
        ),
    ],
)
def test_what_a_loss_does_not_write_is_marked(loss: str, expected: dict[str, tuple[str, bool]]) -> None:
    assert settings(loss) == expected


@pytest.mark.parametrize(
    ("statement", "default", "expected"),
    [
        ("", True, [("estimator", "group", True), ("center", "mean", True), ("scale", "std", True)]),
        ("advantage = group", False, [("estimator", "group", False), ("center", "mean", True), ("scale", "std", True)]),
        (
            "advantage = group(scale=none)",
            False,
            [("estimator", "group", False), ("center", "mean", True), ("scale", "none", False)],
        ),
        ("advantage = loo", False, [("estimator", "loo", False)]),
        ("advantage = none", False, [("estimator", "none", False)]),
    ],
)
def test_the_estimator_is_marked(statement: str, default: bool, expected: list[tuple[str, str, bool]]) -> None:
    advantage = described(f"{statement}\nrest: grpo()\n")["advantage"]
    assert advantage["default"] is default
    assert [(s["name"], s["value"], s["default"]) for s in advantage["settings"]] == expected


@pytest.mark.parametrize(
    ("statement", "default", "expected"),
    [
        ("", True, [("sync", "10", True), ("sees", "diagnosis", True)]),
        ("teacher = self(sync=10)", False, [("sync", "10", False), ("sees", "nothing", True)]),
        ("teacher = self(frozen, sees=diagnosis)", False, [("frozen", "frozen", False), ("sees", "diagnosis", False)]),
        ("teacher t = self(ema=0.1)", False, [("ema", "0.1", False), ("sees", "nothing", True)]),
        ('teacher t = model("a/b")', False, [("path", "a/b", False), ("sees", "nothing", True)]),
    ],
)
def test_teachers_are_marked(statement: str, default: bool, expected: list[tuple[str, str, bool]]) -> None:
    (teacher,) = described(f"{statement}\nrest: rkl(w=0.1, anneal=linear(30))\n")["teachers"]
    assert teacher["default"] is default
    assert [(s["name"], s["value"], s["default"]) for s in teacher["settings"]] == expected


def test_sources_of_rollouts_are_told() -> None:
    spec = (
        "rollouts hinted = policy(sees=diagnosis, when=all_wrong)\n"
        'rollouts kept = cached("x.jsonl")\n'
        "rest when rows == hinted: nll()\nrest when rows == kept and correct: nll()\nrest: none\n"
    )
    found = described(spec)
    assert [(r["name"], r["a_prompt"]) for r in found["rollouts"]] == [("policy", 8), ("hinted", 1), ("kept", None)]
    assert [r["takes"] for r in found["routes"]][:2] == [
        "every response token left over, of rollouts hinted",
        "every response token left over, of rollouts kept, where correct",
    ]
    assert (
        "rollouts: 8 a prompt from the policy, hinted 1 a prompt (default) from the policy, sees=diagnosis, "
        "when=all_wrong, kept from the file x.jsonl\n"
    ) in plan(spec=spec).stdout


# ------------------------------------------------------------------------------------------------------------- supports


@pytest.mark.parametrize(
    ("loss", "support", "payload"),
    [
        ("rkl()", "full vocabulary", "full vocabulary of teacher `teacher`"),
        (
            "fkl(topk=100, tail=bucket)",
            "the teacher's 100 likeliest tokens, the rest as one bucket",
            "the 100 likeliest tokens of teacher `teacher` and their log-probabilities",
        ),
        (
            "jsd(0.5, topk=8, of=student, tail=renorm)",
            "the student's 8 likeliest tokens, renormalised to them",
            "log-probabilities of the student's 8 likeliest tokens under teacher `teacher`",
        ),
        (
            "skl(0.5, topk=8)",
            "the teacher's 8 likeliest tokens, the rest dropped (default)",
            "the 8 likeliest tokens of teacher `teacher` and their log-probabilities",
        ),
    ],
)
def test_supports_of_divergences(loss: str, support: str, payload: str) -> None:
    (route,) = described(f"teacher = self(frozen)\nrest: {loss}\n")["routes"]
    assert route["losses"][0]["support"]["text"] == support
    assert route["losses"][0]["needs"] == [payload]


# ---------------------------------------------------------------------------------------------------------------- input


def test_a_file_and_standard_input_are_the_same() -> None:
    text = Path("specs/demo/trace.trace").read_text(encoding="utf-8")
    by_file = CliRunner().invoke(app, ["plan", "specs/demo/trace.trace", "--run", RUN])
    assert (by_file.exit_code, by_file.stdout) == (0, plan(spec=text).stdout)


def test_steps_are_where_weights_change_unless_asked() -> None:
    shown = plan(spec=SPEC.replace("gap", "len")).stdout
    assert "    at step  0: 0.5, 9: 0.5, 19: 0.35, 39: 0.01667, 40: 0, 59: 0\n" in shown
    assert "    at step  0: 0.5, 59: 0\n" in plan("--at", "end, 0,end").stdout
    for wrong in ("60", "-1", "1.5", "last", "1,,2", ""):
        result = plan("--at", wrong)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "a step is a number from 0 to 59, or 'end'" in result.stderr


def test_errors_are_shown_and_nothing_is_planned() -> None:
    result = plan(spec="rest: grpo()\nkey: nll()\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error[shadowed-route]")
    assert result.stderr.endswith("error: <stdin> has errors and cannot be planned\n")


def test_warnings_go_to_the_other_stream() -> None:
    result = plan(spec="key: nll()\n")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning[no-default-route]")
    assert "warning" not in result.stdout


@pytest.mark.parametrize("weight", ["1/step", "entropy*(1/step)"])
def test_a_weight_without_a_value_is_no_traceback(weight: str) -> None:
    result = plan(spec=f"rest: grpo(w={weight})  # trace: ignore[undefined-weight] to see what happens\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.rstrip().endswith("as in 1/(step + 1)")
    assert f"line 1: the weight of grpo(w={weight}) has no value at step 0 of this run" in result.stderr


def test_a_route_of_an_extended_spec_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "base.trace").write_text("key: nll()\nrest: grpo()\n", encoding="utf-8")
    (tmp_path / "child.trace").write_text('extends "base.trace"\nkey: none\n', encoding="utf-8")
    result = CliRunner().invoke(app, ["plan", str(tmp_path / "child.trace"), "--run", RUN])
    assert result.exit_code == 0, result.stderr
    assert "route 1 (line 2): tokens labelled key\n" in result.stdout
    assert f"route 2 ({tmp_path}/base.trace:2): every response token left over\n" in result.stdout


def test_what_the_engine_refuses_is_noted() -> None:
    spec = "rest: grpo() + k3(to=ref, w=0.1)\n"
    message = "k3(to=ref) is not run: the engine keeps no log-probs of that policy"
    assert described(spec)["refused"] == [{"line": 1, "message": message}]
    note = f"note: line 1: {message}; this engine version would refuse to train it\n"
    assert note in plan(spec=spec).stdout
