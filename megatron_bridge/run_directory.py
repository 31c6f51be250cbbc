"""A run's directory: made, refused, moved aside or continued, before anything is computed.

runs/NAME/ holds spec.trace, run.yaml (every default written out), plan.json, metrics.jsonl, tensorboard/, rollouts/,
checkpoints/, logs/ (of each rank), model/ (the trained policy, Hugging Face format) and summary.json; stopped/ the
batch of a step whose loss or gradient was not finite.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_bridge.atomic import write_text
from megatron_bridge.checkpoint_files import latest_checkpoint, read_meta
from megatron_bridge.rank_log import LOGS
from megatron_bridge.run_file import LoadedRun, RunFile, changed_settings, dump_run, size_problems
from megatron_bridge.spec_change import SpecChange, find_change, record_change
from trace_dsl.errors import RunFileError
from trace_dsl.plan import Plan
from trace_dsl.plan.describe import default_steps, describe


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDirectory:
    """Where a run writes. `resume_from` is the checkpoint it goes on from, None at a run's beginning. `afresh`: what is
    there is another run, which is moved aside. `change`: how the objective differs from the checkpoint's, where that
    was accepted.
    """

    path: Path
    resume_from: Path | None
    afresh: bool = False
    change: SpecChange | None = None

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


def find_run_directory(
    loaded: LoadedRun, plan: Plan, *, resume: bool, overwrite: bool, accept_spec_change: bool = False
) -> RunDirectory:
    """Decide what a start means for the directory; nothing is written.

    Raises RunFileError when the directory holds a run and neither `resume` nor `overwrite` is given, or when the
    checkpoint to resume from was made under another objective and that is not accepted, in the middle of what is now an
    iteration, or after what is now the last step.
    """
    path = loaded.directory
    if not resume:
        if _holds_run(path) and not overwrite:
            raise RunFileError(
                f"{path} already holds a run: go on with --resume, replace it with --overwrite "
                f"(it is moved to {path.name}.previous), or choose another name=..."
            )
        return RunDirectory(path=path, resume_from=None, afresh=True)
    checkpoint = latest_checkpoint(path / "checkpoints")
    if checkpoint is None:
        return RunDirectory(path=path, resume_from=None)
    meta = read_meta(checkpoint)
    change = find_change(checkpoint, meta, loaded, plan)
    if change is not None and not accept_spec_change:
        raise RunFileError(
            f"{checkpoint} was trained under plan {change.old_hash}, the spec and run file now give "
            f"{change.new_hash}:\n{change.told()}\n"
            "Continuing would change the objective midway: put it back, start a new run with another name=..., or go "
            f"on under the new one from step {change.step} with --resume --accept-spec-change"
        )
    _check_same_precision(checkpoint, meta, loaded.file)
    _check_whole_iterations(checkpoint, meta["step"], loaded.file)
    return RunDirectory(path=path, resume_from=checkpoint, change=change)


def _holds_run(path: Path) -> bool:
    """Whether there is more than what ranks left that failed before a run began."""
    return path.exists() and any(inner.name != LOGS for inner in path.iterdir())


def last_checkpoint_told(directory: RunDirectory) -> str:
    """For people: what a run that has ended early can go on from."""
    last = directory.last_checkpoint()
    if last is None:
        return "No checkpoint was written yet."
    return f"The last checkpoint is {last}; go on from it with --resume."


def prepare_run_directory(directory: RunDirectory, loaded: LoadedRun, plan: Plan) -> list[str]:
    """Make the directory and write what is known before the first step; rank 0 calls it.

    Returns the settings that changed since the run was started, when it goes on. Raises RunFileError where nothing
    can be written.
    """
    try:
        return _prepare(directory, loaded, plan)
    except OSError as error:
        raise RunFileError(f"output: {directory.path} cannot be written: {error.strerror}") from error


def _prepare(directory: RunDirectory, loaded: LoadedRun, plan: Plan) -> list[str]:
    path = directory.path
    started_with = path / "run.yaml"
    changed = []
    if directory.resume_from is not None and started_with.is_file():
        changed = changed_settings(started_with.read_text(encoding="utf-8"), loaded)
    if directory.afresh and _holds_run(path):
        previous = path.with_name(f"{path.name}.previous")
        if previous.exists():
            shutil.rmtree(previous)
        os.rename(path, previous)
    path.mkdir(parents=True, exist_ok=True)
    if directory.change is not None:
        record_change(path, directory.change)
    write_text(path / "spec.trace", plan.spec_text)
    write_text(path / "run.yaml", dump_run(loaded))
    write_text(path / "plan.json", describe(plan, default_steps(plan)).to_json() + "\n")
    return changed


@contextlib.contextmanager
def only_process(path: Path) -> Iterator[None]:
    """Hold the run's lock, so that no other process trains in the same directory. Rank 0 holds it while it trains.

    Raises RunFileError when another process holds it. The lock ends with the process, however that ends.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_name(f".{path.name}.lock"), "a+", encoding="utf-8")  # noqa: SIM115 (held in the block)
    except OSError as error:
        raise RunFileError(f"output: {path} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise RunFileError(
                f"{path}: process {lock.read().strip()} is training there; wait for it, stop it, or choose another "
                "name=..."
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _check_same_precision(checkpoint: Path, meta: dict[str, Any], run: RunFile) -> None:
    if meta["precision"] != run.precision:
        raise RunFileError(
            f"precision: {checkpoint} was trained in {meta['precision']}, the run file now says {run.precision}: the "
            "optimizer keeps other state; put it back, or start a new run with another name=..."
        )


def _check_whole_iterations(checkpoint: Path, step: int, run: RunFile) -> None:
    """Each iteration of rollouts serves `minibatches` steps, so a run goes on where one begins, before its end."""
    if step > run.steps:
        raise RunFileError(
            f"steps: {checkpoint} is at step {step}, after the run's last, {run.steps}; set it to {step} or more"
        )
    if step % run.minibatches == 0:
        return
    fit = [
        str(n)
        for n in range(1, step + 1)
        if step % n == 0 and not any(size_problems(run.model_copy(update={"minibatches": n})))
    ]
    raise RunFileError(
        f"minibatches: {checkpoint} is at step {step}, which is no multiple of minibatches = {run.minibatches}: going "
        f"on would never meet the last step, {run.steps}, nor a step to save at; set it to {' or '.join(fit)}"
    )


def meta_of(loaded: LoadedRun, plan: Plan) -> dict[str, Any]:
    """What a checkpoint says of the run it belongs to."""
    return {
        "name": loaded.file.name,
        "spec": plan.spec_text,
        "spec_path": str(loaded.spec_path.resolve()),
        "precision": loaded.file.precision,
        "plan_hash": plan.hash,
        "steps": plan.facts.total_steps,
        "rollout.temperature": plan.facts.temperature,
    }
