"""Stopping cleanly: a signal is noted, and all ranks agree on it before any leaves a collective the others wait
in.
"""

from __future__ import annotations

import signal
from types import FrameType

import torch
import torch.distributed as dist


class Interrupt:
    """Notes SIGINT and SIGTERM from its making on; `agreed()` tells every rank whether any rank got one."""

    def __init__(self) -> None:
        self._signal = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number

    def agreed(self, device: torch.device) -> bool:
        """Whether some rank was asked to stop. Collective: one all-reduce over all ranks."""
        flag = torch.tensor(float(self._signal != 0), device=device)
        if dist.get_world_size() > 1:
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)
