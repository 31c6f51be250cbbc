"""`make demo`, whole: the shipped policy learns, and everything happens when the plan says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lowering.cases import facts_of
from trace_dsl.lint import lint_file
from trace_dsl.plan import compile_plan
from trace_dsl.preview.preview import disagreements, preview
from trace_dsl.preview.rollouts import read_rollouts

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.distributed
def test_make_demo_raises_accuracy_and_stops_its_teacher_when_planned(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["make", "demo", f"RUNS={tmp_path}", f"BIN={Path(sys.executable).parent}", "STAMP=README.md"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary["steps"] == 60
    assert summary["tensor_parallel"] == 2
    assert summary["accuracy_after"] >= summary["accuracy_before"] + 0.05
    plan = json.loads((tmp_path / "demo" / "plan.json").read_text())
    (planned,) = plan["teachers"]
    used = summary["teacher_forwards"]["teacher"]
    assert used["last_step"] == planned["last_step"] == 39
    assert used["steps"] == 40
    assert set(summary["routed_fraction"]) == {"error/rkl", "error/grpo", "key/grpo", "rest/grpo"}
    assert "last run at step 39" in done.stdout
    assert_previews_agree(tmp_path / "demo", plan["total_steps"])
    assert "held-out problems:" in done.stdout


def assert_previews_agree(run: Path, steps: int) -> None:
    """What the run wrote of its rollouts is what a preview says of them: the route of every token, every advantage."""
    spec = lint_file(ROOT / "specs/demo/trace.trace").spec
    assert spec is not None
    plan = compile_plan(spec, facts_of(steps, 8))
    files = sorted((run / "rollouts").glob("step_*.jsonl"))
    assert len(files) >= 2
    for path in files:
        found = preview(spec, plan, read_rollouts(path))
        assert disagreements(found) == [], path.name
        assert found.file.ignored == ()
        for rollout, advantage in zip(found.file.rollouts, found.batch.advantage_R, strict=True):
            assert rollout.advantage == pytest.approx(advantage, abs=1e-12)
