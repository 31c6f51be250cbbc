"""What all commands share: help that teaches, plain output, exit codes, JSON that is what docs/commands.md says."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests.run_report.cases import make_run
from trace_dsl.cli.main import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
RUN = "specs/demo/run.yaml"
SPEC = "specs/demo/trace.trace"
ROLLOUTS = "tests/preview/recorded/step_000010.jsonl"
COMMANDS = tuple(typer.main.get_command(app).commands)  # type: ignore[attr-defined]

# Commands with something on every part of their output, run from the repository.
SHOWN = {
    "help": ["--help"],
    "lint": ["lint", "tests/language/golden/warnings.trace"],
    "fmt": ["fmt", "--diff", "tests/language/golden/ten_mistakes.trace", "tests/language/golden/clean.trace"],
    "plan": ["plan", SPEC, "--run", RUN],
    "plan of a refused spec": ["plan", "specs/published/aopd.trace", "--run", RUN, "--at", "0,end"],
    "preview": ["preview", SPEC, "--rollouts", ROLLOUTS, "--run", RUN, "--terminal"],
    "diff": ["diff", SPEC, "specs/demo/trace_fkl.trace", "--run", RUN],
    "explain": ["explain", "fkl", "gap", "hard-pclip", "teacher"],
    "explain --all": ["explain", "--all"],
    "prove": ["prove", SPEC, "--implies", "specs/demo/grpo.trace"],
    "test": ["test", "specs/demo"],
    "fit": ["fit", RUN, "--memory", "0.1"],
    "train": ["train", RUN, "steps=no"],
    "summary": ["summary", "specs"],
    **{f"{name} --help": [name, "--help"] for name in COMMANDS},
}


def environment(**changes: str) -> dict[str, str]:
    left_out = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "GITHUB_ACTIONS")
    kept = {key: value for key, value in os.environ.items() if key not in left_out}
    return {**kept, "OMP_NUM_THREADS": "1", "TERM": "xterm-256color", **changes}


def on_terminal(arguments: list[str], **changes: str) -> str:
    """What a command writes when it stands on a terminal, both streams together."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "trace_dsl", *arguments],
        cwd=ROOT,
        env=environment(**changes),
        stdin=child,
        stdout=child,
        stderr=child,
    )
    os.close(child)
    written = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        written += part
    process.wait()
    os.close(parent)
    return written.decode().replace("\r\n", "\n")


# ---------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_teaches_with_an_example(name: str | None) -> None:
    result = CliRunner().invoke(app, [*([name] if name else []), "--help"])
    assert result.exit_code == 0
    assert re.search(rf"Example: .*trace-dsl {name or 'lint'}", " ".join(result.stdout.split()))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_paragraph_of_help_is_one_line(name: str) -> None:
    """The list of commands shows it, and keeps its line breaks."""
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    first = command.help.split("\n\n")[0]
    assert "\n" not in first.strip()


# --------------------------------------------------------------------------------------------------------------- plain


@pytest.mark.parametrize("shown", SHOWN)
def test_piped_output_is_plain(shown: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trace_dsl", *SHOWN[shown]], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shown", SHOWN)
def test_no_color_is_plain_on_a_terminal(shown: str) -> None:
    written = on_terminal(SHOWN[shown], NO_COLOR="1", COLUMNS="80")
    assert written
    assert "\x1b" not in written


@pytest.mark.parametrize("shown", ["plan", "preview", "explain", "prove", "help", "diff"])
def test_a_terminal_has_colours(shown: str) -> None:
    assert "\x1b[" in on_terminal(SHOWN[shown], COLUMNS="80")


_WORDS = re.compile(r"\S+")


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("shown", ["plan", "plan of a refused spec", "explain", "explain --all", "prove", "diff"])
def test_lines_fit_the_terminal_and_no_word_is_broken(shown: str, columns: int) -> None:
    narrow = on_terminal(SHOWN[shown], NO_COLOR="1", COLUMNS=str(columns))
    wide = on_terminal(SHOWN[shown], NO_COLOR="1", COLUMNS="5000")
    assert max(len(line) for line in narrow.split("\n")) <= columns
    assert _WORDS.findall(narrow) == _WORDS.findall(wide)
    assert all(line == line.rstrip() for line in narrow.split("\n"))


