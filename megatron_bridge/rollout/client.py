"""Drawing samples from SGLang servers: requests in flight are bounded, failed ones are asked again, and those that a
weight update interrupts go on from the tokens they have.

Each sample has one request in flight at a time and is filled once, so none is lost or counted twice, whatever a server
does. Runs in one event loop (`background.py` gives it a thread).
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from megatron_bridge.rollout.engine import RolloutError, Sample, SamplingParams
from megatron_bridge.rollout.protocol import (
    Answer,
    BadAnswer,
    dialect_of,
    generate_request,
    read_answer,
    server_facts,
    version_name,
    version_step,
)
from megatron_bridge.rollout.servers import Pool, Server, State
from megatron_bridge.rollout.settings import RolloutSettings

_CONNECT_SECONDS = 10.0
_ABORT_EVERY = 0.2  # an abort misses the requests that a server is still reading
_STALL_SECONDS = 120.0  # the longest an interrupted request may take to come back
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 10.0
_AGAIN = (408, 429)  # besides every 5xx


class AttemptFailed(Exception):
    """One request went wrong in a way that another one may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One sample to draw: up to `budget` tokens after `prompt`."""

    prompt: tuple[int, ...]
    budget: int
    params: SamplingParams


@dataclass(slots=True, kw_only=True)
class Counts:
    """What happened: requests asked again, samples that went on after an update, answers of other weights."""

    retries: int = 0
    resumed: int = 0
    stale: int = 0


@dataclass(slots=True, kw_only=True)
class _Drawing:
    """The tokens of one sample so far."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    def add(self, answer: Answer, version: int) -> None:
        self.token_ids += answer.token_ids
        self.logprobs += answer.logprobs
        self.versions += [version] * len(answer.token_ids)


