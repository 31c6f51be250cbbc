"""Loading the state of torch's Adam into megatron-core's optimizers.

megatron-core takes torch's AdamW where neither transformer-engine nor apex is installed. Version 0.16.1 then
trips over Adam's per-parameter step count at three places of `megatron/core/optimizer/distrib_optimizer.py`:
`state_dict` asserts that there is one before the first step; `_set_main_param_and_optimizer_states` looks for
it among the loaded tensors, which leave it out; and `load_state_dict` gives all parameters one and the same
tensor, which every parameter then counts up in place. Its plain optimizer is not affected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer


def allocate_state(optimizer: Any) -> None:
    """Give torch's Adam inside `optimizer` the state that it makes at its first step, where it has none."""
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        inner = part.optimizer
        if not isinstance(inner, torch.optim.Adam):  # AdamW is one; fused optimizers keep other state
            continue
        for group in inner.param_groups:
            for parameter in group["params"]:
                if not inner.state[parameter]:
                    inner.state[parameter] = {
                        "step": torch.zeros((), dtype=torch.float32),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }


@contextlib.contextmanager
def loading_state() -> Iterator[None]:
    """Within this block the distributed optimizer keeps the step counts it set, one to each parameter."""
    original = DistributedOptimizer._set_main_param_and_optimizer_states

    def keep_step(self: Any, model_param: torch.nn.Parameter, tensors: dict[str, torch.Tensor]) -> None:
        if isinstance(self.optimizer, torch.optim.Adam):
            group, order = self.model_param_group_index_map[model_param]
            state = self.optimizer.state[self.optimizer.param_groups[group]["params"][order]]
            state["step"] = state["step"].clone()
            tensors = {"step": state["step"], **tensors}
        original(self, model_param, tensors)

    with mock.patch.object(DistributedOptimizer, "_set_main_param_and_optimizer_states", keep_step):
        yield
