"""The README's blocks run as a newcomer would run them, and print what it says they print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import ROOT, agrees, blocks, newcomer, run_page

GENERATED = ("reference/", "gallery.md")  # pages that `make docs` makes; `--strict` looks at links to them
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.distributed
def test_blocks_run_and_print_what_the_readme_says(tmp_path: Path) -> None:
    folder = newcomer(tmp_path)
    for shown in run_page(README, folder):
        assert agrees(shown), f"expected\n{shown.block.text}\ngot\n{shown.printed}"
    kinds = [block.kind for block in blocks(README)]
    assert kinds.count("bash") + kinds.count("python") >= 7
    assert kinds.count("output") >= 3
    assert (folder / "runs" / "first" / "summary.json").is_file()
    assert (folder / "runs" / "second" / "summary.json").is_file()


def test_every_link_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
        if not target.startswith(GENERATED) and not (page.parent / target).exists()
    ]
    assert not broken
