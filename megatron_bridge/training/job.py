"""One rank's life: join the group, train, say how it ended. All ranks return the same exit code."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from megatron_bridge.atomic import write_text
from megatron_bridge.device import megatron_runtime
from megatron_bridge.parallel import start_parallel, stop_parallel
from megatron_bridge.rank_log import Phase, RankLog
from megatron_bridge.run_directory import (
    RunDirectory,
    find_run_directory,
    last_checkpoint_told,
    only_process,
    prepare_run_directory,
)
from megatron_bridge.run_file import LoadedRun
from megatron_bridge.spec_change import read_changes
from megatron_bridge.tasks.base import Task
from megatron_bridge.training.heartbeat import Heartbeat
from megatron_bridge.training.interrupt import Interrupt
from megatron_bridge.training.loop import Loop, Outcome
from megatron_bridge.training.patience import patience
from megatron_bridge.training.records import Records, read_metrics
from megatron_bridge.training.together import agreed
from trace_dsl import model_files
from trace_dsl.errors import PolicyError, TraceError
from trace_dsl.plan import Plan

EXIT_OK, EXIT_FAILED = 0, 1


def run_job(
    loaded: LoadedRun, plan: Plan, log: RankLog, *, resume: bool, overwrite: bool, accept_spec_change: bool
) -> int:
    """Train as `loaded` and `plan` say. Raises RunFileError for a directory that cannot be used, before any work."""
    interrupt = Interrupt()
    torch.set_num_threads(1)
    first = os.environ.get("RANK", "0") == "0"
    with only_process(loaded.directory) if first else contextlib.nullcontext():
        directory = find_run_directory(
            loaded, plan, resume=resume, overwrite=overwrite, accept_spec_change=accept_spec_change
        )
        start_parallel(loaded.file.layout.layout, loaded.file.seed, patience=patience(loaded.file))
        try:
            with (
                megatron_runtime(),
                contextlib.closing(loaded.open_task()) as task,
                Heartbeat(log, seconds=loaded.file.heartbeat_timeout),
            ):
                return _run(loaded, plan, directory, task, interrupt, log, resume=resume)
        finally:
            stop_parallel()


def _run(
    loaded: LoadedRun,
    plan: Plan,
    directory: RunDirectory,
    task: Task,
    interrupt: Interrupt,
    log: RankLog,
    *,
    resume: bool,
) -> int:
    first = dist.get_rank() == 0
    tokenizer = AutoTokenizer.from_pretrained(loaded.policy_path)
    stop = stop_tokens(loaded.policy_path, tokenizer)
    asked = loaded.file.evaluation
    agreed(lambda: task.start(held_out=asked.splits, problems=asked.problems) if first else None)
    loop = Loop(loaded, plan, directory, task, tokenizer, stop, interrupt, log)
    if loop.step == loaded.file.steps and directory.summary.is_file():
        if first:
            print(f"{directory.path} is finished: {loop.step} steps done. {_results(directory)}", file=sys.stderr)
        return EXIT_OK
    changed = prepare_run_directory(directory, loaded, plan) if first else []
    dist.barrier()
    log.enter(Phase.START, loop.step)
    log.open()
    records = agreed(lambda: _records(loaded, directory, loop.step) if first else None)
    try:
        if records is None:
            outcome = loop.train(None)
        else:
            with records:
                if directory.resume_from is not None:
                    records.note(f"going on from {directory.resume_from}, {loop.step} steps done")
                    if directory.change is not None:
                        records.note(f"under another objective from here on:\n{directory.change.told()}")
                    for setting in changed:
                        records.note(f"changed since the run was started: {setting}")
                elif resume:
                    records.note(f"{directory.checkpoints} holds no checkpoint yet: starting from the beginning")
                outcome = loop.train(records)
    except (TraceError, FloatingPointError, OSError) as error:
        if first:
            print(f"error: {error}\n{last_checkpoint_told(directory)}", file=sys.stderr, flush=True)
        return EXIT_FAILED
    finally:
        loop.close()
    log.enter(Phase.END, outcome.step)
    if first:
        if outcome.finished:
            _write_summary(loaded, plan, directory, outcome)
            print(f"done: {_results(directory)}", file=sys.stderr, flush=True)
        else:
            done = f"{outcome.step} of {loaded.file.steps} steps"
            print(f"stopped on request after {done}. {last_checkpoint_told(directory)}", file=sys.stderr, flush=True)
    return EXIT_OK


def _records(loaded: LoadedRun, directory: RunDirectory, step: int) -> Records:
    settings, wandb = loaded.file.logging.wandb, None
    if settings is not None:
        from megatron_bridge.training.wandb_log import WandbLog  # imports wandb

        wandb = WandbLog(directory.path, settings, name=loaded.file.name, config=loaded.file.model_dump(mode="json"))
    return Records(directory.path, start=step, steps=loaded.file.steps, wandb=wandb)


def _results(directory: RunDirectory) -> str:
    return f"The policy is in {directory.model}; `trace-dsl summary {directory.path}` shows what changed."


def stop_tokens(policy: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids that end a response: those of generation_config.json or config.json, or the tokenizer's."""
    listed = model_files.stop_tokens(policy)
    if not listed and tokenizer.eos_token_id is None:
        raise PolicyError(
            f"{policy}: neither generation_config.json, config.json nor the tokenizer names an end-of-sequence token"
        )
    return listed or (tokenizer.eos_token_id,)