# ---------------------------------------------------------------------------------------------------------- exit codes

BROKEN, LATIN = "rest: grop()\n", b"# caf\xe9\nrest: grpo()\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    (tmp_path / "broken.trace").write_text(BROKEN, encoding="utf-8")
    (tmp_path / "untidy.trace").write_text("rest:grpo( )\n", encoding="utf-8")
    (tmp_path / "unparsed.trace").write_text("rest grpo(\n", encoding="utf-8")
    (tmp_path / "broken.expect.yaml").write_text("steps: 1\ncases: [{name: a, step: 0}]\n", encoding="utf-8")
    (tmp_path / "partly.trace").write_text("rest when correct: grpo()\n", encoding="utf-8")
    wrong = "steps: 1\nrollouts: {a: {tokens: 1}}\ncases: [{name: a, step: 0, A: {a: 1}}]\n"
    (tmp_path / "partly.expect.yaml").write_text(wrong, encoding="utf-8")
    (tmp_path / "latin.trace").write_bytes(LATIN)
    (tmp_path / "latin.expect.yaml").write_bytes(LATIN)
    (tmp_path / "own.jsonl").write_text('{"prompt": "p", "response": "r", "reward": 1}\n', encoding="utf-8")
    make_run(tmp_path / "trained")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text("{}", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["lint", SPEC], 0),
        (["lint", "broken.trace"], 1),
        (["lint", "partly.trace", "--fail-level", "warning"], 1),
        (["lint", "latin.trace"], 2),
        (["lint", "gone.trace"], 2),
        (["lint", SPEC, "--run", "gone.yaml"], 2),
        (["lint", "--select", "no-such-rule"], 2),
        (["fmt", "--check", SPEC], 0),
        (["fmt", "--check", "untidy.trace"], 1),
        (["fmt", "--diff", "untidy.trace"], 1),
        (["fmt", "unparsed.trace"], 1),
        (["fmt", "latin.trace"], 2),
        (["fmt", "gone.trace"], 2),
        (["plan", SPEC, "--run", RUN], 0),
        (["plan", "broken.trace", "--run", RUN], 1),
        (["plan", "latin.trace", "--run", RUN], 2),
        (["plan", "gone.trace", "--run", RUN], 2),
        (["plan", SPEC], 2),
        (["plan", SPEC, "--run", "gone.yaml"], 2),
        (["plan", SPEC, "--run", RUN, "--at", "60"], 2),
        (["plan", SPEC, "--run", RUN, "--format", "yaml"], 2),
        (["preview", SPEC, "--rollouts", "own.jsonl"], 0),
        (["preview", SPEC, "--rollouts", "own.jsonl", "--terminal"], 0),
        (["preview", "broken.trace", "--rollouts", "own.jsonl"], 1),
        (["preview", SPEC, "--rollouts", "gone.jsonl"], 2),
        (["preview", SPEC, "--rollouts", "own.jsonl", "--step", "100"], 2),
        (["diff", SPEC, SPEC], 0),
        (["diff", SPEC, "partly.trace"], 1),
        (["diff", SPEC, "broken.trace"], 2),
        (["diff", SPEC, "latin.trace"], 2),
        (["diff", SPEC], 2),
        (["explain", "fkl"], 0),
        (["explain", "no-such-word"], 2),
        (["explain"], 2),
        (["prove", SPEC], 0),
        (["prove", "partly.trace"], 1),
        (["prove", SPEC, "--implies", "specs/demo/grpo.trace"], 1),
        (["prove", "broken.trace"], 2),
        (["prove", "latin.trace"], 2),
        (["prove", SPEC, "--implies", "gone.trace"], 2),
        (["test", SPEC], 0),
        (["test", "partly.trace"], 1),
        (["test", "broken.trace"], 2),
        (["test", "latin.trace"], 2),
        (["test", "gone.trace"], 2),
        (["fit", RUN], 0),
        (["fit", RUN, "--memory", "0.1"], 1),
        (["fit", RUN, "steps=no"], 2),
        (["train", RUN, "steps=no"], 2),
        (["train", "gone.yaml"], 2),
        (["train", RUN, "--resume", "--overwrite"], 2),
        (["summary", "run"], 2),
        (["study", "gone.yaml"], 2),
        (["summary", "gone"], 2),
        (["report", "trained"], 0),
        (["report", "trained", "trained"], 2),
        (["report", "run"], 2),
        (["report", "gone"], 2),
        *(([name, "--frmat"], 2) for name in COMMANDS),
        (["no-such-command"], 2),
        (["--version"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_exit_codes(folder: Path, arguments: list[str], code: int) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    if code == 2:
        assert result.stderr.strip(), "what could not be run says why"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_lists_the_exit_codes_of_every_command(name: str) -> None:
    assert re.search(rf"^\| `{name}` \|", PAGE, flags=re.M)


# ---------------------------------------------------------------------------------------------------------------- JSON


def paths_in(value: Any, prefix: str = "") -> set[str]:
    """Every path to a value: `routes[].losses[].name`."""
    if isinstance(value, dict):
        return {path for key, item in value.items() for path in paths_in(item, f"{prefix}.{key}" if prefix else key)}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return {path for item in value for path in paths_in(item, f"{prefix}[]")}
    return {prefix}


def documented(command: str) -> set[str]:
    """The fields of a command's section: a name with a dot in front stands beside the one before it."""
    section = re.search(rf"^### {command}\n(.*?)(?=^###|\Z)", PAGE, flags=re.M | re.S)
    assert section is not None
    found = set()
    for cell in re.findall(r"^\| (`.*?) \|", section[1], flags=re.M):
        parent = ""
        for name in re.findall(r"`([^`]+)`", cell):
            path = f"{parent}{name}" if name.startswith(".") else name
            parent = path.rpartition(".")[0]
            found.add(path)
    return found


_SETTINGS = re.compile(r"settings\[\]\.(name|value|default)$")

JSON = {
    "plan": [["plan", name, "--run", RUN] for name in (SPEC, "specs/published/aopd.trace", "-")],
    "diff": [["diff", SPEC, "specs/demo/trace_fkl.trace"], ["diff", SPEC, "-", "--run", RUN]],
    "prove": [["prove", SPEC, "--implies", "specs/demo/grpo.trace"], ["prove", "-"]],
    "explain": [["explain", "fkl", "hard-pclip"]],
    "test": [["test", "specs/demo"], ["test", "partly.trace"]],
    "fit": [["fit", RUN, "--memory", "0.1"], ["fit", RUN, "layout.dp=2", "optim.distributed=true"]],
}
STDIN = """spans key
rollouts hinted = policy(sees=diagnosis, when=all_wrong)
teacher = self(sync=10, sees=diagnosis)
let kl = schedule(0.5, warmup=10, anneal=linear(20))
error when wrong: rkl(w=kl) + grpo(w=1 - kl/0.5, clip=(0.2, 0.28))
rest when rows == hinted: nll(w=entropy)
"""


@pytest.mark.parametrize("command", JSON)
def test_json_has_the_fields_that_are_documented(folder: Path, command: str) -> None:
    found: set[str] = set()
    for arguments in JSON[command]:
        spec = STDIN.replace("spans key", "spans key, error")
        result = CliRunner().invoke(app, [*arguments, "--format", "json"], input=spec)
        assert result.exit_code in (0, 1), result.output
        value = json.loads(result.stdout)
        assert value["format"] == 1
        found |= paths_in(value)
    found = {_SETTINGS.sub("settings", path) for path in found} - {"format"}
    # where there is nothing to list or to tell, a field stands for what would be below it
    listed = documented(command)
    above = {path for path in found if any(other.startswith((f"{path}.", f"{path}[]")) for other in listed)}
    assert found - above == listed
