"""The tutorial and the first page do what they say: every block runs, every output shown is the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import ROOT, TUTORIAL, Shown, agrees, blocks, newcomer, run_page

INDEX = ROOT / "docs" / "index.md"


@pytest.mark.slow
@pytest.mark.distributed
def test_the_tutorials_blocks_run_and_print_what_it_shows(tmp_path: Path) -> None:
    page = TUTORIAL.read_text(encoding="utf-8")
    folder = newcomer(tmp_path)
    for shown in run_page(page, folder):
        assert agrees(shown), f"expected\n{shown.block.text}\ngot\n{shown.printed}"
    kinds = [block.kind for block in blocks(page)]
    assert kinds.count("bash") - 2 == kinds.count("output")  # but for the set-up and the training
    assert (folder / "tutorial" / "runs" / "tutorial" / "summary.json").is_file()
    left = {path.name for path in folder.iterdir()}
    assert left == {"Makefile", "specs", ".venv", "tutorial"}  # the page writes into a folder of its own


def test_the_first_pages_commands_run(tmp_path: Path) -> None:
    page = INDEX.read_text(encoding="utf-8")
    assert [block.kind for block in blocks(page)] == ["trace", "bash"]
    assert not list(run_page(page, newcomer(tmp_path)))


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("one\ntwo\n", "one\ntwo\n", True),
        ("one\n", "one\ntwo\n", False),
        ("two\n", "one\ntwo\n", False),
        ("one\n…\n", "one\ntwo\nthree\n", True),
        ("…\nthree\n", "one\ntwo\nthree\n", True),
        ("one\n…\nthree\n", "one\ntwo\nthree\n", True),
        ("one\n…\nthree\n", "one\nthree\n", True),
        ("one\n…\ntwo\n", "one\ntwo\nthree\n", False),
        ("took … s\n", "took 12 s\n", True),
        ("took … s\n", "took 12\nand s\n", False),
        ("w (a.b)\n", "w (axb)\n", False),
    ],
)
def test_what_an_ellipsis_stands_for(shown: str, printed: str, same: bool) -> None:
    (block,) = blocks(f"```output\n{shown}```\n")
    assert agrees(Shown(block=block, printed=printed)) is same
