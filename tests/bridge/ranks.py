"""Layouts one after another inside the same group of processes: importing megatron-core is what takes long."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from megatron_bridge.device import megatron_runtime
from megatron_bridge.model.gpt import build_model
from megatron_bridge.model.hf import load_hf
from megatron_bridge.model.shape import Layout, read_shape
from megatron_bridge.parallel import start_parallel

TP1, TP2, PP2, VPP2 = Layout(dp=2), Layout(tp=2), Layout(pp=2), Layout(pp=2, vpp=2)


@contextlib.contextmanager
def under(layout: Layout, *, seed: int = 1) -> Iterator[None]:
    """Run the block with the ranks laid out by `layout`; the processes go on after it."""
    with megatron_runtime():
        before = _groups()
        start_parallel(layout, seed)
        try:
            yield
        finally:
            dist.barrier()
            parallel_state.destroy_model_parallel()
            _end_groups(before)


def _end_groups(before: set[dist.ProcessGroup]) -> None:
    """End the groups made since: as long as a gloo group is there, its threads wake a hundred times a second."""
    for group in _groups() - before:
        dist.destroy_process_group(group)


def _groups() -> set[dist.ProcessGroup]:
    return set(dist.distributed_c10d._world.pg_map)


def loaded(directory: str | Path, layout: Layout) -> torch.nn.ModuleList:
    """The chunks of the model of a Hugging Face directory under `layout`."""
    model = build_model(read_shape(directory), layout)
    load_hf(model, directory)
    return model


def gathered(local_sbv: torch.Tensor, layout: Layout, vocab: int) -> torch.Tensor:
    """Logits [b, s, vocab] from the columns of all tp ranks, without padding."""
    shards = [torch.empty_like(local_sbv) for _ in range(layout.tp)]
    dist.all_gather(shards, local_sbv.detach(), group=parallel_state.get_tensor_model_parallel_group())
    return torch.cat(shards, -1)[..., :vocab].transpose(0, 1).contiguous()