def _write_summary(loaded: LoadedRun, plan: Plan, directory: RunDirectory, outcome: Outcome) -> None:
    """summary.json: what changed, over the whole run (also over a run that was resumed)."""
    assert outcome.after is not None
    metrics = read_metrics(directory.path / "metrics.jsonl")
    planned = {t.teacher.name: t.last_step for t in plan.teachers}
    summary: dict[str, Any] = {
        "name": loaded.file.name,
        "spec": str(loaded.spec_path),
        "plan_hash": plan.hash,
        "spec_changes": [
            {name: change[name] for name in ("step", "old_plan", "new_plan")} for change in read_changes(directory.path)
        ],
        "accuracy_before": outcome.before.accuracy,
        "accuracy_after": outcome.after.accuracy,
        "held_out_problems": outcome.after.problems,
        "steps": outcome.step,
        "seconds": sum(m["perf/sample_seconds"] + m["perf/train_seconds"] for m in metrics),
        "task": loaded.task_name,
        "seed": loaded.file.seed,
        "temperature": loaded.file.rollout.temperature,
        "precision": loaded.file.precision,
        "rollout_engine": loaded.file.rollout.engine,
        "evaluation_split": loaded.file.evaluation.split,
        "policy": str(loaded.policy_path),
        "model": str(directory.model),
        "checkpoint": str(directory.last_checkpoint()),
        "versions": {name: version(name) for name in ("trace-dsl", "torch", "megatron-core", "transformers")},
        "tensor_parallel": loaded.file.layout.tp,
        "pipeline_parallel": loaded.file.layout.pp,
        "context_parallel": loaded.file.layout.cp,
        "data_parallel": loaded.file.layout.dp,
        "routed_fraction": {
            name: sum(m.get(f"train/route/{name}/tokens", 0) / max(m["rollout/tokens"], 1) for m in metrics)
            / len(metrics)
            for name in _losses(metrics)
        },
        "teacher_forwards": {
            name: {**asdict(usage), "last_step_planned": planned.get(name, usage.last_step)}
            for name, usage in outcome.teachers.items()
        },
        "trained_tokens": metrics[-1]["trained_tokens"],
        "mean_tokens_before": outcome.before.mean_tokens,
        "mean_tokens_after": outcome.after.mean_tokens,
        "examples_before": outcome.before.examples,
        "examples_after": outcome.after.examples,
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_text(directory.summary, json.dumps(summary, indent=2) + "\n")


def _losses(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The losses that some step trained; a spec that changed midway has others later on."""
    names = {name for line in metrics for name in line}
    before, after = "train/route/", "/tokens"
    return sorted(
        n.removeprefix(before).removesuffix(after) for n in names if n.startswith(before) and n.endswith(after)
    )
