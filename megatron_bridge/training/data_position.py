"""Where a run stands in its data: how many prompts were drawn, and of which problems in which order.

A checkpoint carries it, so that a run goes on with the next problem also when the prompts of an iteration changed, and
not at all when the problems or their order did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from megatron_bridge.verdict import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPosition:
    """`identity`: what decides the problem of each position, by the name of what decides it (see `Task.identity`);
    `offset` is what iterations of another size have drawn more than those of this run's size would have.
    """

    identity: Mapping[str, str]
    offset: int = 0

    def first(self, iteration: int, prompts: int) -> int:
        """The position of an iteration's first problem."""
        return self.offset + iteration * prompts

    def state(self, iteration: int, prompts: int) -> dict[str, Any]:
        """What a checkpoint carries before `iteration`."""
        return {"position": self.first(iteration, prompts), "identity": dict(self.identity)}

    def restored(self, state: Mapping[str, Any], iteration: int, prompts: int) -> DataPosition:
        """The position that goes on from `state`. Raises CheckpointError when problems or their order are others."""
        before = state.get("identity", {})
        changed = [name for name in {**before, **self.identity} if before.get(name) != self.identity.get(name)]
        if changed:
            raise CheckpointError(
                f"{', '.join(changed)}: not what the checkpoint was trained on; going on would skip some problems and "
                "repeat others; put it back, or start a new run with another name=..."
            )
        return replace(self, offset=state["position"] - iteration * prompts)
