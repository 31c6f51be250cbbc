"""Pages of docs/ beside the tutorial do what they say and print what they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import ROOT, agrees, newcomer, run_page


@pytest.mark.parametrize("name", ["annotation.md", "data.md", "fit.md", "preview.md", "report.md"])
def test_the_page_runs(name: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    shown = list(run_page(page, newcomer(tmp_path)))
    assert shown
    for one in shown:
        assert agrees(one), f"{one.block.text}\nprinted was\n{one.printed}"
