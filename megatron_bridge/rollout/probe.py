"""The same tokens scored by the trainer and by its servers: the proof that a weight update arrived."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from megatron_bridge.model.gpt import bare
from megatron_bridge.rollout.embedded import EmbeddedEngine

_SEQUENCES, _TOKENS = 2, 48


def probe_tokens(vocab_size: int, max_context: int) -> list[list[int]]:
    """Token ids that depend on nothing but the sizes; random, so that much of the embedding is read.

    The vocabulary's last token is not among them: SGLang 0.5.20 names it 0 beside the log-prob of an input.
    """
    generator = torch.Generator().manual_seed(0)
    length = min(_TOKENS, max_context - 1)
    return torch.randint(0, vocab_size - 1, (_SEQUENCES, length), generator=generator).tolist()


def trainer_logprobs(model: torch.nn.Module, token_ids: Sequence[Sequence[int]], vocab_size: int) -> list[list[float]]:
    """log p of every token but the first under the model of now, at temperature 1, under any layout.

    Collectives: those of `EmbeddedEngine.score`; the same on every rank.
    """
    engine = EmbeddedEngine(model, vocab_size=vocab_size, max_context=bare(model).max_sequence_length)
    return engine.score(token_ids)


def largest_gap(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """The largest difference between two scores of the same tokens."""
    return max(abs(a - b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))
