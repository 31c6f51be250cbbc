"""Writing the shards of a checkpoint: all ranks plan, each writes its own file, here or in a thread, all ranks finish.

The format is megatron-core's `torch_dist`. Its own strategy writes through forked processes and a manager process,
which costs about as much as importing the main module again; torch's `save` and `async_save` do the three parts in one
call, the latter with collectives in a thread, beside those of training. Here every collective is the caller's.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from megatron.core.dist_checkpointing import ShardedTensor
from megatron.core.dist_checkpointing.strategies.torch import (
    MCoreSavePlanner,
    _replace_state_dict_keys_with_sharded_keys,
    mcore_to_pyt_state_dict,
)
from torch.distributed import checkpoint as torch_checkpoint
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.checkpoint.utils import _DistWrapper


class ShardWriter:
    """One checkpoint's shards on their way to `directory`, one file a rank."""

    def __init__(self, sharded: dict[str, Any], directory: Path, *, background: bool) -> None:
        """Plan what each rank writes; with `background`, begin to write a copy of it, in host memory, in a thread.

        Collective over all ranks. Raises torch's CheckpointException on every rank where planning failed on any.
        """
        by_key, _, _ = _replace_state_dict_keys_with_sharded_keys(sharded, keep_only_main_replica=True)
        if background:
            for part in (part for parts in by_key.values() for part in parts if isinstance(part, ShardedTensor)):
                part.data = part.data.detach().to("cpu", copy=True)
        state = mcore_to_pyt_state_dict(by_key, is_loading=False)
        # a thread has nothing to fetch from a GPU, and would begin with the first one
        ahead = {"per_thread_copy_ahead": 0} if background else {}
        self._files = torch_checkpoint.FileSystemWriter(directory, thread_count=1, sync_files=True, **ahead)
        self._planner = MCoreSavePlanner(dedup_replicated_tensors=False, flatten_state_dict=False)
        self._ranks = _DistWrapper(None, True, 0)
        self._metadata: Metadata | None = None  # on rank 0

        def mine() -> SavePlan:
            self._planner.set_up_planner(
                state_dict=state, storage_meta=self._files.storage_meta(), is_coordinator=self._ranks.is_coordinator
            )
            self._files.set_up_storage_writer(self._ranks.is_coordinator)
            return self._files.prepare_local_plan(self._planner.create_local_plan())

        def all_together(plans: list[SavePlan]) -> list[SavePlan]:
            plans, self._metadata = self._planner.create_global_plan(plans)
            return self._files.prepare_global_plan(plans)

        self._plan: SavePlan = self._ranks.reduce_scatter("plan", mine, all_together)
        self._written: Future[list[WriteResult]] | None = None
        if background:
            thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
            self._written = thread.submit(self._write)
            thread.shutdown(wait=False)

    @property
    def done(self) -> bool:
        """Whether this rank's part is written, or cannot be. Without a thread `finish` writes it."""
        return self._written is not None and self._written.done()

    def finish(self) -> None:
        """Wait until every rank has written its part, and write on rank 0 what says where each tensor is.

        Collective over all ranks. Raises torch's CheckpointException on every rank where writing failed on any.
        """
        self._ranks.all_reduce("write", self._write if self._written is None else self._written.result, self._conclude)

    def _write(self) -> list[WriteResult]:
        written = self._files.write_data(self._planner.finish_plan(self._plan), self._planner)
        written.wait()
        found: list[WriteResult] = written.value()
        return found

    def _conclude(self, written: list[list[WriteResult]]) -> None:
        assert self._metadata is not None
        self._files.finish(metadata=self._metadata, results=written)
