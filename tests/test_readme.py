"""The README's blocks run as a newcomer would run them, and print what it says they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```(bash|output|python)\n(.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.fixture
def newcomer(tmp_path: Path) -> Path:
    """A folder with what the README's blocks use, so that they write nothing into the repository."""
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    (tmp_path / "Makefile").write_text("setup:\n\t@true\n")  # the environment this test runs in is set up
    return tmp_path


@pytest.mark.slow
@pytest.mark.distributed
def test_blocks_run_and_print_what_the_readme_says(newcomer: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    printed, ran = "", 0
    for kind, text in blocks():
        if kind == "output":
            # a block may show a part of what was printed, never anything else
            assert text.strip() in printed, f"expected\n{text}\ngot\n{printed}"
            continue
        program = ["bash", "-c", text] if kind == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(program, cwd=newcomer, env=environment, capture_output=True, text=True, timeout=400)
        printed = done.stdout
        expected = 1 if "trace-dsl lint first.trace" in text and "aneal" in text else 0
        assert done.returncode == expected, f"{text}\nended with {done.returncode}:\n{done.stderr[-3000:]}"
        ran += 1
    assert ran >= 7
    assert (newcomer / "runs" / "first" / "summary.json").is_file()
    assert (newcomer / "runs" / "second" / "summary.json").is_file()


def test_every_link_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken
