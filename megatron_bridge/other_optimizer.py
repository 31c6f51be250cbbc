"""Loading optimizer state that another kind of optimizer saved: one that each rank holds whole, or the distributed one.

Both keep Adam's moments in the parameters' shapes and under the same keys (the distributed one in megatron-core's
format `fully_reshardable`). What differs is the name of the float32 weights and where groups and step count stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedBase

DISTRIBUTED, PLAIN, PLAIN_BF16 = "DistributedOptimizer", "FP32Optimizer", "Float16OptimizerWithFloat16Params"
# Where each keeps float32 weights; a plain float32 optimizer has none beside the model's own.
_WEIGHTS = {DISTRIBUTED: "optimizer.state.param.", PLAIN_BF16: "optimizer.state.fp32_param."}


def can_convert(saved: str, own: str) -> bool:
    """Whether state of one kind of optimizer can go into another."""
    return {saved, own} <= {DISTRIBUTED, PLAIN, PLAIN_BF16} and (own == DISTRIBUTED) != (saved == DISTRIBUTED)


def ask_for(wanted: dict[str, Any], saved: str, own: str) -> None:
    """Change what an optimizer wants of a checkpoint into what the other kind has saved, in place."""
    if saved == PLAIN:  # the weights are the model's
        for tensors in wanted["param_state"].values():
            del tensors["param"]
    elif own in _WEIGHTS:
        for part in nested_values(wanted):
            if isinstance(part, ShardedBase) and part.key.startswith(_WEIGHTS[own]):
                part.key = _WEIGHTS[saved] + part.key.removeprefix(_WEIGHTS[own])


def converted(found: Mapping[str, Any], common: Mapping[str, Any], saved: str, optimizer: Any) -> dict[str, Any]:
    """What `optimizer.load_state_dict` takes. found: what `ask_for` asked for; common: what the other kind saved beside
    tensors. The model must have its weights already.
    """
    inner = common if saved == PLAIN else common["optimizer"]
    groups = inner["param_groups"]
    if saved == DISTRIBUTED:
        return _plain(found, [{k: v for k, v in group.items() if k != "step"} for group in groups], groups[0]["step"])
    step = float(inner["state"]["common_step"])
    parameters = [p for buffer in optimizer.buffers for p in buffer.param_index_map]
    weights = [{"param": p.detach().float()} if saved == PLAIN else {} for p in parameters]
    return {
        "optimizer": {"param_groups": [{**group, "step": step} for group in groups]},
        "param_state": {n: {**found["param_state"][n], **weight} for n, weight in enumerate(weights)},
        "param_state_sharding_type": "fully_reshardable",
    }


def _plain(found: Mapping[str, Any], groups: list[dict[str, Any]], step: float) -> dict[str, Any]:
    """The state of a plain optimizer; in bfloat16 it has its float32 weights beside it."""
    own = found.get("optimizer", found)
    state = {
        "state": {**own["state"], "common_step": torch.tensor(step)},
        "param_groups": [
            {**group, "params": mine["params"]} for group, mine in zip(groups, own["param_groups"], strict=True)
        ],
    }
    return state if own is found else {**found, "optimizer": state}
