"""The RMS norm of the local layer specification."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig


class ShardedRMSNorm(torch.nn.RMSNorm):
    """torch's RMS norm over the last dimension; under sequence parallelism it sees a part of the places.

    Its weight says so to megatron-core, which then sums the weight's gradient over the tensor parallel ranks.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_kwargs: Any) -> None:
        super().__init__(hidden_size, eps=eps)
        self.weight.sequence_parallel = config.sequence_parallel
