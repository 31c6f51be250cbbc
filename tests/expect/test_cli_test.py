"""`trace-dsl test`: what it finds, says, writes and ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.pages import agrees, newcomer, run_page
from trace_dsl.cli.main import app

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "testing-specs.md"

SPEC = "rest when correct: nll(w=2, per=token)\nrest: none\n"
GOOD = "steps: 4\nrollouts:\n  a: {reward: 1, tokens: 4}\ncases:\n  - {name: good, step: 0, weights: {rest/nll: 2/4}}\n"
BAD = GOOD + '  - {name: bad, step: 3, weights: {rest/nll: {a: [0, 1, 1, 0.5]}}, routes: {a: "1112"}, A: {a: 1}}\n'


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["test", *arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, expected in (("good", GOOD), ("bad", BAD), ("alone", None)):
        (tmp_path / f"{name}.trace").write_text(SPEC, encoding="utf-8")
        if expected is not None:
            (tmp_path / f"{name}.expect.yaml").write_text(expected, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("path", sorted((ROOT / "specs").rglob("*.expect.yaml")), ids=lambda path: path.name)
def test_what_stands_beside_the_shipped_specs_holds(path: Path) -> None:
    result = run(str(path))
    assert result.exit_code == 0, result.stdout


def test_every_spec_of_the_demo_has_expectations() -> None:
    demo = ROOT / "specs" / "demo"
    assert {p.stem for p in demo.glob("*.trace")} == {p.name.split(".")[0] for p in demo.glob("*.expect.yaml")}


def test_as_expected_is_0(folder: Path) -> None:
    for arguments in (["good.trace"], ["good.expect.yaml"], ["good.trace", "good.expect.yaml"]):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (
            0,
            "good.expect.yaml: 1 case as expected\n1 case of 1 spec: all as expected\n",
        )


def test_a_mismatch_is_1_and_says_what_differs_where(folder: Path) -> None:
    result = run("bad.trace")
    assert (result.exit_code, result.stdout) == (
        1,
        "bad.expect.yaml: 1 of 2 cases not as expected\n"
        "  case `bad`, step 3\n"
        "    route at token 3 of `a`: expected 2, found 1\n"
        "    A of `a`: expected 1, found 0\n"
        "    weight of rest/nll at token 0 of `a`: expected 0, found 0.5\n"
        "    weight of rest/nll at tokens 1-2 of `a`: expected 1, found 0.5\n"
        "2 cases of 1 spec: 1 not as expected\n",
    )


def test_folders_are_searched_and_default_is_here(folder: Path) -> None:
    (folder / "below").mkdir()
    (folder / "below" / "more.trace").write_text(SPEC, encoding="utf-8")
    (folder / "below" / "more.expect.yaml").write_text(GOOD, encoding="utf-8")
    for arguments in ([], ["."], [".", "good.trace"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert result.stdout.endswith("4 cases of 3 specs: 1 not as expected\n")
    assert run("below").exit_code == 0


def test_json_says_the_same(folder: Path) -> None:
    result = run("--format", "json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["format"] == 1
    assert [(file["path"], file["spec"]) for file in found["files"]] == [
        ("bad.expect.yaml", "bad.trace"),
        ("good.expect.yaml", "good.trace"),
    ]
    good, bad = found["files"][0]["cases"]
    assert good == {
        **{"name": "good", "step": 0, "as_expected": True, "written": False, "refused": None, "mismatches": []},
    }
    assert [(m["what"], m["tokens"], m["expected"], m["found"]) for m in bad["mismatches"]] == [
        ("routes", [3, 3], "2", "1"),
        ("A", None, 1.0, 0.0),
        ("weights", [0, 0], 0.0, 0.5),
        ("weights", [1, 2], 1.0, 0.5),
    ]


def test_update_writes_and_the_next_run_agrees(folder: Path) -> None:
    result = run("--update")
    assert (result.exit_code, result.stdout) == (
        0,
        "bad.expect.yaml: wrote 1 case anew (`bad`)\n"
        "bad.expect.yaml: 1 case as expected\n"
        "good.expect.yaml: 1 case as expected\n"
        "3 cases of 2 specs: all as expected\n",
    )
    assert run().exit_code == 0
    assert (folder / "good.expect.yaml").read_text(encoding="utf-8") == GOOD


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is denied to root")
def test_a_file_that_cannot_be_written_is_2(folder: Path) -> None:
    folder.chmod(0o555)
    try:
        result = run("bad.trace", "--update")
    finally:
        folder.chmod(0o755)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot be written" in result.stderr


def test_a_batch_that_cannot_be_lowered_is_1_with_the_reason(folder: Path) -> None:
    (folder / "odd.trace").write_text("rest: nll(w=1/reward)\n", encoding="utf-8")
    (folder / "odd.expect.yaml").write_text(GOOD.replace("reward: 1", "reward: 0"), encoding="utf-8")
    for arguments in ([], ["--update"]):
        result = run("odd.trace", *arguments)
        assert result.exit_code == 1
        assert "  case `good`, step 0\n    line 1: the weight of nll(w=1/reward) is not a finite" in result.stdout
    (file,) = json.loads(run("odd.trace", "--format", "json").stdout)["files"]
    assert file["cases"][0]["refused"].startswith("line 1: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["alone.trace"], "alone.trace has no expectations: there is no alone.expect.yaml"),
        (["gone.trace"], "gone.expect.yaml cannot be read: no such file"),
        (["empty"], "there is no *.expect.yaml file in empty"),
        (["run.yaml"], "run.yaml is neither a spec"),
        (["broken.trace"], "broken.trace:1:1: the text makes no sense here"),
        (["strange.expect.yaml"], "strange.expect.yaml:1: stepz: unknown setting"),
        (["late.trace"], "the weight of nll(w=1/step) has no value at step 0 of this run"),
        (["--frmat"], "No such option"),
    ],
)
def test_what_cannot_be_tested_is_2(folder: Path, arguments: list[str], words: str) -> None:
    (folder / "empty").mkdir()
    (folder / "broken.trace").write_text(": nll()\n", encoding="utf-8")
    (folder / "broken.expect.yaml").write_text(GOOD, encoding="utf-8")
    (folder / "late.trace").write_text("rest: nll(w=1/step)\n", encoding="utf-8")
    (folder / "late.expect.yaml").write_text(GOOD, encoding="utf-8")
    (folder / "strange.expect.yaml").write_text(f"stepz: 1\n{GOOD}", encoding="utf-8")
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    if words.startswith("broken"):
        assert "broken.trace:1:1: " in result.stderr
    else:
        assert words in result.stderr


def test_without_torch_it_says_what_to_install(folder: Path) -> None:
    program = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "sys.modules['torch'] = None\n"
        "from trace_dsl.cli.main import app\n"
        "app(['test', 'good.trace'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: trace-dsl test computes weights as training does, with torch, which is not")
    assert "pip install" in done.stderr


def test_the_page_runs(tmp_path: Path) -> None:
    """Each file of docs/testing-specs.md is written under its name, and each command prints what stands below it."""
    shown = list(run_page(PAGE.read_text(encoding="utf-8"), newcomer(tmp_path)))
    assert len(shown) >= 2
    for one in shown:
        assert agrees(one), f"expected\n{one.block.text}\ngot\n{one.printed}"
