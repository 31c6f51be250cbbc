"""A job that is killed under one layout goes on under another, and ends where the unbroken one does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training.jobs import metrics, train
from tests.training.test_faults import kill_tree, start, wait_for_step

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

STEPS = 4
# float32 noise of other orders of summation: losses and gradient norms, relative to the largest of the run
BOUND = 1e-5
LAYOUTS = {
    "dp2-distributed": ("layout.tp=1", "layout.dp=2", "optim.distributed=true"),
    "pp3": ("layout.tp=1", "layout.pp=3"),  # the policy has three layers
}


def test_tp2_goes_on_under_other_layouts(tmp_path: Path) -> None:
    shared = (f"steps={STEPS}", "evaluation.problems=8")
    train(tmp_path, "whole", *shared, "layout.tp=2", ranks=2)
    job = start(tmp_path, "killed", *shared, "layout.tp=2", ranks=2)
    wait_for_step(job, 3)
    kill_tree(job)
    assert (tmp_path / "killed" / "checkpoints" / "step_000002").is_dir()
    whole = metrics(tmp_path, "whole")
    for name, layout in LAYOUTS.items():
        shutil.copytree(tmp_path / "killed", tmp_path / name)
        train(tmp_path, name, *shared, *layout, ranks=3 if name == "pp3" else 2, flags=["--resume"])
        found = metrics(tmp_path, name)
        assert [line["step"] for line in found] == list(range(STEPS))
        assert found[:2] == metrics(tmp_path, "killed")[:2]
        for metric in ("loss", "optim/grad_norm", "policy/entropy"):
            scale = max(abs(line[metric]) for line in whole)
            for one, other in zip(whole, found, strict=True):
                assert abs(one[metric] - other[metric]) < BOUND * scale, (name, metric, one["step"])
        assert [line["reward"] for line in found] == [line["reward"] for line in whole]
