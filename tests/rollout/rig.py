"""An engine on running servers, prompts of one length, and what every sample must satisfy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import torch

from megatron_bridge.model.shape import read_shape
from megatron_bridge.rollout.engine import Drawn, SamplingParams
from megatron_bridge.rollout.probe import trainer_logprobs
from megatron_bridge.rollout.served import ServedEngine, ServedPending
from megatron_bridge.rollout.servers import Server
from megatron_bridge.rollout.settings import RolloutSettings

POLICY = Path("specs/demo/policy")
VOCAB = 128
PROMPTS = torch.randint(5, VOCAB, (8, 12), generator=torch.Generator().manual_seed(5)).tolist()
KEYS = tuple(range(len(PROMPTS)))
# no stop token: every response has this length, and a batch of 8 x 8 takes some seconds
LONG = SamplingParams(temperature=1.0, max_new_tokens=160, stop_token_ids=(), seed=0)
SHORT = replace(LONG, max_new_tokens=40)
N = 8


@contextlib.contextmanager
def served(model: torch.nn.ModuleList, folder: Path, urls: Sequence[str], **settings: Any) -> Iterator[ServedEngine]:
    """An engine whose time-outs are short enough for a test."""
    quick = {"health_timeout": 20.0, "server_timeout": 120.0, "urls": list(urls)}
    engine = ServedEngine(
        model,
        shape=read_shape(POLICY),
        policy=POLICY,
        settings=RolloutSettings(engine="sglang", **(quick | settings)),
        directory=folder,
    )
    try:
        yield engine
    finally:
        engine.close()


def start_long(engine: ServedEngine) -> ServedPending:
    """A batch of LONG samples of which every server has drawn some tokens, and at most half.

    A busy machine may let a server draw all of it before anybody looks: the batch is started anew then.
    """
    assert engine._client is not None
    pool = engine._client.pool
    share = len(PROMPTS) * N // len(pool.servers)  # samples of each server
    deadline = time.monotonic() + 120
    while True:
        pending = engine.start(PROMPTS, N, LONG, keys=KEYS)
        assert pending.future is not None
        while not pending.future.done():
            held = [tokens_held(server) for server in pool.servers]
            drawing = all(5 * share <= tokens <= share * LONG.max_new_tokens // 2 for tokens in held)
            if drawing and all(len(target.posts) >= share // 2 for target in pool.targets):
                return pending
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pending.result()


def tokens_held(server: Server) -> int:
    """Tokens that the running requests of a server hold in its cache; all share those of the prompts, 96."""
    answer = httpx.get(f"{server.url}/v1/loads", timeout=60, trust_env=False).raise_for_status().json()
    return sum(load["num_used_tokens"] for load in answer["loads"])


def change(model: torch.nn.ModuleList, seed: int) -> None:
    """Move every parameter, each by another amount."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def check_whole(drawn: Drawn, params: SamplingParams, *, prompts: int = len(PROMPTS), n: int = N) -> None:
    """Every sample is there once, and whole. Two alike would be one counted twice where they have LONG's length."""
    assert [len(row) for row in drawn.samples] == [n] * prompts
    everything = [sample for row in drawn.samples for sample in row]
    if params.max_new_tokens >= LONG.max_new_tokens:  # shorter ones may be alike by chance
        assert len({sample.token_ids for sample in everything}) == len(everything)
    for sample in everything:
        assert len(sample.token_ids) == len(sample.logprobs) == len(sample.weight_versions) == params.max_new_tokens
        assert sample.finish == "length"


def gaps(model: torch.nn.ModuleList, drawn: Drawn, version: int | None = None) -> list[float]:
    """|log-prob drawn with - log-prob of the model of now| for every token, or for those of one weight version."""
    rows = [(prompt, sample) for prompt, row in zip(PROMPTS, drawn.samples, strict=True) for sample in row]
    scored = trainer_logprobs(model, [[*prompt, *sample.token_ids] for prompt, sample in rows], VOCAB)
    return [
        abs(score - logprob)
        for (prompt, sample), scores in zip(rows, scored, strict=True)
        for score, logprob, drawn_by in zip(
            scores[len(prompt) - 1 :], sample.logprobs, sample.weight_versions, strict=True
        )
        if version in (None, drawn_by)
    ]
