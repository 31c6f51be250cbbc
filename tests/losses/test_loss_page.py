"""docs/loss.md: the loss in anybody's trainer, without a spec and without Megatron."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.pages import ROOT, agrees, run_page


def test_its_example_runs(tmp_path: Path) -> None:
    shown = list(run_page((ROOT / "docs" / "loss.md").read_text(encoding="utf-8"), tmp_path))
    assert len(shown) == 1
    assert agrees(shown[0]), shown[0].printed


def test_no_megatron_is_imported() -> None:
    code = "import sys, megatron_bridge.losses; print([m for m in sys.modules if m.split('.')[0] == 'megatron'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
