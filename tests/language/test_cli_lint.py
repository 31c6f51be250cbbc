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
from trace_dsl.cli.lint_many import lint_paths
from trace_dsl.cli.main import app
from trace_dsl.errors import RunFileError, SpecError
from trace_dsl.facts import RunFacts
from trace_dsl.lint import LintResult, lint_text

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


@pytest.mark.parametrize("output", ["full", "concise", "json", "github", "sarif"])
@pytest.mark.parametrize(("spec", "code"), [("clean", 0), ("warned", 0), ("wrong", 1)])
def test_exit_codes_are_those_of_the_findings_in_every_format(folder: Path, spec: str, code: int, output: str) -> None:
    assert lint(f"{spec}.trace", "--format", output).exit_code == code


def test_a_file_that_cannot_be_read_hides_nothing_of_the_others(folder: Path) -> None:
    (folder / "binary.trace").write_bytes(b"\xff\xfe")
    found = lint("binary.trace", "wrong.trace", "gone.trace", "--format", "concise")
    assert found.exit_code == 2
    assert "wrong.trace:2:1: error[shadowed-route]" in found.stdout
    assert found.stderr.count("error: ") == 2
    assert json.loads(lint("binary.trace", "--format", "json").stdout) == []


def test_with_a_run_it_says_what_train_would_refuse() -> None:
    spec = "rest: k3(w=0.1) + grpo(level=sequence) + nll(w=ref_logp)\n"
    assert lint("-", stdin=spec).exit_code == 0
    found = lint("-", "--run", str(ROOT / "specs/demo/run.yaml"), "--format", "concise", stdin=spec)
    assert found.exit_code == 1
    assert found.stdout.count("error[engine-unsupported]") == 2


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

    monkeypatch.setattr(command, "run_facts", refuse)
    result = lint(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stdout


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
    monkeypatch.setattr(command, "run_facts", lambda run: facts(group_size=1))
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


# ----------------------------------------------------------------------------------------------- rules, settings, fixes


@pytest.mark.parametrize(
    ("arguments", "code", "rules"),
    [
        (["wrong.trace"], 1, {"shadowed-route"}),
        (["warned.trace"], 0, {"no-default-route"}),
        (["warned.trace", "--fail-level", "warning"], 1, {"no-default-route"}),
        (["wrong.trace", "--fail-level", "never"], 0, {"shadowed-route"}),
        (["wrong.trace", "--ignore", "shadowed-route"], 0, set()),
        (["wrong.trace", "warned.trace", "--select", "shadowed-route"], 1, {"shadowed-route"}),
        (["wrong.trace", "warned.trace", "--select", "zero-weight, no-default-route"], 0, {"no-default-route"}),
        (["wrong.trace", "--select", "zero-weight", "--select", "shadowed-route"], 1, {"shadowed-route"}),
        (["taste.trace"], 0, set()),
        (["taste.trace", "--pedantic"], 0, {"mixed-denominator"}),
        (["taste.trace", "--pedantic", "--fail-level", "warning"], 1, {"mixed-denominator"}),
        (["taste.trace", "--select", "mixed-denominator"], 0, {"mixed-denominator"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_which_rules_speak_and_what_fails(folder: Path, arguments: list[str], code: int, rules: set[str]) -> None:
    (folder / "taste.trace").write_text("key: nll(per=selected)\nrest: nll()\n", encoding="utf-8")
    result = lint(*arguments, "--format", "json")
    assert result.exit_code == code, result.stderr
    assert {found["rule"] for found in json.loads(result.stdout)} == rules


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--select", "zero-wait"], "--select: there is no rule 'zero-wait'; did you mean `zero-weight`?"),
        (["--ignore", "zero-weight,clip"], "--ignore: there is no rule 'clip'"),
        (["--ignore", "unknown-name"], "--ignore: 'unknown-name' cannot be ignored"),
        (["-", "--fix"], "standard input is none"),
    ],
)
def test_options_that_mean_nothing_are_one_line_and_2(folder: Path, arguments: list[str], words: str) -> None:
    result = lint(*(arguments if "-" in arguments else ["clean.trace", *arguments]), stdin=WRONG)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert words in result.stderr


def test_settings_of_the_nearest_pyproject_and_the_command_line_over_them(folder: Path) -> None:
    text = '[tool.trace-dsl]\nignore = ["shadowed-route"]\nfail-level = "warning"\n'
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    assert lint("wrong.trace").exit_code == 0
    assert lint("warned.trace").exit_code == 1
    assert lint("warned.trace", "--fail-level", "error").exit_code == 0
    assert lint("wrong.trace", "--ignore", "zero-weight").exit_code == 1
    assert lint("wrong.trace", "--select", "shadowed-route").exit_code == 1
    (folder / "pyproject.toml").write_text("[tool.trace-dsl]\npedantc = true\n", encoding="utf-8")
    result = lint("clean.trace")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "has no setting 'pedantc'; did you mean `pedantic`?" in result.stderr


def test_fix_writes_the_file_and_says_what_it_took_out(folder: Path) -> None:
    path = folder / "unused.trace"
    path.write_bytes(b"let a = 1\r\nrest: grpo()\r\n")
    path.chmod(0o640)
    result = lint("unused.trace", "--fix", "--format", "concise", "--fail-level", "warning")
    assert result.exit_code == 0
    assert path.read_bytes() == b"rest: grpo()\r\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert result.stderr == "fixed unused.trace: took out let a = 1\n"
    assert result.stdout.startswith("1 spec checked, nothing found")
    assert sorted(p.name for p in folder.iterdir() if "unused" in p.name) == ["unused.trace"]
    before = path.stat().st_mtime_ns
    assert lint("unused.trace", "--fix").stderr == ""
    assert path.stat().st_mtime_ns == before


def test_without_fix_nothing_is_written(folder: Path) -> None:
    (folder / "unused.trace").write_text("let a = 1\nrest: grpo()\n", encoding="utf-8")
    lint("unused.trace", "--fail-level", "warning")
    assert (folder / "unused.trace").read_text(encoding="utf-8") == "let a = 1\nrest: grpo()\n"


def test_a_spec_that_another_extends_is_left_alone(folder: Path) -> None:
    text = "let a = 1\nrest: grpo()\n"
    (folder / "base.trace").write_text(text, encoding="utf-8")
    (folder / "child.trace").write_text('extends "base.trace"\nkey: nll(w=a)\n', encoding="utf-8")
    result = lint("base.trace", "--fix")
    assert (folder / "base.trace").read_text(encoding="utf-8") == text
    assert result.stderr == "left alone base.trace: child.trace extends it and may use what looks unused here\n"
    assert lint("child.trace", "--fix").stderr == ""


def test_a_file_that_cannot_be_replaced_is_2(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, content: bytes) -> None:
        raise SpecError(f"{path} cannot be written: no space left on device")

    (folder / "unused.trace").write_text("let a = 1\nrest: grpo()\n", encoding="utf-8")
    monkeypatch.setattr("trace_dsl.format.files.replace_file", refuse)
    result = lint("unused.trace", "--fix")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: unused.trace cannot be written: no space left on device\n"


def test_a_run_file_is_told_where_it_belongs(folder: Path) -> None:
    (folder / "runs").mkdir()
    run = folder / "runs" / "run.yaml"
    run.write_text("name: x\nspec: ../clean.trace   # beside it\nsteps: 3\nrollout:\n  prompts: 2\n", encoding="utf-8")
    result = lint("runs/run.yaml")
    assert result.exit_code == 2
    assert "runs/run.yaml is a run file, not a spec" in result.stderr
    assert "trace-dsl lint clean.trace --run runs/run.yaml" in result.stderr
    run.write_text("spans:\n- key\n", encoding="utf-8")
    result = lint("runs/run.yaml")
    assert (result.exit_code, "this is YAML" in result.stdout) == (1, True)


def test_every_spec_has_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linter that ends early is no end of the list."""

    def stops(path: str) -> LintResult:
        if path == "b":
            raise StopIteration
        return lint_text("rest: grpo()", path=path)

    with pytest.raises(StopIteration):
        lint_paths(["a", "b", "c"], stops)
