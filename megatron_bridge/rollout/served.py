"""The engine whose samples come from SGLang servers.

The first of the tensor and pipeline ranks that share a share of the prompts leads: it asks the servers, in a thread of
its own, and tells the others what came. Rank 0 starts servers and sends weights. Everything that ranks decide, they
decide together: a failure on one of them is the same RolloutError on every one.
"""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from megatron_bridge.model.gpt import bare
from megatron_bridge.model.shape import ModelShape
from megatron_bridge.rollout.background import Background
from megatron_bridge.rollout.client import Client, Counts, Drawing, Request
from megatron_bridge.rollout.engine import Begun, Drawn, RolloutError, Sample, SamplingParams, check_budgets
from megatron_bridge.rollout.launcher import ManagedProcess, ServerPlan, plan_router, plan_server
from megatron_bridge.rollout.proof import Proof
from megatron_bridge.rollout.protocol import unproved_name, version_name
from megatron_bridge.rollout.servers import State
from megatron_bridge.rollout.settings import RolloutSettings
from megatron_bridge.rollout.watch import Watch
from megatron_bridge.rollout.weights import WeightSender

_TOGETHER_EVERY = 30.0  # seconds; ranks that wait for rollouts must not run into a collective's time-out
_POLL = 0.1
_AGAIN_AFTER = 2.0


