"""Rollouts that servers have begun to draw, in a checkpoint and out of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from megatron_bridge.rollout.client import Client, Drawing, Request
from megatron_bridge.rollout.engine import Begun, SamplingParams
from megatron_bridge.rollout.protocol import version_name
from megatron_bridge.rollout.servers import State
from megatron_bridge.rollout.settings import RolloutSettings
from megatron_bridge.training.ahead import Ahead
from megatron_bridge.training.rollout_buffer import RolloutBuffer

ASKED = {"prompts": 3, "group_size": 2, "max_response_tokens": 8, "temperature": 1.0}
STOP = 99


def buffer(*, minibatches: int = 2, staleness: int = 1, **asked: float) -> RolloutBuffer:
    return RolloutBuffer(asked=ASKED | asked, minibatches=minibatches, staleness=staleness)


def samples(version: int) -> list[list[Begun]]:
    """Of three prompts two each, one of them without a token yet; a log-prob that float32 does not have."""
    tokens = [[(5, 6, 7), ()], [(8,), (9, 10)], [(11, 12, 13, 14), (15,)]]
    return [
        [
            Begun(token_ids=ids, logprobs=tuple(-0.1 / (t + 1) for t in ids), weight_versions=(version,) * len(ids))
            for ids in row
        ]
        for row in tokens
    ]


def test_they_come_back_bit_for_bit_and_once() -> None:
    """After step 6, of two an iteration: iteration 3 was drawn by the weights of step 4, iteration 4 by those of 6."""
    state = buffer().state({3: samples(4), 4: samples(6)}, iteration=3, first=9)
    again = buffer()
    again.restore(state, iteration=3, first=9)
    assert again.state({}, iteration=3, first=9)["samples"][1][0] == 1  # a checkpoint before they are asked for
    assert again.take(3) == samples(4)
    assert again.take(4) == samples(6)
    assert again.take(3) is again.take(5) is None


@pytest.mark.parametrize(
    "other",
    [{"prompts": 4}, {"group_size": 3}, {"max_response_tokens": 4}, {"temperature": 0.7}, {"staleness": 0}],
    ids=str,
)
def test_other_samples_are_drawn_from_their_beginning(other: dict[str, Any]) -> None:
    state = buffer().state({3: samples(4)}, iteration=3, first=9)
    again = buffer(**other)
    again.restore(state, iteration=3, first=9)
    assert again.take(3) is None


def test_other_data_and_a_checkpoint_of_an_older_version() -> None:
    state = buffer().state({3: samples(4)}, iteration=3, first=9)
    for given, first in ((state, 12), (None, 9)):
        again = buffer()
        again.restore(given, iteration=3, first=first)
        assert again.take(3) is None


def test_what_is_not_trained_on_yet() -> None:
    """In training on iteration 2 it counts, and afterwards no more."""
    ahead = Ahead(lambda iteration: iteration, first=2, last=7, staleness=2)  # type: ignore[arg-type,return-value]
    assert ahead.untrained(2) == []
    ahead.take()
    assert ahead.untrained(2) == [(2, 2), (3, 3), (4, 4)]
    assert ahead.untrained(3) == [(3, 3), (4, 4)]


class Server:
    """What a client asks of a server: one token a request until it is interrupted, and then what it has."""

    def __init__(self) -> None:
        self.version = version_name("run", 0)
        self.asked: list[list[int]] = []
        self.interrupted = asyncio.Event()

    async def generate(self, _url: str, body: dict[str, Any]) -> bytes:
        ids, most = body["input_ids"], body["sampling_params"]["max_new_tokens"]
        self.asked.append(ids)
        if ids[0] == 1:  # the patient one
            await self.interrupted.wait()
            most = min(most, 2)
        tokens = [len(ids) + n for n in range(most)]
        scored = [[-0.5, token] for token in tokens]
        finish = {"type": "length" if most == body["sampling_params"]["max_new_tokens"] else "abort"}
        versions = [{"version": self.version, "start": 0, "end": most}]
        meta = {"finish_reason": finish, "output_token_logprobs": scored, "weight_versions": versions}
        return json.dumps({"output_ids": tokens, "meta_info": meta}).encode()

    async def abort(self, _url: str, _body: dict[str, Any]) -> bool:
        self.interrupted.set()
        return True

    async def close(self) -> None: ...


def a_client() -> tuple[Client, Server]:
    client = Client(["http://server"], RolloutSettings(engine="sglang"), run="run", vocab_size=128)
    client._http = server = Server()  # type: ignore[assignment]
    client.version = 0
    return client, server


def request(first: int) -> Request:
    params = SamplingParams(temperature=1.0, max_new_tokens=5, stop_token_ids=(STOP,), seed=0)
    return Request(prompt=(first, 3, 4), budget=5, params=params)


def test_samples_in_flight_give_their_tokens_and_both_runs_go_on() -> None:
    async def first_run() -> tuple[list[Begun], list[Any]]:
        client, _ = a_client()
        await client.go_on(0, [])
        await client.pool.set_state(client.pool.servers[0], State.UP)
        drawings = [Drawing(), Drawing()]
        drawn = asyncio.create_task(client.draw([request(1), request(2)], drawings))
        while not drawings[1].token_ids or not client.pool.in_flight:
            await asyncio.sleep(0)
        await client.pause()
        found = await client.so_far(drawings)
        return found, await drawn

    async def second_run(begun: list[Begun]) -> tuple[list[Any], list[list[int]]]:
        client, server = a_client()
        server.version, client.version = version_name("run", 4), 4
        server.interrupted.set()
        await client.go_on(4, [])
        await client.pool.set_state(client.pool.servers[0], State.UP)
        return await client.draw([request(1), request(2)], [Drawing.of(one) for one in begun]), server.asked

    begun, drawn = asyncio.run(first_run())
    assert [one.token_ids for one in begun] == [(3, 4), (3, 4, 5, 6, 7)]
    assert [one.token_ids for one in drawn] == [(3, 4, 5, 6, 7)] * 2
    resumed, asked = asyncio.run(second_run(begun))
    assert asked[0] == [1, 3, 4, 3, 4]  # the whole one is not asked for again
    assert [ids[0] for ids in asked] == [1] * len(asked)
    assert [one.token_ids for one in resumed] == [one.token_ids for one in drawn]
    assert resumed[0].weight_versions == (0, 0, 4, 4, 4)
    assert resumed[1].weight_versions == (0,) * 5
