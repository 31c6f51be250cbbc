"""tools/bench_step.py: what its cases are, not how long they take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.distributed


def test_the_teacher_is_there_only_while_it_teaches(tmp_path: Path) -> None:
    """Known failure elsewhere: what a teacher needs stays in memory over all micro-batches, and after its loss."""
    path = tmp_path / "step.json"
    command = [sys.executable, "tools/bench_step.py", "--rounds", "1", "--prompts", "4", "--json", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    grpo, active, after = json.loads(path.read_text())
    assert [row["case"] for row in (grpo, active, after)] == ["GRPO", "TRACE, KL active", "TRACE, after the anneal"]
    assert (grpo["kl_tokens"], grpo["read"], after["kl_tokens"], after["read"]) == (0, 0, 0, 0)
    assert active["kl_tokens"] > active["read"] > 0
    assert grpo["tokens"] == active["tokens"] == after["tokens"]
    weights = (ROOT / "specs" / "demo" / "policy" / "model.safetensors").stat().st_size
    assert active["held_bytes"] - grpo["held_bytes"] > 0.9 * weights
    assert after["held_bytes"] == grpo["held_bytes"]
    assert after["peak_bytes"] == pytest.approx(grpo["peak_bytes"], abs=4096)  # the sums of three more losses
