"""A run's directory: made, refused, moved aside or continued, before anything is computed.

runs/NAME/ holds spec.trace, run.yaml (every default written out), plan.json, metrics.jsonl, tensorboard/, rollouts/,
checkpoints/, model/ (the trained policy, Hugging Face format) and summary.json.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_bridge.atomic import write_text
from megatron_bridge.checkpoint_files import latest_checkpoint, read_meta
from megatron_bridge.run_file import LoadedRun, dump_run
from trace_dsl.errors import RunFileError
from trace_dsl.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDirectory:
    """Where a run writes. `resume_from` is the checkpoint it goes on from, or None for a fresh start."""

    path: Path
    resume_from: Path | None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    def last_checkpoint(self) -> Path | None:
        return latest_checkpoint(self.checkpoints)


def find_run_directory(loaded: LoadedRun, plan: Plan, *, resume: bool, overwrite: bool) -> RunDirectory:
    """Decide what a start means for the directory; nothing is written.

    Raises RunFileError when the directory holds a run and neither `resume` nor `overwrite` is given, or when the
    checkpoint to resume from was made under another objective.
    """
    path = loaded.directory
    if not resume:
        if path.exists() and any(path.iterdir()) and not overwrite:
            raise RunFileError(
                f"{path} already holds a run: go on with --resume, replace it with --overwrite "
                f"(it is moved to {path.name}.previous), or choose another name=..."
            )
        return RunDirectory(path=path, resume_from=None)
    checkpoint = latest_checkpoint(path / "checkpoints")
    if checkpoint is not None:
        _check_same_objective(checkpoint, read_meta(checkpoint), plan)
    return RunDirectory(path=path, resume_from=checkpoint)


def prepare_run_directory(directory: RunDirectory, loaded: LoadedRun, plan: Plan) -> None:
    """Make the directory and write what is known before the first step. Rank 0 calls it."""
    path = directory.path
    if directory.resume_from is None and path.exists():
        previous = path.with_name(f"{path.name}.previous")
        if previous.exists():
            shutil.rmtree(previous)
        os.rename(path, previous)
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / "spec.trace", plan.spec_text)
    write_text(path / "run.yaml", dump_run(loaded.file))
    write_text(path / "plan.json", plan.to_json() + "\n")


def _check_same_objective(checkpoint: Path, meta: dict[str, Any], plan: Plan) -> None:
    if meta["plan_hash"] != plan.hash:
        raise RunFileError(
            f"{checkpoint} was trained under plan {meta['plan_hash']}, the spec and run file now give {plan.hash}: "
            f"continuing would change the objective midway; restore the spec (a copy stands in "
            f"{checkpoint.parent.parent / 'spec.trace'}) or start a new run with another name=..."
        )
