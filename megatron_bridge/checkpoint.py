"""Checkpoints: models, optimizer, scheduler and random state, whole or not there.

A checkpoint is a directory `step_000040` in megatron-core's distributed format, so that it can be loaded
under another layout. It is written as `step_000040.partial` and renamed when every rank has flushed its part;
`latest` names the last one. `meta.json` inside tells, without torch, what it is.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing import ShardedObject
from megatron.core.dist_checkpointing.core import CheckpointingConfig, CheckpointingException, save_config
from megatron.core.dist_checkpointing.state_dict_utils import save_preprocess
from megatron.core.dist_checkpointing.strategies.common import TorchCommonSaveStrategy
from megatron.core.utils import unwrap_model
from torch.distributed.checkpoint.api import CheckpointException

from megatron_bridge.atomic import replace_directory, write_text
from megatron_bridge.bucket_padding import places_without_padding
from megatron_bridge.checkpoint_files import (
    LATEST,
    META,
    best_checkpoint,
    checkpoint_name,
    checkpoints,
    latest_checkpoint,
    read_meta,
)
from megatron_bridge.checkpoint_writer import ShardWriter
from megatron_bridge.device import training_device
from megatron_bridge.other_optimizer import ask_for, can_convert, converted
from megatron_bridge.torch_adam import allocate_state, loading_state
from megatron_bridge.verdict import CheckpointError, Verdict

_LONGEST_REASON = 200
_OTHER_KIND = "optimizer_of_other_kind"
_PACKAGES = ("torch", "megatron-core", "transformers")
_OF_RUN_FILE = ("max_lr", "min_lr", "betas", "eps")  # of a group of parameters; the scheduler sets the others
# The distributed optimizer's state is gathered into the parameters' shapes: it loads under any layout.
_OPTIMIZER_FORMAT = {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What `load_checkpoint` gives back beside the state it put in place."""

    step: int
    extra: dict[str, Any]
    meta: dict[str, Any]


