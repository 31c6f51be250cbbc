"""What a start means for a run's directory, decided before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_bridge.prepare import prepare_run
from megatron_bridge.run_directory import find_run_directory, meta_of
from trace_dsl.errors import RunFileError

RUN = Path("specs/demo/run.yaml")


def _stopped_at(step: int, output: Path, overrides: list[str]) -> None:
    """A directory with a checkpoint that says of itself what one of this run would."""
    loaded, plan, _ = prepare_run(RUN, overrides)
    checkpoint = output / "demo" / "checkpoints" / f"step_{step:06d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "meta.json").write_text(json.dumps({**meta_of(loaded, plan), "step": step}))


def test_other_minibatches_go_on_only_where_an_iteration_begins(tmp_path: Path) -> None:
    """Known failure: steps 54, 58 .. 102 of 100, and never a checkpoint again. 5 and 10 divide the steps too, but not
    the 6 prompts."""
    shared = [f"output={tmp_path}", "steps=120", "checkpoint.every=60", "micro_batch=1"]
    shared += ["rollout.prompts=6", "rollout.group_size=10"]
    _stopped_at(50, tmp_path, shared)
    loaded, plan, _ = prepare_run(RUN, [*shared, "minibatches=3"])
    message = r"step_000050 is at step 50, .* of minibatches = 3: .* last step, 120, .*; set it to 1 or 2$"
    with pytest.raises(RunFileError, match=message):
        find_run_directory(loaded, plan, resume=True, overwrite=False)
    for minibatches in (1, 2):
        loaded, plan, _ = prepare_run(RUN, [*shared, f"minibatches={minibatches}"])
        found = find_run_directory(loaded, plan, resume=True, overwrite=False)
        assert found.resume_from is not None


def test_another_precision_is_refused(tmp_path: Path) -> None:
    shared = [f"output={tmp_path}"]
    _stopped_at(20, tmp_path, shared)
    loaded, plan, _ = prepare_run(RUN, [*shared, "precision=bf16"])
    with pytest.raises(RunFileError, match=r"step_000020 was trained in fp32, the run file now says bf16: .* put it"):
        find_run_directory(loaded, plan, resume=True, overwrite=False)
