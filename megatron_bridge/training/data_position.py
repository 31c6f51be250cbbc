"""Where a run stands in its data: how many prompts were drawn, and from which files.

A checkpoint carries it, so that a run goes on with the next problem also when the prompts of an iteration changed, and
not at all when the files did.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from megatron_bridge.verdict import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPosition:
    """`digest` is of the files, None where a program draws the problems; `offset` is what iterations of another size
    have drawn more than those of this run's size would have.
    """

    digest: str | None
    offset: int = 0

    def first(self, iteration: int, prompts: int) -> int:
        """The position of an iteration's first problem."""
        return self.offset + iteration * prompts

    def state(self, iteration: int, prompts: int) -> dict[str, Any]:
        """What a checkpoint carries before `iteration`."""
        return {"position": self.first(iteration, prompts), "digest": self.digest}

    def restored(self, state: dict[str, Any], iteration: int, prompts: int) -> DataPosition:
        """The position that goes on from `state`. Raises CheckpointError when the files are others."""
        if state["digest"] != self.digest:
            raise CheckpointError(
                "the files of task.data are not those that the checkpoint was trained on (their bytes differ): going "
                "on would skip some problems and repeat others; put them back, or start a new run with another name=..."
            )
        return replace(self, offset=state["position"] - iteration * prompts)
