"""Files and texts made to break a reader: each ends with an error, without a traceback, in bounded time and memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.language import SHORTEST, facts
from trace_dsl.lint import lint_text
from trace_dsl.spec_files import MAX_BYTES
from trace_dsl.syntax import parse_source
from trace_dsl.syntax.parse import MAX_LENGTH, MAX_STATEMENTS

ROOT = Path(__file__).parents[2]
RUN = str(ROOT / "specs" / "demo" / "run.yaml")
HUGE = 100_000_000
# What a process may use: far more than it needs, far less than a bomb would take.
MEMORY = 1 << 30
PROCESSOR_SECONDS = 30


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))


def start(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "trace_dsl", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=limited,
        check=False,
        timeout=300,
        **options,
    )
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert done.returncode >= 0, f"ended by signal {-done.returncode}"
    return done


# ---------------------------------------------------------------------------------------------------------------- files


def sparse(first: bytes) -> Callable[[Path], None]:
    """A file of 100 MB that begins like this; the rest of it takes no room on the disk."""

    def make(path: Path) -> None:
        path.write_bytes(first)
        os.truncate(path, HUGE)

    return make


def folder_that_is_a_file_name(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path.name)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "one_line": (sparse(b"rest: grpo(w=1 + "), "has 100,000,000 bytes, and a spec has at most 200,000"),
    "newlines": (lambda path: path.write_bytes(b"\n" * (MAX_BYTES + 1)), "has 200,001 bytes"),
    "comment": (sparse(b"# "), "has 100,000,000 bytes"),
    "zeros": (lambda path: path.write_bytes(b"rest: grpo()\n\0\0\0"), "is no text file (byte 13 is zero)"),
    "utf16": (lambda path: path.write_bytes(SHORTEST.encode("utf-16")), "is not UTF-8 text"),
    "folder": (folder_that_is_a_file_name, "it is a folder"),
    "pipe": (os.mkfifo, "it is a pipe; a spec from a pipe is read from standard input"),
    "endless": (lambda path: path.symlink_to("/dev/zero"), "it is no regular file"),
    "loop": (loop, "cannot be read: too many levels of symbolic links"),
    "gone": (lambda path: None, "cannot be read: no such file"),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    for name, (make, _) in FILES.items():
        make(folder / name)
    (folder / "good.trace").write_text(SHORTEST, encoding="utf-8")
    return folder


def test_lint_says_of_every_file_why_it_cannot_be_read(bad: Path) -> None:
    # A folder that is named is searched, so the folder is named as nothing but a spec can be: by `extends`.
    names = [name for name in FILES if name != "folder"]
    done = start("lint", *(str(bad / name) for name in names))
    assert done.returncode == 2
    complaints = done.stderr.splitlines()
    assert len(complaints) == len(names)
    for name, complaint in zip(names, complaints, strict=True):
        assert complaint.startswith(f"error: {bad / name}")
        assert FILES[name][1] in complaint


@pytest.mark.parametrize("name", ["one_line", "pipe", "folder", "endless"])
@pytest.mark.parametrize(
    "command",
    [
        ["fmt", "--check", "SPEC"],
        ["prove", "SPEC"],
        ["diff", "SPEC", str(ROOT / "specs" / "demo" / "trace.trace")],
        ["plan", "SPEC", "--run", RUN],
    ],
    ids=lambda command: command[0],
)
def test_every_command_refuses_them_in_the_same_words(bad: Path, command: list[str], name: str) -> None:
    if (command[0], name) == ("fmt", "folder"):
        return  # fmt searches a folder, as lint does
    done = start(*(str(bad / name) if word == "SPEC" else word for word in command))
    assert done.returncode == 2
    assert FILES[name][1] in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_the_right_to_read_it(tmp_path: Path) -> None:
    path = tmp_path / "secret.trace"
    path.write_text(SHORTEST, encoding="utf-8")
    path.chmod(0)
    done = start("lint", str(path))
    assert (done.returncode, done.stderr) == (2, f"error: {path} cannot be read: permission denied\n")


@pytest.mark.parametrize("command", ["lint", "prove"])
def test_standard_input_is_not_read_to_its_end(bad: Path, command: str) -> None:
    with open(bad / "one_line", "rb") as stream:
        done = start(command, "-", stdin=stream)
    assert done.returncode == 2
    assert "<stdin> cannot be read: it has more than 200,000 bytes" in done.stderr


def test_extends_of_such_files_is_a_finding_at_its_line(bad: Path) -> None:
    for name, (_, reason) in FILES.items():
        found = lint_text(f'extends "{name}"\n', path=str(bad / "x.trace")).diagnostics
        assert [x.rule for x in found] == ["bad-extends"]
        assert reason in found[0].message


def test_chains_circles_and_trees_of_extends_end(tmp_path: Path) -> None:
    for index in range(10_000):
        (tmp_path / f"chain{index}.trace").write_text(f'extends "chain{index + 1}.trace"\n', encoding="utf-8")
    for index in range(40):
        lines = "".join(f'extends "tree{index + 1}.trace"\n' for _ in range(3))
        (tmp_path / f"tree{index}.trace").write_text(lines, encoding="utf-8")
    (tmp_path / "self.trace").write_text('extends "self.trace"\nrest: none\n', encoding="utf-8")
    (tmp_path / "a.trace").write_text('extends "b.trace"\nrest: none\n', encoding="utf-8")
    (tmp_path / "b.trace").write_text('extends "a.trace"\nrest: none\n', encoding="utf-8")
    specs = [str(tmp_path / f"{name}.trace") for name in ("chain0", "tree0", "self", "a")]
    done = start("lint", *specs, "--format", "concise")
    assert done.returncode == 1
    assert "more than 16 specs are read for this one" in done.stdout
    assert '"self.trace" extends this spec in turn' in done.stdout
    assert '"a.trace" extends this spec in turn' in done.stdout
    assert done.stdout.count("extends this spec in turn") == 2


def test_a_spec_of_many_large_files_is_refused(tmp_path: Path) -> None:
    statements = "".join(f"let a{index} = 1\n" for index in range(1500))
    for name in ("a", "b"):
        (tmp_path / f"{name}.trace").write_text(statements.replace("let a", f"let {name}"), encoding="utf-8")
    found = lint_text('extends "a.trace"\nextends "b.trace"\nrest: none\n', path=str(tmp_path / "x.trace")).diagnostics
    assert "have more than 2,000 statements" in found[0].message


# ---------------------------------------------------------------------------------------------------------------- texts


def chain(first: str, following: str, number: int) -> str:
    return first + "".join(following.format(index=index, next=index + 1) for index in range(number))


TEXTS = {
    "brackets": ("let x = " + "(" * 5000 + "1" + ")" * 5000, "brackets are nested 5000 deep; at most 32"),
    "calls": ("let x = " + "f(" * 5000 + "1" + ")" * 5000, "brackets are nested 5000 deep"),
    "not": ("let x = " + "not " * 4000 + "p", "more than 60 operations deep"),
    "minus_in_a_cap": ("spans key(cap=2" + "-" * 9000 + "1)", "more than 60 operations deep"),
    "minus_in_a_teacher": ("teacher = self(sync=" + "-" * 9000 + "1)", "more than 60 operations deep"),
    "minus": ("let x = " + "- " * 9000 + "1", "more than 60 operations deep"),
    "sum": ("let x = a" + " + a" * 100_000, "this spec is 400,009 characters long"),
    "a_long_sum": ("let x = a" + " + a" * 10_000, "this statement is 40009 characters long; at most 20000"),
    "routes": ("a: b\n" * 30_000, "has 30,000 statements; at most 2,000"),
    "many_routes": ("key: grpo()\n" * 100_000, "this spec is 1,200,000 characters long; at most 200,000"),
    "lets_in_circles": (chain("", "let a{index} = a{next}\n", 1999) + "let a1999 = a0\n", "is read before its `let`"),
    "lets_doubling": (
        chain("let a0 = step\n", "let a{next} = a{index} + a{index}\n", 60) + "rest: grpo(w=a60)\n",
        "`a12` has more than 5000 parts or 100 levels",
    ),
    "lets_chained": (
        chain("let a0 = step\n", "let a{next} = a{index} + 1\n", 1900) + "rest: grpo(w=a1900)\n",
        "more than 5000 parts or 100 levels",
    ),
    "routes_over_large_lets": (
        chain("let a0 = schedule(1, warmup=50000)\n", "let a{next} = a{index} + a{index}\n", 11)
        + "".join(f"key when len > {index}: grpo(w=a11*{index})\n" for index in range(1000)),
        "have more than 100,000 parts",
    ),
    "unknown_names": (
        chain("", "let b{index} = " + " + ".join(f"u{j}" for j in range(30)) + "\n", 1000),
        "called `u0`",
    ),
    "unclosed": ("key: fkl(\n" * 1900, "this bracket is never closed"),
    "quotes": ('"' * 19_000, "names stand without quotes"),
    "a_long_name": (f"let {'a' * 15_000} = 1\nrest: grpo(w={'a' * 14_999}b)", "there is no signal or `let` called"),
    "a_long_number": ("let x = " + "9" * 19_000, "is too large for a number"),
    "comments": ("# trace: ignore[zero-weight] x\n" * 6000 + "rest: none\n", "finds nothing on this line"),
    "long_schedules": (
        "".join(f"key when len > {index}: grpo(w=schedule({index}, warmup=50000) - step)\n" for index in range(1900)),
        "the loss is turned around",
    ),
}


@pytest.mark.parametrize("output", ["full", "concise"])
def test_texts_made_to_break_a_reader_end_with_findings(tmp_path: Path, output: str) -> None:
    for name, (text, _) in TEXTS.items():
        if len(text) <= MAX_BYTES:
            (tmp_path / f"{name}.trace").write_text(text, encoding="utf-8")
    done = start("lint", str(tmp_path), "--format", output)
    assert done.returncode == 1
    assert len(done.stdout) < 30_000_000
    if output == "concise":
        for name, (text, message) in TEXTS.items():
            assert len(text) > MAX_BYTES or f"{name}.trace" in done.stdout
            assert len(text) > MAX_BYTES or message in done.stdout, name


@pytest.mark.parametrize("name", TEXTS)
def test_each_is_told_what_is_wrong(name: str) -> None:
    text, message = TEXTS[name]
    for run in (None, facts(total_steps=10_000_000)):
        assert any(message in found.message for found in lint_text(text, run).diagnostics)


def test_fmt_and_prove_and_diff_of_such_texts_end(tmp_path: Path) -> None:
    for name, (text, _) in TEXTS.items():
        if len(text) <= MAX_BYTES:
            (tmp_path / f"{name}.trace").write_text(text, encoding="utf-8")
    assert start("fmt", "--check", str(tmp_path)).returncode == 1
    for name in ("routes_over_large_lets", "long_schedules", "lets_doubling"):
        assert start("prove", str(tmp_path / f"{name}.trace")).returncode in (1, 2)
        assert start("diff", str(tmp_path / f"{name}.trace"), str(tmp_path / "lets_chained.trace")).returncode == 2


def test_diff_and_prove_of_two_large_specs_end(tmp_path: Path) -> None:
    texts = {
        "old": "".join(f"key when len > {index}: grpo(w={index})\n" for index in range(1900)),
        "new": "".join(f"key when len > {index}: grpo(w={index + 1})\n" for index in reversed(range(1900))),
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.trace").write_text(f"{text}rest: none\n", encoding="utf-8")
    old, new = (str(tmp_path / f"{name}.trace") for name in texts)
    done = start("diff", old, new)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout.count("place") >= 1899
    assert start("prove", old, "--implies", new).returncode in (1, 2)


def test_what_is_just_small_enough_is_read() -> None:
    assert not parse_source("x", "rest: none\n" * MAX_STATEMENTS).diagnostics
    assert parse_source("x", "rest: none\n" * (MAX_STATEMENTS + 1)).diagnostics
    longest = f"let x = {'1 + ' * 30}1".ljust(MAX_LENGTH - 2) + "+1"
    assert len(longest) == MAX_LENGTH
    assert not parse_source("x", longest).diagnostics
    assert parse_source("x", f" {longest}").diagnostics
    assert not parse_source("x", "#" * MAX_BYTES).diagnostics
    assert parse_source("x", "#" * (MAX_BYTES + 1)).diagnostics
