"""How `trace-dsl lint` starts: light, and with the very arguments that typer reads."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests.language import SHORTEST
from trace_dsl.cli import lint_many
from trace_dsl.cli.arguments import for_typer, read
from trace_dsl.cli.lint import LintFormat, lint
from trace_dsl.configuration import FailLevel

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
WORDS = (
    *("a.trace", "b", "-", "", "full", "json", "yaml", "error", "x,y", "--", "--fix", "--no-fix", "--pedantic"),
    *("--no-pedantic", "--run", "--run=r.yaml", "--format", "--format=json", "--format=", "--select", "--select=x"),
    *("--ignore", "--fail-level", "--fail-level=never", "--help", "-h", "-f", "--fix=1", "--selec", "--formt=json"),
)


def by_typer(words: list[str]) -> dict[str, Any] | None:
    """The arguments that typer hands to `lint`, or None when it refuses."""
    given: list[dict[str, Any]] = []

    @functools.wraps(lint)
    def noted(**arguments: Any) -> int:
        given.append(arguments)
        return 0

    app = typer.Typer(add_completion=False)
    app.command()(for_typer(noted))
    result = CliRunner().invoke(app, words)
    return given[0] if given and result.exit_code == 0 else None


def filled(given: dict[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = dict(paths=None, run=None, output=LintFormat.FULL, select=None, ignore=None)
    return defaults | dict(pedantic=None, fail_level=None, fix=False) | given


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ([], {}),
        (["a", "-", "b"], {"paths": ["a", "-", "b"]}),
        (["--format", "json", "a", "--run=r.yaml"], {"output": LintFormat.JSON, "paths": ["a"], "run": Path("r.yaml")}),
        (["--select", "x", "--select=y,z", "--fix"], {"select": ["x", "y,z"], "fix": True}),
        (["--no-pedantic", "--fail-level", "never"], {"pedantic": False, "fail_level": FailLevel.NEVER}),
    ],
)
def test_what_is_right_is_read_without_typer(words: list[str], given: dict[str, Any]) -> None:
    assert read(lint, words) == given
    assert by_typer(words) == filled(given)


@pytest.mark.parametrize(
    "words", [["--help"], ["--formt=json"], ["--format", "yaml"], ["--run"], ["--fix=1"], ["--run", "--fix"], ["-x"]]
)
def test_what_has_to_be_explained_is_left_to_typer(words: list[str]) -> None:
    assert read(lint, words) is None


def test_whatever_is_read_without_typer_is_what_typer_reads() -> None:
    rng = random.Random(0)
    understood = 0
    for _ in range(400):
        words = [rng.choice(WORDS) for _ in range(rng.randint(0, 5))]
        given = read(lint, words)
        if given is not None:
            understood += 1
            assert filled(given) == by_typer(words), words
    assert understood > 60


# ------------------------------------------------------------------------------------------------------------ processes


def start(*arguments: str, stdin: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "trace_dsl", *arguments]
    return subprocess.run(
        program, input=stdin, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=60, **options
    )


@pytest.mark.parametrize(("spec", "code"), [(SHORTEST, 0), ("rest: grpo(w=é)\nkey fkl()\n", 1)])
def test_it_imports_nothing_that_is_not_the_language(spec: str, code: int) -> None:
    """Cold starts are most of what lint costs: it runs at every save and every commit."""
    program = (
        "import sys\n"
        "from trace_dsl.cli.start import run\n"
        "sys.argv = ['trace-dsl', 'lint', '-', '--format', 'concise']\n"
        "try:\n    run()\n"
        "except SystemExit as end:\n    code = end.code\n"
        "own = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "print(sorted(name for name in own if not name.startswith('_')), code)\n"
        "slow = {'json', 'importlib.metadata', 'concurrent', 'asyncio', 'trace_dsl.plan', 'trace_dsl.format'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    options = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"]
    done = subprocess.run(options, input=spec, capture_output=True, text=True, check=False, timeout=60, cwd="/")
    assert done.returncode == 0, done.stderr
    modules, _, last = done.stdout.splitlines()[-1].rpartition(" ")
    assert set(eval(modules)) <= {"trace_dsl", "sitecustomize", "distutils-precedence"}
    assert int(last) == code


def test_help_and_mistakes_are_explained_by_typer() -> None:
    done = start("lint", "--help")
    assert done.returncode == 0
    assert "--fail-level" in done.stdout
    done = start("lint", "--formt", "json")
    assert done.returncode == 2
    assert "No such option" in done.stderr
    assert start("--version").stdout.startswith("trace-dsl ")
    assert start("nonsense").returncode == 2


def test_a_reader_that_has_seen_enough_ends_it_in_silence(tmp_path: Path) -> None:
    for index in range(300):
        (tmp_path / f"{index:03}.trace").write_text("rest: grpo(w=rewrd)\n" * 20, encoding="utf-8")
    command = f"{sys.executable} -m trace_dsl lint {tmp_path} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=True)
    assert done.stdout.startswith("error[")
    assert done.stderr == ""


def test_many_specs_are_linted_by_several_processes_and_shown_in_order(tmp_path: Path) -> None:
    for index in range(lint_many.MANY + 30):
        text = "rest: grpo(w=rewrd)\n" if index % 7 == 0 else SHORTEST
        (tmp_path / f"{index:03}.trace").write_text(text, encoding="utf-8")
    (tmp_path / "050.trace").write_bytes(b"\xff\xfe")
    run = str(ROOT / "specs/demo/run.yaml")
    many = start("lint", str(tmp_path), "--format", "concise", "--run", run)
    assert many.returncode == 2
    paths = sorted(str(path) for path in tmp_path.iterdir())
    lines: list[str] = []
    few = lint_many.MANY - 1
    for begin in range(0, len(paths), few):
        part = start("lint", *paths[begin : begin + few], "--format", "concise", "--run", run)
        lines += part.stdout.splitlines()[:-1]
    assert many.stdout.splitlines()[:-1] == lines
    assert "050.trace is not UTF-8 text" in many.stderr


def test_ctrl_c_ends_it_without_a_traceback(tmp_path: Path) -> None:
    program = (
        "import signal, os, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "from trace_dsl.cli import lint, start\n"
        "def interrupted(*a, **k): os.kill(os.getpid(), signal.SIGINT); return ()\n"
        "lint.lint_paths = interrupted\n"
        f"sys.argv = ['trace-dsl', 'lint', {str(ROOT / 'specs')!r}]\n"
        "start.run()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=60
    )
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr
