"""The same tokens scored by the trainer and by its servers: the proof that a weight update arrived."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from megatron_bridge.model.gpt import bare
from megatron_bridge.rollout.client import Client
from megatron_bridge.rollout.embedded import EmbeddedEngine
from megatron_bridge.rollout.protocol import probe_request, read_answer, read_scores
from megatron_bridge.rollout.servers import Server

_SEQUENCES, _TOKENS, _DRAWN = 2, 48, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What one server said of the probe: the log-probs of its tokens, and of those that it drew after them."""

    server: Server
    scores: list[tuple[float, ...]]
    drawn: list[list[int]]
    drawn_logprobs: list[tuple[float, ...]]


def probe_tokens(vocab_size: int, max_context: int) -> list[list[int]]:
    """Token ids that depend on nothing but the sizes; random, so that much of the embedding is read.

    The vocabulary's last token is not among them: SGLang 0.5.20 names it 0 beside the log-prob of an input.
    """
    generator = torch.Generator().manual_seed(0)
    length = min(_TOKENS, max_context - 1)
    return torch.randint(0, vocab_size - 1, (_SEQUENCES, length), generator=generator).tolist()


async def ask_probe(
    client: Client,
    server: Server,
    probe: Sequence[list[int]],
    *,
    temperature: float,
    vocab_size: int,
    max_context: int,
    seconds: float,
) -> Probed:
    """Let a server score the probe and draw a few tokens after it. Raises RolloutError and BadAnswer."""
    scores, drawn, logprobs = [], [], []
    for token_ids in probe:
        draw = min(_DRAWN, max_context - len(token_ids))
        body = probe_request(token_ids, temperature=temperature, draw=draw)
        content = await client.call(server, "/generate", body, seconds=seconds)
        scores.append(read_scores(content, token_ids))
        answer = read_answer(content, budget=draw, vocab_size=vocab_size)
        drawn.append(list(answer.token_ids))
        logprobs.append(answer.logprobs)
    return Probed(server=server, scores=scores, drawn=drawn, drawn_logprobs=logprobs)


def trainer_logprobs(
    model: torch.nn.ModuleList, token_ids: Sequence[Sequence[int]], vocab_size: int, *, temperature: float = 1.0
) -> list[list[float]]:
    """log p of every token but the first under the model of now, at `temperature`, under any layout.

    Collectives: those of `EmbeddedEngine.score`; the same on every rank.
    """
    engine = EmbeddedEngine(model, vocab_size=vocab_size, max_context=bare(model[-1]).max_sequence_length)
    return engine.score(token_ids, temperature=temperature)


def largest_gap(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """The largest difference between two scores of the same tokens; infinite where one is no number."""
    gaps = [abs(a - b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return max((gap if math.isfinite(gap) else math.inf for gap in gaps), default=0.0)
