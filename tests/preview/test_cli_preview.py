"""The command: a newcomer's one line, what it refuses, the terminal with and without colours, a run's own routes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trace_dsl.cli.main import app

ROOT = Path(__file__).parents[2]
SPEC = "spans key(cap=50%)\nlet kl = schedule(0.5, warmup=10, anneal=linear(30))\n" \
    "key when correct: nll(w=kl, per=selected)\nrest: grpo()\n"  # fmt: skip
LINES = (
    {"prompt": "1 + 1", "response": "add one to get 2", "reward": 1, "spans": [{"label": "key", "start": 4, "end": 7}]},
    {"prompt": "1 + 1", "response": "it is 3", "reward": 0},
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.trace").write_text(SPEC, encoding="utf-8")
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, LINES)), encoding="utf-8")
    return tmp_path


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["preview", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_one_command_from_a_file_of_ones_own(folder: Path) -> None:
    code, out, _ = run("own.trace", "--rollouts", "own.jsonl")
    assert (code, out) == (0, "preview.html: 2 rollouts, 8 tokens, 100 steps; open it in a browser\n")
    page = (folder / "preview.html").read_text(encoding="utf-8")
    assert "A run of 100 steps: no run file is given." in page
    assert not re.search(r"(src|href)=.?https?:", page), "the page is whole"
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


def test_texts_cannot_leave_their_data(folder: Path) -> None:
    line = {"prompt": "</script><script>alert(1)</script>", "response": "<!-- <b>\u2028", "reward": 0}
    (folder / "own.jsonl").write_text(json.dumps(line), encoding="utf-8")
    run("own.trace", "--rollouts", "own.jsonl", "--html", "page.html")
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "alert(1)</script>" not in page
    assert "<!-- <b>" not in page


def test_without_torch(folder: Path) -> None:
    program = (
        "import sys\nfrom trace_dsl.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit as done:\n    assert not done.code\n"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, "preview", "own.trace", "--rollouts", "own.jsonl"], check=True)


REFUSED = [
    (["own.trace", "--rollouts", "gone.jsonl"], 2, "gone.jsonl cannot be read: no such file"),
    (["gone.trace", "--rollouts", "own.jsonl"], 2, "gone.trace"),
    (["own.trace"], 2, "--rollouts"),
    (["own.trace", "--rollouts", "own.jsonl", "--step", "100"], 2, "--step 100: the last step of a run of 100 is 99"),
    (["own.trace", "--rollouts", "own.jsonl", "--html", "x", "--terminal"], 2, "give one of them"),
    (["own.trace", "--rollouts", "own.jsonl", "--run", "r.yaml", "--steps", "9"], 2, "leave out --steps or --run"),
    (["own.trace", "--rollouts", "own.jsonl", "--html", "gone/page.html"], 2, "gone/page.html cannot be written"),
    (["bad.trace", "--rollouts", "own.jsonl"], 1, "bad.trace has errors and cannot be previewed"),
    (["own.trace", "--rollouts", "other.jsonl"], 2, "rows: the spec has no rollouts 'hinted'"),
    (["own.trace", "--rollouts", "signals.jsonl"], 2, "'entropi' is no measurement that this spec knows; did you"),
]


@pytest.mark.parametrize(("words", "code", "said"), REFUSED, ids=[" ".join(words) for words, *_ in REFUSED])
def test_what_is_refused(folder: Path, words: list[str], code: int, said: str) -> None:
    (folder / "bad.trace").write_text("rest: grop()\n")
    (folder / "other.jsonl").write_text(json.dumps({**LINES[1], "rows": "hinted"}))
    (folder / "signals.jsonl").write_text(json.dumps({**LINES[1], "signals": {"entropi": [1, 1, 1]}}))
    found, out, err = run(*words)
    assert found == code
    assert said in " ".join(re.sub(r"[│╭╰─╮╯]", " ", err).split())
    assert not out
    assert not (folder / "preview.html").exists()


def test_plain_terminal(folder: Path) -> None:
    code, out, _ = run("own.trace", "--rollouts", "own.jsonl", "--terminal", "--step", "25")
    assert code == 0
    assert "\x1b" not in out
    assert "A key when correct: 1 of 8 tokens" in out
    assert "add[A: one] to get 2" in out
    assert "A key/nll: w 0.25 / 1 = 0.25 at its first token" in out
    assert "B rest/grpo: w 1 / 10 = 0.1 at its first token" in out


def on_terminal(folder: Path, **changes: str) -> str:
    parent, child = pty.openpty()
    kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    words = ["preview", "own.trace", "--rollouts", "own.jsonl", "--terminal"]
    with subprocess.Popen(
        [sys.executable, "-m", "trace_dsl", *words], cwd=folder, stdin=child, stdout=child, stderr=child,
        env={**kept, "TERM": "xterm-256color", **changes},
    ) as process:  # fmt: skip
        os.close(child)
        written = b""
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:
                break
            if not part:
                break
            written += part
        assert process.wait() == 0
    os.close(parent)
    return written.decode()


def test_a_terminal_has_colours_and_letters(folder: Path) -> None:
    written = on_terminal(folder)
    assert "\x1b[" in written
    assert "[A: one]" not in written
    assert "\x1b" not in on_terminal(folder, NO_COLOR="1")


def test_a_route_has_one_colour_on_terminal_and_page(folder: Path) -> None:
    """The plain rest is grey on both, and takes no hue from the routes before it."""
    written = on_terminal(folder)
    assert "\x1b[1;7;34mA\x1b" in written
    assert "\x1b[1;7;38;5;244mB\x1b" in written
    run("own.trace", "--rollouts", "own.jsonl")
    page = (folder / "preview.html").read_text(encoding="utf-8")
    assert re.findall(r'"hue":(\d)', page) == ["0", "7"]


def test_what_is_not_known_is_said(folder: Path) -> None:
    spec = "teacher = self(sync=10, sees=diagnosis)\nkey when entropy > 1: fkl()\nrest: grpo()\n"
    (folder / "own.trace").write_text(spec)
    _, out, _ = run("own.trace", "--rollouts", "own.jsonl", "--terminal")
    assert "[A/B?: one]" in out
    assert "A key when entropy > 1: 0 to 1 of 8 tokens" in out
    assert "note: No line has 'diagnosis', so whether key/fkl takes a rollout is decided during the run" in out
