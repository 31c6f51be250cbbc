"""Run a test function on several gloo processes of this machine and bring its results back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp


def _child(rank: int, world: int, store: str, out: str, function: Callable[..., Any], args: tuple) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        torch.save(function(*args), f"{out}/{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def run_distributed(function: Callable[..., Any], world: int, *args: Any) -> list[Any]:
    """Call `function(*args)` on `world` fresh processes joined by gloo; return the results by rank.

    `function` must be importable (a module-level function) and its result must survive `torch.save`.
    An exception in any rank is raised here. The rendezvous is a file, so no port is taken.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_child, (world, f"{folder}/store", folder, function, args), nprocs=world)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world)]