class PendingCheckpoint:
    """The state after an optimizer step on its way to a checkpoint; it is one once `finish` has returned."""

    def __init__(
        self,
        directory: str | Path,
        *,
        step: int,
        models: Mapping[str, torch.nn.ModuleList],
        optimizer: Any,
        scheduler: Any,
        extra: Mapping[str, Any],
        meta: Mapping[str, Any],
        keep_last: int,
        keep_best: bool = False,
        background: bool = False,
    ) -> None:
        """Save to `directory`, where the `keep_last` newest checkpoints are kept, and with `keep_best` the one with the
        best accuracy.

        `models` by name, the chunks of each (wrapped or not), the trained one among them; `extra` holds JSON-able
        values and tensors, the same on every rank; `meta` goes to `meta.json`. With `background` each rank copies its
        tensors to host memory, and a thread writes them while training goes on; without it `finish` writes. Call it
        inside `megatron_runtime()`. No process is started. Collectives: megatron-core's for the sharding plan, and two
        agreements over all ranks.

        Raises ValueError for a step below 1 or `keep_last` below 1, and CheckpointError as `finish`.
        """
        if step < 1 or keep_last < 1:
            raise ValueError(f"step {step}, keep_last {keep_last}: both are at least 1 (step 0 is the source model)")
        self._directory = Path(directory)
        self._target = self._directory / checkpoint_name(step)
        self._partial = self._directory / f"{self._target.name}.partial"
        self._keep_last, self._keep_best = keep_last, keep_best
        good = latest_checkpoint(self._directory)
        self._verdict = Verdict(
            lambda reason: (
                f"cannot save {self._target}: {reason}; "
                + (f"the last good checkpoint is {good}" if good else "there is no earlier checkpoint")
            )
        )
        sharded, common = save_preprocess(_state(models, optimizer, scheduler, extra, is_loading=False))
        if dist.get_rank() == 0:
            with self._verdict.guard():
                shutil.rmtree(self._partial, ignore_errors=True)
                self._partial.mkdir(parents=True)
                text = json.dumps({**_meta(step, meta, optimizer), "models": sorted(models)}, indent=2) + "\n"
                (self._partial / META).write_text(text, encoding="utf-8")
                TorchCommonSaveStrategy("torch", 1).save_common(common, self._partial)
                save_config(CheckpointingConfig("torch_dist", 1), str(self._partial))
        self._verdict.agree(self._cleanup)
        with self._noted():
            self._shards = ShardWriter(sharded, self._partial, background=background)
        self._verdict.agree(self._cleanup)

    def written(self) -> bool:
        """Whether every rank has written its part, or failed to. Collective: one all-reduce over all ranks."""
        flag = torch.tensor(float(self._shards.done), device=training_device())
        dist.all_reduce(flag, op=dist.ReduceOp.MIN)
        return bool(flag)

    def finish(self) -> Path:
        """Wait until it is written, and let it be the latest. Collectives: one of torch's, two agreements.

        Raises CheckpointError on every rank where writing failed on any: the partial directory is removed and the
        previous checkpoint stays the latest.
        """
        with self._noted():
            self._shards.finish()
        self._verdict.agree(self._cleanup)
        first = dist.get_rank() == 0
        if first:
            with self._verdict.guard():
                replace_directory(self._partial, self._target)
                write_text(self._directory / LATEST, self._target.name + "\n")
        self._verdict.agree(self._cleanup)
        if first:
            kept = {best_checkpoint(self._directory)} if self._keep_best else set()
            _prune(self._directory, self._target, self._keep_last, kept)
        return self._target

    def _cleanup(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Note what failed here: torch raises on every rank, with the errors of all."""
        try:
            yield
        except CheckpointException as failure:
            if dist.get_rank() in failure.failures:
                self._verdict.note(failure.failures[dist.get_rank()][0])


def load_checkpoint(
    path: str | Path, *, models: Mapping[str, torch.nn.ModuleList], optimizer: Any, scheduler: Any
) -> Restored:
    """Put the state of checkpoint `path` into `models`, `optimizer` and `scheduler`, under any layout.

    The optimizer may be the distributed one where a plain one saved, or the other way round. torch's generator state
    is restored where the number of ranks is the one that saved. Call it inside `megatron_runtime()`. Collectives:
    megatron-core's for the sharding plan. Raises CheckpointError where the checkpoint is missing, broken, of another
    model, or of an optimizer in another precision.
    """
    path = Path(path)
    if not (path / META).is_file():
        raise CheckpointError(f"no checkpoint at {path}: it has no {META}; latest_checkpoint names one that is whole")
    meta = read_meta(path)
    saved, kind = meta["optimizer"], _optimizer_kind(optimizer)
    if saved != kind and not can_convert(saved, kind):
        raise CheckpointError(
            f"cannot load {path}: it holds the state of a {saved}, this run has a {kind}; train on in the precision of "
            "the run that saved it"
        )
    allocate_state(optimizer)
    state = _state(models, optimizer, scheduler, {}, is_loading=True)
    if saved != kind:
        state[_OTHER_KIND] = state.pop("optimizer")
        ask_for(state[_OTHER_KIND], saved, kind)
    same_ranks = meta["layout"]["world"] == dist.get_world_size()
    if not same_ranks:
        del state["torch_rng"]
    try:
        loaded = dist_checkpointing.load(state, str(path))
    except CheckpointException as failure:
        raise CheckpointError(f"cannot load {path}: {_short(_cause(failure))}") from failure
    except (CheckpointingException, EOFError, OSError, RuntimeError, pickle.UnpicklingError) as failure:
        raise CheckpointError(
            f"cannot load {path}: {_short(failure)}; remove it to go on from the checkpoint before it"
        ) from failure
    for name, model in models.items():
        for number, chunk in enumerate(model):
            prefix = f"{number}.{name}."
            unwrap_model(chunk).load_state_dict(
                {key.removeprefix(prefix): v for key, v in loaded["models"].items() if key.startswith(prefix)}
            )
    if saved != kind:
        part = getattr(optimizer, "chained_optimizers", [optimizer])[0]
        loaded["optimizer"] = converted(loaded[_OTHER_KIND], loaded["optimizer"], saved, part)
    settings = [{name: group[name] for name in _OF_RUN_FILE} for group in optimizer.param_groups]
    with loading_state():
        optimizer.load_state_dict(loaded["optimizer"])
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
    scheduler.load_state_dict(loaded["scheduler"])
    if same_ranks:
        torch.set_rng_state(loaded["torch_rng"])
    return Restored(step=meta["step"], extra=loaded["extra"], meta=meta)


def _state(
    models: Mapping[str, torch.nn.ModuleList],
    optimizer: Any,
    scheduler: Any,
    extra: Mapping[str, Any],
    *,
    is_loading: bool,
) -> dict[str, Any]:
    """The sharded state dict of everything.

    A checkpoint keys parameters by model, name and place among all layers. Chunks stand apart in the dict alone, where
    each numbers its layers from 0.
    """
    parameters: dict[str, Any] = {}
    for name, model in sorted(models.items()):
        for number, chunk in enumerate(model):
            sharded = unwrap_model(chunk).sharded_state_dict(prefix=f"{name}.")
            parameters |= {f"{number}.{key}": value for key, value in sharded.items()}
    with places_without_padding(optimizer):  # it finds its own parameters among all by identity
        moments = optimizer.sharded_state_dict(parameters, is_loading=is_loading, metadata=dict(_OPTIMIZER_FORMAT))
    return {
        "models": parameters,
        "optimizer": moments,
        "scheduler": scheduler.state_dict(),
        "extra": dict(extra),
        "torch_rng": ShardedObject("torch_rng", torch.get_rng_state(), (dist.get_world_size(),), (dist.get_rank(),)),
    }


def _optimizer_kind(optimizer: Any) -> str:
    """megatron-core's class: plain and distributed optimizers do not read one another's state."""
    return type(getattr(optimizer, "chained_optimizers", [optimizer])[0]).__name__


def _meta(step: int, meta: Mapping[str, Any], optimizer: Any) -> dict[str, Any]:
    return {
        **meta,
        "step": step,
        "optimizer": _optimizer_kind(optimizer),
        "layout": {
            "tp": parallel_state.get_tensor_model_parallel_world_size(),
            "pp": parallel_state.get_pipeline_model_parallel_world_size(),
            "vpp": parallel_state.get_virtual_pipeline_model_parallel_world_size() or 1,
            "cp": parallel_state.get_context_parallel_world_size(),
            "dp": parallel_state.get_data_parallel_world_size(),
            "world": dist.get_world_size(),
        },
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _cause(failure: CheckpointException) -> BaseException:
    """The error of the first rank that failed."""
    return failure.failures[min(failure.failures)][0]


def _short(error: BaseException) -> str:
    """The error's name and the start of its text: megatron-core's may list every tensor of a checkpoint."""
    text = str(error)
    return f"{type(error).__name__}: {text[:_LONGEST_REASON]}{' ...' if len(text) > _LONGEST_REASON else ''}"


def _prune(directory: Path, newest: Path, keep_last: int, kept: set[Path | None]) -> None:
    older = [path for path in checkpoints(directory) if path != newest]
    for path in older[: len(older) - keep_last + 1]:
        if path in kept:
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:
            warnings.warn(f"the old checkpoint {path} could not be removed: {error}", stacklevel=3)