class ServedEngine:
    """A `RolloutEngine` over SGLang servers; nothing is started before the first `sync`."""

    def __init__(
        self,
        model: torch.nn.ModuleList,
        *,
        shape: ModelShape,
        policy: Path,
        settings: RolloutSettings,
        directory: Path,
        seed: int = 0,
    ) -> None:
        """`policy` is the Hugging Face directory that `model` came from; logs go to `directory`/servers."""
        self._model, self._shape, self._policy = model, shape, policy
        self._settings, self._directory, self._seed = settings, directory, seed
        self._first = dist.get_rank() == 0
        self._group = parallel_state.get_model_parallel_group()
        self._leads = dist.get_rank(self._group) == 0
        self._background: Background | None = None
        self._client: Client | None = None
        self._watch: Watch | None = None
        self._watching: Future[None] | None = None
        self._sender: WeightSender | None = None
        self._step = -1
        self._run = ""
        self._max_context = shape.max_position
        self._gap = 0.0
        self._sync_seconds = 0.0
        self._told = Counts()
        self._restarts_told = 0

    # ----------------------------------------------------------------------------------------------- the interface

    @property
    def max_context(self) -> int:
        """See `RolloutEngine`: the model's, or less where the servers take less."""
        return self._max_context

    def sync(self, step: int) -> None:
        """See `RolloutEngine`. What is in flight comes back with the tokens it has and goes on under the new weights.

        Every server scores a probe; raises RolloutError where one is further than `logprob_bound` from the trainer.
        """
        if self._sender is None:
            self._open()
        if step != self._step:
            self._send(step)

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        params: SamplingParams,
        *,
        keys: Sequence[int],
        begun: Sequence[Sequence[Begun]] | None = None,
    ) -> ServedPending:
        """See `RolloutEngine`. Servers draw with randomness of their own: `keys` and the seed fix nothing."""
        if len(keys) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts with {len(keys)} keys: give one key a prompt")
        budgets = check_budgets(prompts, params, max_context=self._max_context, vocab_size=self._shape.vocab_size)
        requests = [
            Request(prompt=tuple(prompt), budget=budget, params=params)
            for prompt, budget in zip(prompts, budgets, strict=True)
            for _ in range(n)
        ]
        drawings = [Drawing() for _ in requests]
        if begun is not None:
            drawings = [Drawing.of(sample) for samples in begun for sample in samples]
        future = None
        if self._client is not None and self._background is not None:
            future = self._background.submit(_timed(self._client, requests, drawings))
        return ServedPending(engine=self, n=n, future=future, drawings=drawings)

    def metrics(self) -> dict[str, float]:
        """See `RolloutEngine`; counts are those of this rank's requests."""
        if self._client is None or self._watch is None:
            return {}
        now, before = self._client.counts, self._told
        restarts = self._watch.restarts - self._restarts_told
        self._told = Counts(retries=now.retries, resumed=now.resumed, stale=now.stale)
        self._restarts_told = self._watch.restarts
        seconds, self._sync_seconds = self._sync_seconds, 0.0
        return {
            "rollout/retries": now.retries - before.retries,
            "rollout/resumed": now.resumed - before.resumed,
            "rollout/stale_answers": now.stale - before.stale,
            "rollout/server_restarts": restarts,
            "rollout/probe_gap": self._gap,
            "perf/sync_seconds": seconds,
        }

    def close(self) -> None:
        """See `RolloutEngine`: the servers that were started are stopped."""
        if self._sender is not None:
            self._sender.close()
        if self._background is not None:
            self._background.close(last=_end(self._client, self._watch))
        self._sender = self._background = self._client = self._watch = None

    # ------------------------------------------------------------------------------------------------------- opening

    def _open(self) -> None:
        """Start or find the servers; every leader connects to them. Collective."""
        key = self._key() if self._first else None
        plans = self._plans(key) if self._first else []
        urls = [process.url for process in plans if not process.only_one] or list(self._settings.running)
        router = next((process.url for process in plans if process.only_one), self._settings.router)
        box: list[Any] = [uuid.uuid4().hex, urls, router, key]
        dist.broadcast_object_list(box, src=0)
        self._run, urls, router, key = box
        problem = None
        if self._leads:
            self._background = Background("rollouts")
            leaders = parallel_state.get_data_parallel_world_size(with_context_parallel=True)
            places = self._settings.concurrency // leaders
            self._client = self._background.run(
                _connect(urls, router, self._settings, self._run, self._shape.vocab_size, places, key)
            )
            self._watch = Watch(self._client, plans, None if self._settings.running else self._settings.started)
            try:
                self._background.run(self._watch.start())
                self._max_context = min(self._max_context, self._client.longest_input + 1)
                self._watching = self._background.submit(self._watch.watch())
            except RolloutError as error:
                problem = str(error)
        self._sender = WeightSender(
            self._client if self._first else None,
            self._background,
            self._settings,
            shape=self._shape,
            policy=self._policy,
            directory=self._directory / "rollout_weights",
        )
        self._raise_together(problem)
        box = [self._max_context]
        dist.broadcast_object_list(box, src=0)
        (self._max_context,) = box

    def _key(self) -> str | None:
        """What the servers ask of who calls them: a new secret for those that the run starts."""
        if not self._settings.running:
            return secrets.token_hex(32)
        name = self._settings.api_key_env
        return None if name is None else os.environ[name]

    def _plans(self, key: str | None) -> list[ManagedProcess]:
        """The processes to start, on rank 0; none where the servers run already."""
        if self._settings.running:
            return []
        launch, logs = self._settings.started, self._directory / "servers"
        plan = ServerPlan(
            python=launch.python,
            policy=self._policy.resolve(),
            max_position=self._shape.max_position,
            tokens=self._settings.concurrency * self._shape.max_position,
            concurrency=self._settings.concurrency,
            seed=self._seed,
            cuda=torch.cuda.is_available(),
            dtype=str(bare(self._model[-1]).config.params_dtype).removeprefix("torch."),
            arguments=launch.arguments,
            key=key,
        )
        servers = [plan_server(plan, number, logs) for number in range(launch.servers)]
        if launch.servers == 1 or not launch.router:
            return servers
        return [*servers, plan_router(launch.python, [server.url for server in servers], logs, key)]

    # ------------------------------------------------------------------------------------------------------- weights

    def _send(self, step: int) -> None:
        """Put the weights of now on every server that answers, and prove them; servers that come later get them later.

        Collective.
        """
        assert self._sender is not None
        began = time.perf_counter()
        if self._client is not None and self._background is not None:
            self._background.run(self._client.pause())
        dist.barrier()
        proof = Proof(self._model, self._settings, vocab_size=self._shape.vocab_size, max_context=self._max_context)
        deadline = time.monotonic() + self._settings.server_timeout
        version = version_name(self._run, step)
        while True:
            current: list[str] = []
            if self._someone_answers():
                sent = self._sender.send(self._model, unproved_name(self._run))
                problem, self._gap, proved = proof.of(sent, self._client, self._background)
                named = self._sender.name(proved, version) if self._first and problem is None else []
                box: list[Any] = [problem, [server.url for server in named]]
                dist.broadcast_object_list(box, src=0)
                problem, current = box
                self._raise_first([problem])
            if current:
                break
            self._raise_together(self._no_server(step) if time.monotonic() > deadline else self._given_up())
            time.sleep(_AGAIN_AFTER)
        self._step = step
        if self._client is not None and self._background is not None:
            self._background.run(self._client.go_on(step, current))
        self._sync_seconds += time.perf_counter() - began

    def _someone_answers(self) -> bool:
        """Whether rank 0 knows a server to send weights to. Collective."""
        box = [self._client is not None and any(s.state is not State.DOWN for s in self._client.pool.servers)]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def _no_server(self, step: int) -> str:
        reason = "none answers" if self._client is None else self._client.problem or "none answers"
        return (
            f"no server took the weights of step {step} in {self._settings.server_timeout:g} s "
            f"(rollout.server_timeout): {reason}"
        )

    # -------------------------------------------------------------------------------------------------- together

    def wait(self, future: Future[tuple[list[Sample], float]] | None, n: int) -> Drawn:
        """The samples of a request, on every rank. Collective; weights are sent again to servers that lost them."""
        while True:
            problem, done, wants_weights = self._look(future)
            states: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(states, (problem, done, wants_weights))
            self._raise_first([state[0] for state in states])
            if any(state[2] for state in states):
                self._send(self._step)
            elif all(state[1] for state in states):
                break
        box: list[Any] = [None if future is None else future.result()]
        dist.broadcast_object_list(box, group=self._group, group_src=0)
        samples, seconds = box[0]
        return Drawn(samples=[samples[i : i + n] for i in range(0, len(samples), n)], seconds=seconds)

    def so_far(self, pending: ServedPending) -> list[list[Begun]]:
        """What samples have, on every rank. Requests in flight come back with their tokens and go on. Collective."""
        client, background = self._client, self._background
        if client is not None and background is not None and pending.future is not None and not pending.future.done():
            background.run(client.pause())
        dist.barrier()  # a leader that pauses interrupts the requests of all
        box: list[Any] = [None]
        if client is not None and background is not None:
            box = [background.run(client.so_far(pending.drawings))]
        dist.broadcast_object_list(box, group=self._group, group_src=0)
        return [box[0][i : i + pending.n] for i in range(0, len(box[0]), pending.n)]

    def _look(self, future: Future[tuple[list[Sample], float]] | None) -> tuple[str | None, bool, bool]:
        """Wait a while: (what is wrong, whether the samples are there, whether servers lost their weights)."""
        if future is None or self._client is None or self._watch is None:
            return None, True, False
        until = time.monotonic() + _TOGETHER_EVERY
        while time.monotonic() < until:
            if gone := self._given_up():
                return gone, False, False
            if self._client.pool.wants_weights:
                return None, False, True
            try:
                future.result(timeout=_POLL)
                return None, True, False
            except TimeoutError:
                continue
            except RolloutError as error:
                return str(error), False, False
        return None, False, False

    def _given_up(self) -> str | None:
        """Why the servers are gone for good, where they are."""
        if self._watch is not None and self._watch.fatal is not None:
            return str(self._watch.fatal)
        if self._watching is not None and self._watching.done():
            return str(self._watching.exception())
        return None

    def _raise_together(self, problem: str | None) -> None:
        problems: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(problems, problem)
        self._raise_first(problems)

    def _raise_first(self, problems: Sequence[str | None]) -> None:
        for problem in problems:
            if problem is not None:
                raise RolloutError(problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPending:
    """Samples that servers draw; `future` is None on ranks that do not lead, where `drawings` get no tokens."""

    engine: ServedEngine
    n: int
    future: Future[tuple[list[Sample], float]] | None
    drawings: Sequence[Drawing]

    def result(self) -> Drawn:
        """See `Pending`."""
        return self.engine.wait(self.future, self.n)

    def so_far(self) -> list[list[Begun]]:
        """See `Pending`."""
        return self.engine.so_far(self)


async def _connect(
    urls: Sequence[str],
    router: str | None,
    settings: RolloutSettings,
    run: str,
    vocab_size: int,
    concurrency: int,
    key: str | None,
) -> Client:
    return Client(urls, settings, run=run, vocab_size=vocab_size, router=router, concurrency=concurrency, key=key)


async def _end(client: Client | None, watch: Watch | None) -> None:
    if client is not None:
        await client.close()
    if watch is not None:
        await watch.stop()


async def _timed(
    client: Client, requests: Sequence[Request], drawings: Sequence[Drawing]
) -> tuple[list[Sample], float]:
    began = time.perf_counter()
    samples = await client.draw(requests, drawings)
    return samples, time.perf_counter() - began
