"""`trace-dsl fmt`: exit codes, what is written and what is not, line ends."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.language import TRACE
from trace_dsl.cli.main import app

ROOT = Path(__file__).parents[2]
UGLY = "key :nll( )  # why\nrest:   grpo(clip=(.2,0.28))\n"
PRETTY = "key:  nll()  # why\nrest: grpo(clip=(0.2, 0.28))\n"
BROKEN = "key: nll(\nrest :grpo()\n"


def fmt(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["fmt", *arguments], input=stdin)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clean.trace").write_text(TRACE, encoding="utf-8")
    (tmp_path / "ugly.trace").write_text(UGLY, encoding="utf-8")
    return tmp_path


def test_specs_are_formatted_in_place(folder: Path) -> None:
    before = (folder / "clean.trace").stat().st_mtime_ns
    result = fmt()
    assert result.exit_code == 0, result.output
    assert (folder / "ugly.trace").read_text(encoding="utf-8") == PRETTY
    assert (folder / "clean.trace").stat().st_mtime_ns == before
    assert result.stdout == ""
    assert result.stderr == "formatted ugly.trace\n2 specs: 1 formatted, 1 in canonical form\n"
    assert fmt("--check").exit_code == 0


@pytest.mark.parametrize("options", [["--check"], ["--diff"], ["--check", "--diff"]])
def test_check_and_diff_write_nothing_and_exit_with_1(folder: Path, options: list[str]) -> None:
    assert fmt("ugly.trace", *options).exit_code == 1
    assert fmt("clean.trace", *options).exit_code == 0
    assert (folder / "ugly.trace").read_text(encoding="utf-8") == UGLY


def test_diff_is_a_unified_diff(folder: Path) -> None:
    assert fmt("ugly.trace", "--diff").stdout == (
        "--- ugly.trace\n+++ ugly.trace (formatted)\n@@ -1,3 +1,3 @@\n"
        "-key :nll( )  # why\n-rest:   grpo(clip=(.2,0.28))\n"
        "+key:  nll()  # why\n+rest: grpo(clip=(0.2, 0.28))\n \n"
    )


def test_what_does_not_parse_is_left_alone_and_the_others_are_formatted(folder: Path) -> None:
    (folder / "broken.trace").write_text(BROKEN, encoding="utf-8")
    result = fmt("broken.trace", "ugly.trace")
    assert result.exit_code == 1
    assert "error[syntax]: this bracket is never closed" in result.stderr
    assert "--> broken.trace:1:9" in result.stderr
    assert "1 left alone: it does not parse" in result.stderr
    assert (folder / "broken.trace").read_text(encoding="utf-8") == BROKEN
    assert (folder / "ugly.trace").read_text(encoding="utf-8") == PRETTY


def test_an_empty_line_stands_behind_each_finding(folder: Path) -> None:
    (folder / "broken.trace").write_text("rest: grpo(\nkey: nll(\n", encoding="utf-8")
    blocks = fmt("broken.trace").stderr.split("\n\n")
    assert [block.partition(":")[0] for block in blocks] == ["error[syntax]", "error[syntax]", "1 spec"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (UGLY.replace("\n", "\r\n").encode(), PRETTY.replace("\n", "\r\n").encode()),
        (b"\xef\xbb\xbf" + PRETTY.encode(), PRETTY.encode()),
        (UGLY.replace("\n", "\r").encode(), PRETTY.encode()),
        (b"key: nll()  # a\nrest: none\r\n", b"key:  nll()  # a\nrest: none\n"),
        (b"key: nll()  # a\r\nrest: none\n", b"key:  nll()  # a\r\nrest: none\r\n"),
        (PRETTY.encode().rstrip(), PRETTY.encode()),
        ("# caf\u00e9 \u2028x\nrest :none".encode(), "# caf\u00e9 \u2028x\nrest: none\n".encode()),
        (b"", b""),
    ],
)
def test_line_ends_marks_and_encodings(folder: Path, written: bytes, expected: bytes) -> None:
    (folder / "x.trace").write_bytes(written)
    assert fmt("x.trace", "--check").exit_code == (1 if written != expected else 0)
    assert fmt("x.trace").exit_code == 0
    assert (folder / "x.trace").read_bytes() == expected
    assert fmt("-", stdin=written).stdout_bytes == expected


def test_a_byte_order_mark_has_a_diff_too(folder: Path) -> None:
    (folder / "x.trace").write_bytes(b"\xef\xbb\xbf" + PRETTY.encode())
    assert fmt("x.trace", "--diff").stdout == "x.trace: only line ends or a byte order mark would change\n"


def test_standard_input_goes_to_standard_output(folder: Path) -> None:
    result = fmt("-", stdin=UGLY)
    assert (result.exit_code, result.stdout) == (0, PRETTY)
    assert fmt("-", "--check", stdin=UGLY).exit_code == 1
    assert fmt("-", "--check", stdin=UGLY).stdout == ""
    assert fmt("-", "--diff", stdin=UGLY).stdout.startswith("--- <stdin>\n")
    refused = fmt("-", stdin=BROKEN)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "<stdin>:1:9" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ugly.trace", "gone.trace"], "gone.trace cannot be read: no such file"),
        (["ugly.trace", "latin.trace"], "latin.trace is not UTF-8 text (byte 5)"),
        (["ugly.trace", "empty"], "no *.trace file in empty"),
    ],
)
def test_what_cannot_be_read_is_2_and_then_nothing_is_written(folder: Path, arguments: list[str], words: str) -> None:
    (folder / "latin.trace").write_bytes(b"# caf\xe9\nrest: grpo()\n")
    (folder / "empty").mkdir()
    result = fmt(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert (folder / "ugly.trace").read_text(encoding="utf-8") == UGLY


def test_permissions_and_links_are_kept(folder: Path) -> None:
    (folder / "ugly.trace").chmod(0o640)
    (folder / "link.trace").symlink_to("ugly.trace")
    assert fmt("link.trace").exit_code == 0
    assert (folder / "link.trace").is_symlink()
    assert (folder / "ugly.trace").read_text(encoding="utf-8") == PRETTY
    assert stat.S_IMODE((folder / "ugly.trace").stat().st_mode) == 0o640


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    result = fmt("ugly.trace")
    assert result.exit_code == 2
    assert "ugly.trace cannot be written: no space left on device" in result.stderr
    assert (folder / "ugly.trace").read_text(encoding="utf-8") == UGLY
    assert sorted(path.name for path in folder.iterdir()) == ["clean.trace", "ugly.trace"]


def test_the_specs_of_this_repository_are_formatted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = fmt("--check", "specs")
    assert result.exit_code == 0, result.stderr


def test_help_teaches_with_an_example() -> None:
    assert "Example: trace-dsl fmt specs/ --diff" in fmt("--help").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["fmt", "--diff", "ugly.trace"],
        ["diff", "ugly.trace", "clean.trace"],
        ["prove", "clean.trace"],
        ["explain", "--all"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_about_specs_import_no_torch_and_are_plain_when_piped(folder: Path, arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from trace_dsl.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert end.code in (0, 1), end.code\n"
        "heavy = {'torch', 'numpy', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout
    assert "\x1b" not in done.stdout
