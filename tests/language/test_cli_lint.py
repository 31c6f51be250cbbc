"""`trace-dsl lint`: exit codes, inputs, and that it is light."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.language import SHORTEST, TRACE, facts
from trace_dsl.cli import lint as command
from trace_dsl.cli.main import app
from trace_dsl.errors import RunFileError
from trace_dsl.facts import RunFacts

ROOT = Path(__file__).parents[2]
WRONG = "rest: grpo()\nkey: nll()\n"
WARNED = "key: nll()\n"


def lint(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["lint", *arguments], input=stdin)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clean.trace").write_text(TRACE, encoding="utf-8")
    (tmp_path / "wrong.trace").write_text(WRONG, encoding="utf-8")
    (tmp_path / "warned.trace").write_text(WARNED, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("output", ["full", "concise", "json"])
@pytest.mark.parametrize(("spec", "code"), [("clean", 0), ("warned", 0), ("wrong", 1)])
def test_exit_codes_are_those_of_the_findings_in_every_format(folder: Path, spec: str, code: int, output: str) -> None:
    assert lint(f"{spec}.trace", "--format", output).exit_code == code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.trace"], "gone.trace cannot be read: no such file"),
        (["clean.trace", "gone.trace"], "gone.trace"),
        (["latin.trace"], "not UTF-8"),
        (["empty"], "no *.trace file in empty"),
        (["clean.trace", "--run", "bad.yaml"], "bad.yaml: total_steps"),
    ],
)
def test_what_cannot_be_read_is_one_line_on_stderr_and_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    (folder / "latin.trace").write_bytes(b"# caf\xe9\nrest: grpo()\n")
    (folder / "empty").mkdir()

    def refuse(run: Path) -> RunFacts:
        raise RunFileError(f"{run}: total_steps must be at least 1")

    monkeypatch.setattr(command, "_facts", refuse)
    result = lint(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_an_unknown_option_is_2(folder: Path) -> None:
    assert lint("--frmat", "full").exit_code == 2


def test_folders_are_searched_and_default_is_here(folder: Path) -> None:
    (folder / "below").mkdir()
    (folder / "below" / "more.trace").write_text(WRONG, encoding="utf-8")
    for arguments in ([], ["."], [".", "wrong.trace"]):
        result = lint(*arguments, "--format", "json")
        assert result.exit_code == 1
        assert {found["path"] for found in json.loads(result.stdout)} == {
            "below/more.trace",
            "warned.trace",
            "wrong.trace",
        }


def test_standard_input() -> None:
    result = lint("-", "--format", "concise", stdin=WRONG)
    assert result.exit_code == 1
    assert result.stdout.startswith("<stdin>:2:1: error[shadowed-route]")
    assert lint("-", stdin=SHORTEST).exit_code == 0


def test_a_run_file_wakes_the_rules_that_need_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_facts", lambda run: facts(group_size=1))
    result = lint("clean.trace", "--run", "run.yaml", "--format", "concise")
    assert result.exit_code == 1
    assert "dead-advantage" in result.stdout


def test_json_is_an_array_even_when_there_is_nothing(folder: Path) -> None:
    assert json.loads(lint("clean.trace", "--format", "json").stdout) == []


def test_lint_imports_no_torch_no_numpy_and_opens_no_socket(folder: Path) -> None:
    """A spec is data: reading one runs no code, opens no socket, imports no torch."""
    program = (
        "import sys, socket\n"
        "def refuse(*a, **k): raise SystemExit('a socket was opened')\n"
        "socket.socket = socket.create_connection = refuse\n"
        "import trace_dsl\n"
        "from trace_dsl.cli.main import app\n"
        "code = None\n"
        "try:\n    app(['lint', 'wrong.trace'])\n"
        "except SystemExit as end:\n    code = end.code\n"
        "heavy = {'torch', 'numpy', 'megatron', 'transformers', 'yaml'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), 'CODE', code)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "HEAVY [] CODE 1", done.stdout + done.stderr


def test_python_m_trace_dsl(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", "trace_dsl", "lint", "-"],
        input="rest: grpo(w=漢)\n".encode(),
        capture_output=True,
        env=environment,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert b"\x1b[" not in done.stdout
    assert b"Traceback" not in done.stderr