class Client:
    """Speaks to the servers of one run. `run` names it in weight versions; `version` is the step of its weights."""

    def __init__(
        self,
        urls: Sequence[str],
        settings: RolloutSettings,
        *,
        run: str,
        vocab_size: int,
        router: str | None = None,
        concurrency: int | None = None,
    ) -> None:
        """Call it in the event loop that will use it."""
        self.pool = Pool(urls, router)
        self.counts = Counts()
        self.version = -1
        self.longest_input = 0
        self.run = run
        self.problem = ""  # what went wrong most recently with a server
        self._settings, self._vocab_size = settings, vocab_size
        self._trust = ssl.create_default_context()
        self._http = self._connections()
        # One set of connections a request in flight: httpx looks at every connection of a set for every request, which
        # with 64 in one set takes longer than everything else a client does.
        self._lanes: list[httpx.AsyncClient] = []
        self._places = asyncio.Semaphore(concurrency or settings.concurrency)
        self._open = asyncio.Event()  # closed while weights change

    def _connections(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(self._settings.request_timeout, connect=_CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            verify=self._trust,
            trust_env=False,  # a proxy for the outside world is not for servers of one's own
        )

    async def close(self) -> None:
        for lane in (self._http, *self._lanes):
            await lane.aclose()

    @property
    def drawing(self) -> bool:
        """Whether requests may be sent: not while weights change."""
        return self._open.is_set()

    @property
    def server_timeout(self) -> float:
        return self._settings.server_timeout

    # ------------------------------------------------------------------------------------------------------ sampling

    async def draw(self, requests: Sequence[Request]) -> list[Sample]:
        """Draw every request's sample, in their order. Raises RolloutError as soon as one cannot be drawn."""
        tasks = [asyncio.create_task(self._sample(request)) for request in requests]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _sample(self, request: Request) -> Sample:
        drawing, failures = _Drawing(), 0
        stops = set(request.params.stop_token_ids)
        async with self._places:
            while True:
                before = len(drawing.token_ids)
                try:
                    answer, version = await self._attempt(request, drawing)
                except AttemptFailed as error:
                    failures += 1
                    self.counts.retries += 1
                    if failures > self._settings.retries:
                        raise RolloutError(
                            f"a sample failed {failures} times, most recently: {error} "
                            f"(rollout.retries is {self._settings.retries})"
                        ) from error
                    await asyncio.sleep(wait_before(failures))
                    continue
                if answer is None:  # weights of another update: asked again once the server has those of now
                    self.counts.stale += 1
                    await asyncio.sleep(_FIRST_WAIT)
                    continue
                drawing.add(answer, version)
                stopped = bool(drawing.token_ids) and drawing.token_ids[-1] in stops
                if stopped or len(drawing.token_ids) >= request.budget:
                    return Sample(
                        token_ids=tuple(drawing.token_ids),
                        logprobs=tuple(drawing.logprobs),
                        finish="stop" if stopped else "length",
                        weight_versions=tuple(drawing.versions),
                    )
                if len(drawing.token_ids) > before:
                    failures = 0
                    self.counts.resumed += 1
                elif self._open.is_set():  # cut without a token, and not by an update
                    failures += 1
                    if failures > self._settings.retries:
                        raise RolloutError(f"a server cut a request {failures} times before its first token")
                    await asyncio.sleep(wait_before(failures))

    async def _attempt(self, request: Request, drawing: _Drawing) -> tuple[Answer | None, int]:
        """One request for the rest of a sample, and the step of the weights that drew it; None for other weights."""
        await self._open.wait()
        target = await self._target()
        try:
            return await self._ask(target, request, drawing)
        finally:
            self.pool.release(target)

    async def _ask(self, target: Server, request: Request, drawing: _Drawing) -> tuple[Answer | None, int]:
        if not self._open.is_set():  # closed while a target was waited for
            return Answer(token_ids=(), logprobs=(), versions=(), finish="abort"), self.version
        version = self.version
        budget = request.budget - len(drawing.token_ids)
        rid = uuid.uuid4().hex
        body = generate_request([*request.prompt, *drawing.token_ids], request.params, budget=budget, rid=rid)
        content = await self._post(target, body, rid)
        try:
            answer = read_answer(content, budget=budget, vocab_size=self._vocab_size)
        except BadAnswer as error:
            raise AttemptFailed(f"the answer of {target.url} cannot be used: {error}") from error
        if {version_step(name, self.run) for name in answer.versions} - {version}:
            await self.recheck()
            return None, version
        return answer, version

    async def _target(self) -> Server:
        try:
            return await asyncio.wait_for(self.pool.claim(), self._settings.server_timeout)
        except TimeoutError:
            states = ", ".join(f"{server.url} is {server.state.value}" for server in self.pool.everything)
            raise RolloutError(
                f"no server could be used for {self._settings.server_timeout:g} s (rollout.server_timeout): {states}"
            ) from None

    async def _post(self, target: Server, body: dict[str, Any], rid: str) -> bytes:
        """POST /generate. Cancelled when the target goes down; Raises AttemptFailed, or RolloutError for a refusal."""
        post = asyncio.create_task(self._send(target, body))
        target.posts.add(post)
        try:
            await asyncio.wait({post})
        finally:
            target.posts.discard(post)
            if not post.done():
                post.cancel()
        if post.cancelled():
            raise AttemptFailed(f"{target.url} went down")
        try:
            content = post.result()
        except httpx.ConnectError as error:
            await self.pool.set_state(target, State.DOWN)
            raise AttemptFailed(f"{target.url} cannot be reached: {error}") from error
        except httpx.TimeoutException as error:
            await self._forget(target, rid)
            raise AttemptFailed(
                f"{target.url} did not answer in {self._settings.request_timeout:g} s (rollout.request_timeout)"
            ) from error
        except httpx.TransportError as error:
            raise AttemptFailed(f"the connection to {target.url} broke: {error or type(error).__name__}") from error
        target.answered = time.monotonic()
        return content

    async def _send(self, target: Server, body: dict[str, Any]) -> bytes:
        lane = self._lanes.pop() if self._lanes else self._connections()
        try:
            response = await lane.post(f"{target.url}/generate", json=body)
        finally:
            self._lanes.append(lane)
        if response.status_code in _AGAIN or response.status_code >= 500:
            raise AttemptFailed(f"{target.url} answered {response.status_code}: {response.text[:300]}")
        if response.status_code != 200:
            raise RolloutError(f"{target.url} refuses a request ({response.status_code}): {response.text[:500]}")
        return response.content

    async def _forget(self, target: Server, rid: str) -> None:
        """Ask a server to drop a request that nobody waits for any more; it may be deaf."""
        try:
            await self._http.post(f"{target.url}/abort_request", json={"rid": rid}, timeout=_CONNECT_SECONDS)
        except httpx.HTTPError:
            await self.pool.set_state(target, State.DOWN)  # the watch finds out whether it comes back

    # ------------------------------------------------------------------------------------------------ weights of now

    async def pause(self) -> None:
        """Send nothing more, and bring what is in flight back with the tokens it has."""
        self._open.clear()
        deadline = time.monotonic() + _STALL_SECONDS
        while self.pool.in_flight:
            for server in self.pool.servers:
                if server.state is not State.DOWN:
                    await self._abort_all(server)
            await asyncio.sleep(_ABORT_EVERY if self.pool.in_flight else 0)
            if time.monotonic() > deadline:
                for target in self.pool.targets:
                    for post in target.posts:
                        post.cancel()

    async def _abort_all(self, server: Server) -> None:
        try:
            await self._http.post(f"{server.url}/abort_request", json={"abort_all": True}, timeout=_CONNECT_SECONDS)
        except httpx.HTTPError:
            await self.pool.set_state(server, State.DOWN)

    async def go_on(self, version: int, current: Sequence[str]) -> None:
        """Draw with the weights of `version`, which the servers `current` (URLs) hold."""
        self.version = version
        for server in self.pool.servers:
            if server.url in current:
                await self.pool.set_state(server, State.UP)
            elif server.state is State.UP:
                await self.pool.set_state(server, State.STALE)
        self._open.set()

    async def recheck(self) -> None:
        """Ask every server that answers which weights it holds."""
        for server in self.pool.servers:
            if server.state is not State.DOWN:
                await self.look_at(server)

    async def look_at(self, server: Server) -> None:
        """Find out the state of a server that answers; its version and size are read where it was down."""
        try:
            if server.state is State.DOWN:
                await self._read_facts(server)
            response = await self._http.get(f"{server.url}/model_info", timeout=self._settings.health_timeout)
            name = response.raise_for_status().json()["weight_version"]
        except (httpx.HTTPError, ValueError, KeyError):
            await self.pool.set_state(server, State.DOWN)
            return
        current = name == version_name(self.run, self.version)
        await self.pool.set_state(server, State.UP if current else State.STALE)

    async def _read_facts(self, server: Server) -> None:
        response = await self._http.get(f"{server.url}/server_info", timeout=self._settings.health_timeout)
        facts = server_facts(response.raise_for_status().json(), server.url)
        server.session = dialect_of(facts.version, server.url).session
        server.ranks = facts.ranks
        server.lives += 1
        self.longest_input = min(self.longest_input or facts.longest_input, facts.longest_input)

    # ---------------------------------------------------------------------------------------------------- other calls

    async def healthy(self, server: Server) -> bool:
        """Whether a server generates: SGLang answers /health only when its scheduler does."""
        try:
            response = await self._http.get(f"{server.url}/health", timeout=self._settings.health_timeout)
        except httpx.HTTPError:
            return False
        return response.status_code == 200

    async def call(self, server: Server, path: str, body: dict[str, Any], *, seconds: float) -> bytes:
        """POST another call. Raises RolloutError where it fails or answers `"success": false`."""
        try:
            response = await self._http.post(f"{server.url}{path}", json=body, timeout=seconds)
        except httpx.HTTPError as error:
            raise RolloutError(f"{server.url}{path}: {error or type(error).__name__}") from error
        if response.status_code != 200 or b'"success":false' in response.content.replace(b" ", b""):
            raise RolloutError(f"{server.url}{path} failed ({response.status_code}): {response.text[:500]}")
        return response.content


def wait_before(attempt: int) -> float:
    """Seconds before attempt number `attempt`: doubled each time, and never the same for all."""
    return min(_FIRST_WAIT * 2 ** (attempt - 1), _LONGEST_WAIT) * random.uniform(0.5, 1.0)
