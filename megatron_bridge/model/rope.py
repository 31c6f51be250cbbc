"""Rotary frequencies for contexts longer than those of pretraining, and those that megatron-core remembers."""

from __future__ import annotations

import math

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding

from megatron_bridge.model.shape import RopeScaling


def stretched(frequency_d: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """The angular frequencies of Llama 3.1, in radians a token, from those without scaling; any shape.

    Source: `rope_type` llama3 of Hugging Face transformers.
    """
    turns_d = scaling.original_max_position * frequency_d / (2 * math.pi)  # over the context of pretraining
    span = scaling.high_freq_factor - scaling.low_freq_factor
    kept_d = ((turns_d - scaling.low_freq_factor) / span).clamp(0, 1)  # 1: as it was, 0: divided by the factor
    return kept_d * frequency_d + (1 - kept_d) * frequency_d / scaling.factor


def forget_rotary() -> None:
    """Let go of the cosines that megatron-core remembers for the last lengths: of models that are gone too."""
    RotaryEmbedding.forward.cache_clear()
