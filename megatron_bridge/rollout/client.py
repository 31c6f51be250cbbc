"""Drawing samples from SGLang servers: requests in flight are bounded, failed ones are asked again, and those that a
weight update interrupts go on from the tokens they have.

Each sample has one request in flight at a time and is filled once, so none is lost or counted twice, whatever a server
does. Runs in one event loop (`background.py` gives it a thread).
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from megatron_bridge.rollout.connections import AttemptFailed, Connections
from megatron_bridge.rollout.engine import Begun, RolloutError, Sample, SamplingParams
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

_ABORT_EVERY = 0.2  # an abort misses the requests that a server is still reading
_STALL_SECONDS = 120.0  # the longest an interrupted request may take to come back
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 10.0


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
class Drawing:
    """The tokens of one sample so far."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    def add(self, answer: Answer, version: int) -> None:
        self.token_ids += answer.token_ids
        self.logprobs += answer.logprobs
        self.versions += [version] * len(answer.token_ids)

    @staticmethod
    def of(begun: Begun) -> Drawing:
        return Drawing(
            token_ids=list(begun.token_ids), logprobs=list(begun.logprobs), versions=list(begun.weight_versions)
        )

    def begun(self) -> Begun:
        return Begun(
            token_ids=tuple(self.token_ids), logprobs=tuple(self.logprobs), weight_versions=tuple(self.versions)
        )

    def sample(self, request: Request) -> Sample | None:
        """The sample, once it is whole."""
        stopped = bool(self.token_ids) and self.token_ids[-1] in request.params.stop_token_ids
        if not stopped and len(self.token_ids) < request.budget:
            return None
        return Sample(
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            finish="stop" if stopped else "length",
            weight_versions=tuple(self.versions),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """One request to `url` and the step of the weights meant; `answer` is None where other weights drew it."""

    url: str
    version: int
    answer: Answer | None


@dataclass(slots=True, kw_only=True)
class _Trouble:
    """What went wrong with one sample since it last got a token; since when answers are of other weights than those of
    `stale_version`.
    """

    failures: int = 0
    stale_since: float | None = None
    stale_version: int = -1


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
        key: str | None = None,
    ) -> None:
        """Call it in the event loop that will use it. `key` is what the servers ask for, None where they ask none."""
        self.pool = Pool(urls, router)
        self.counts = Counts()
        self.version = -1
        self.longest_input = 0
        self.run = run
        self.problem = ""  # what went wrong most recently with a server
        self._settings, self._vocab_size = settings, vocab_size
        self._http = Connections(settings, key)
        self._places = asyncio.Semaphore(concurrency or settings.concurrency)
        self._open = asyncio.Event()  # closed while weights change

    async def close(self) -> None:
        await self._http.close()

    @property
    def drawing(self) -> bool:
        """Whether requests may be sent: not while weights change."""
        return self._open.is_set()

    @property
    def server_timeout(self) -> float:
        return self._settings.server_timeout

    # ------------------------------------------------------------------------------------------------------ sampling

    async def draw(self, requests: Sequence[Request], drawings: Sequence[Drawing] | None = None) -> list[Sample]:
        """Draw every request's sample, in their order. Raises RolloutError as soon as one cannot be drawn.

        `drawings` are what the samples have already, one a request; what is drawn is added to them.
        """
        drawings = [Drawing() for _ in requests] if drawings is None else drawings
        tasks = [asyncio.create_task(self._sample(*pair)) for pair in zip(requests, drawings, strict=True)]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _sample(self, request: Request, drawing: Drawing) -> Sample:
        trouble = _Trouble()
        async with self._places:
            while (sample := drawing.sample(request)) is None:
                try:
                    attempt = await self._attempt(request, drawing)
                except AttemptFailed as error:
                    self.counts.retries += 1
                    await self._again(
                        trouble, f"a sample failed {trouble.failures + 1} times, most recently: {error}", error
                    )
                    continue
                if attempt.answer is None:
                    await self._stale(trouble, attempt)
                    continue
                trouble.stale_since = None
                drawing.add(attempt.answer, attempt.version)
                if drawing.sample(request) is not None:
                    continue
                if attempt.answer.token_ids:
                    trouble.failures = 0
                    self.counts.resumed += 1
                elif self._open.is_set():  # cut without a token, and not by an update
                    cut = f"{attempt.url} cut a request {trouble.failures + 1} times before its first token"
                    await self._again(trouble, cut)
            return sample

    async def _again(self, trouble: _Trouble, what: str, cause: Exception | None = None) -> None:
        """Wait before one more request. Raises RolloutError where that was the last."""
        trouble.failures += 1
        if trouble.failures > self._settings.retries:
            raise RolloutError(f"{what} (rollout.retries is {self._settings.retries})") from cause
        await asyncio.sleep(wait_before(trouble.failures))

    async def _stale(self, trouble: _Trouble, attempt: _Attempt) -> None:
        """Weights of another update: asked again once the server has those of now. Raises RolloutError when it never
        does.
        """
        self.counts.stale += 1
        now = time.monotonic()
        if trouble.stale_since is None or trouble.stale_version != attempt.version:
            trouble.stale_since, trouble.stale_version = now, attempt.version
        if now - trouble.stale_since > self._settings.server_timeout:
            raise RolloutError(
                f"{attempt.url} has answered with other weights than those of step {attempt.version} for "
                f"{self._settings.server_timeout:g} s (rollout.server_timeout), although they were sent: is another "
                "run using it, or is a server behind the router that is not in rollout.urls?"
            )
        await asyncio.sleep(_FIRST_WAIT)

    async def _attempt(self, request: Request, drawing: Drawing) -> _Attempt:
        """One request for the rest of a sample."""
        await self._open.wait()
        target = await self._target()
        try:
            return await self._ask(target, request, drawing)
        finally:
            self.pool.release(target)

    async def _ask(self, target: Server, request: Request, drawing: Drawing) -> _Attempt:
        version = self.version
        if not self._open.is_set():  # closed while a target was waited for
            cut = Answer(token_ids=(), logprobs=(), versions=(), finish="abort")
            return _Attempt(url=target.url, version=version, answer=cut)
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
            return _Attempt(url=target.url, version=version, answer=None)
        return _Attempt(url=target.url, version=version, answer=answer)

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
        post = asyncio.create_task(self._http.generate(target.url, body))
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
        except AttemptFailed as error:
            # one that is late may be deaf: the watch finds out whether it comes back
            if error.gone or (error.late and not await self._http.abort(target.url, {"rid": rid})):
                await self.pool.set_state(target, State.DOWN)
            raise
        target.answered = time.monotonic()
        return content

    # ------------------------------------------------------------------------------------------------ weights of now

    async def pause(self) -> None:
        """Send nothing more, and bring what is in flight back with the tokens it has.

        Servers are told also where nothing is: a request whose connection broke may still be drawn.
        """
        self._open.clear()
        deadline = time.monotonic() + _STALL_SECONDS
        while True:
            for server in self.pool.servers:
                if server.state is not State.DOWN and not await self._http.abort(server.url, {"abort_all": True}):
                    await self.pool.set_state(server, State.DOWN)
            if not self.pool.in_flight:
                return
            await asyncio.sleep(_ABORT_EVERY)
            if time.monotonic() > deadline:
                for target in self.pool.targets:
                    for post in target.posts:
                        post.cancel()

    async def so_far(self, drawings: Sequence[Drawing]) -> list[Begun]:
        """While drawing is paused: what samples have. Drawing goes on with the weights of before."""
        found = [drawing.begun() for drawing in drawings]
        self._open.set()
        return found

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
        """Find out the state of a server that answers; its version and size are read where it was down.

        Raises RolloutError for one that is of another kind.
        """
        known = server.state is not State.DOWN or await self._read_facts(server)
        info = await self._http.read(server.url, "/model_info") if known else None
        if not isinstance(info, dict) or "weight_version" not in info:
            await self.pool.set_state(server, State.DOWN)
            return
        current = info["weight_version"] == version_name(self.run, self.version)
        await self.pool.set_state(server, State.UP if current else State.STALE)

    async def _read_facts(self, server: Server) -> bool:
        """Whether a server says what it is."""
        info = await self._http.read(server.url, "/server_info")
        if info is None:
            return False
        facts = server_facts(info, server.url)
        server.session = dialect_of(facts.version, server.url).session
        server.ranks = facts.ranks
        server.lives += 1
        self.longest_input = min(self.longest_input or facts.longest_input, facts.longest_input)
        return True

    # ---------------------------------------------------------------------------------------------------- other calls

    async def healthy(self, server: Server) -> bool:
        """Whether a server generates."""
        return await self._http.healthy(server.url)

    async def call(self, server: Server, path: str, body: dict[str, Any], *, seconds: float) -> bytes:
        """POST another call. Raises RolloutError where it fails."""
        return await self._http.call(server.url, path, body, seconds=seconds)


def wait_before(attempt: int) -> float:
    """Seconds before attempt number `attempt`: doubled each time, and never the same for all."""
    return min(_FIRST_WAIT * 2 ** (attempt - 1), _LONGEST_WAIT) * random.uniform(0.5, 1.0)
