"""What the tool that kills runs calls a difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tools.kill_and_resume import differences

SUMMARY = {"accuracy_before": 0.1, "accuracy_after": 0.2, "trained_tokens": 7, "teacher_forwards": {}}


def run(folder: Path, *, weight: float = 1.0, loss: float = 0.5, steps: int = 2, seconds: float = 1.0) -> Path:
    (folder / "model").mkdir(parents=True)
    save_file({"w": torch.tensor([weight, 2.0])}, folder / "model" / "model.safetensors")
    lines = [{"step": n, "loss": loss * n, "time": seconds, "perf/train_seconds": seconds} for n in range(steps)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    return folder


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({}, []),
        ({"seconds": 2.0}, []),
        ({"weight": 1.0 + 2**-23}, ["weight w"]),
        ({"loss": 0.5 + 2**-52}, ["loss at step 1"]),
        ({"steps": 1}, ["2 steps in metrics.jsonl, 1 in the other"]),
    ],
)
def test_everything_but_times_is_compared(tmp_path: Path, other: dict[str, float], told: list[str]) -> None:
    assert differences(run(tmp_path / "whole"), run(tmp_path / "killed", **other)) == told
