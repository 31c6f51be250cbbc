"""`trace-dsl plan`: its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from trace_dsl.cli.main import app

ROOT = Path(__file__).parents[2]
RUN = str(ROOT / "specs" / "demo" / "run.yaml")
DEMO = str(ROOT / "specs" / "demo" / "trace.trace")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([DEMO, "--run", RUN], 0, ""),
        (["wrong.trace", "--run", RUN], 1, "error[unknown-name]"),
        (["gone.trace", "--run", RUN], 2, "gone.trace cannot be read: no such file"),
        ([DEMO, "--run", "gone.yaml"], 2, "gone.yaml"),
        ([DEMO, "--run", RUN, "--at", "999999"], 2, "--at '999999'"),
    ],
)
def test_a_spec_with_errors_is_1_and_what_cannot_be_read_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.trace").write_text("rest: grpo(w=rewrd)\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert result.exit_code == code, result.stderr
    assert words in result.stderr
