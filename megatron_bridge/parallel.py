"""Process groups: from torchrun's environment to megatron-core's parallel state, and back."""

from __future__ import annotations

import math
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from torch.distributed.rendezvous import rendezvous

from megatron_bridge.device import backend, megatron_runtime, training_device
from megatron_bridge.model.shape import Layout
from trace_dsl.errors import LayoutError

__all__ = ["Layout", "start_parallel", "stop_parallel"]
_PATIENCE = timedelta(minutes=30)


def start_parallel(layout: Layout, seed: int, *, patience: timedelta = _PATIENCE) -> None:
    """Join the ranks of `layout` and seed every generator with `seed`. A collective whose peers do not come within
    `patience` fails.

    torch.distributed is started from torchrun's variables (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) unless
    it already runs; without them this process is a world of one. Collectives: those that make the groups.
    Raises LayoutError where the number of ranks is not tp x pp x cp x dp, before any group is made.
    """
    started = dist.is_initialized()
    world = dist.get_world_size() if started else int(os.environ.get("WORLD_SIZE", "1"))
    if world != layout.world:
        raise LayoutError(
            f"{world} ranks are not tp {layout.tp} x pp {layout.pp} x cp {layout.cp} x dp {layout.dp} = "
            f"{layout.world}: "
            f"start {layout.world} processes (torchrun --nproc-per-node {layout.world}), or change the layout"
        )
    device = training_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not started:
        if "RANK" in os.environ:
            store, rank, _ = next(rendezvous("env://", timeout=patience))
            store = _of_this_start(store)
            dist.init_process_group(backend(), store=store, rank=rank, world_size=world, timeout=patience)
        else:
            dist.init_process_group(backend(), store=dist.HashStore(), rank=0, world_size=1, timeout=patience)
    with megatron_runtime():
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=layout.tp,
            pipeline_model_parallel_size=layout.pp,
            virtual_pipeline_model_parallel_size=layout.vpp if layout.vpp > 1 else None,
            context_parallel_size=layout.cp,
            distributed_timeout_minutes=math.ceil(patience.total_seconds() / 60),
        )
        torch.manual_seed(seed)
        # The inference tracker draws nothing and saves no state: training uses no dropout.
        model_parallel_cuda_manual_seed(seed, inference_rng_tracker=True, force_reset_rng=True)


def _of_this_start(store: dist.Store) -> dist.Store:
    """The part of the store in which nothing stands that was written before the launcher started all ranks again.

    torch's launcher keeps the store over restarts, and with it the addresses of processes that are gone. On several
    machines restarts are counted on each, so there it must be told to make a new store.
    """
    if os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]:
        return store
    return dist.PrefixStore(f"start_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def stop_parallel() -> None:
    """Leave the groups and end torch.distributed; nothing happens where it does not run."""
    if parallel_state.is_initialized():
        parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()
