"""Watching servers: who answers, who hangs, who died and is started again. Runs in the client's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from megatron_bridge.rollout.client import Client
from megatron_bridge.rollout.engine import RolloutError
from megatron_bridge.rollout.launcher import ManagedProcess, given_up, port_is_free
from megatron_bridge.rollout.servers import Server, State
from megatron_bridge.rollout.settings import LaunchSettings

_EVERY = 1.0
_QUIET_SECONDS = 5.0  # a server that answered something within these is well


class Watch:
    """Keeps the states of a client's servers true, and the processes that this run started alive."""

    def __init__(
        self, client: Client, processes: Sequence[ManagedProcess], settings: LaunchSettings | None = None
    ) -> None:
        """`processes` are those that this rank started, none elsewhere; `settings` are theirs."""
        self.restarts = 0
        self.fatal: RolloutError | None = None
        self._client, self._settings = client, settings
        self._start_timeout = client.server_timeout if settings is None else settings.start_timeout
        self._process_of = {process.url: process for process in processes}

    async def start(self) -> None:
        """Start the processes and wait until every server was looked at. Raises RolloutError."""
        for process in self._process_of.values():
            process.start()
        pool = self._client.pool
        await asyncio.gather(*(self._first_look(server) for server in pool.everything))

    async def watch(self) -> None:
        """Look at every server again and again, each at its own pace."""
        await asyncio.gather(*(self._watch(server) for server in self._client.pool.everything))

    async def stop(self) -> None:
        """End the processes, once nothing else runs in the loop that would start them again.

        They end with the thread that started them, at once and uncleanly: this must run before it ends.
        """
        await asyncio.gather(*(asyncio.to_thread(process.stop) for process in self._process_of.values()))

    async def _first_look(self, server: Server) -> None:
        process = self._process_of.get(server.url)
        deadline = time.monotonic() + self._start_timeout
        while True:
            if await self._client.healthy(server):
                await self._found_well(server)
                if server.state is not State.DOWN:
                    return
            if process is not None and not process.running:
                raise RolloutError(process.ending())
            if time.monotonic() > deadline:
                silence = (
                    f"{server.url} did not answer /health, /server_info and /model_info for {self._start_timeout:g} s"
                )
                raise RolloutError(process.ending() if process else silence)
            await asyncio.sleep(_EVERY)

    async def _watch(self, server: Server) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            process = self._process_of.get(server.url)
            if process is not None and not process.running:
                await self._client.pool.set_state(server, State.DOWN)
                self._start_again(process)
            elif server.state is State.DOWN:
                if await self._client.healthy(server):
                    await self._found_well(server)
                elif process is not None and time.monotonic() - process.started_at > self._start_timeout:
                    process.kill()
            elif self._client.drawing and time.monotonic() - server.answered > _QUIET_SECONDS:
                await self._feel_pulse(server, process)

    async def _feel_pulse(self, server: Server, process: ManagedProcess | None) -> None:
        if await self._client.healthy(server):
            server.answered = time.monotonic()
            if server.state is State.STALE:
                await self._found_well(server)
        elif self._client.drawing:  # a weight update keeps a server from answering
            await self._client.pool.set_state(server, State.DOWN)
            if process is not None:
                process.kill()

    async def _found_well(self, server: Server) -> None:
        """A server that answers: read which weights it holds. A router holds none."""
        if server is self._client.pool.router:
            await self._client.pool.set_state(server, State.UP)
            return
        await self._client.look_at(server)

    def _start_again(self, process: ManagedProcess) -> None:
        """Start a process that ended, without what may be left of its group; not on a port that someone else took."""
        assert self._settings is not None
        process.kill()
        if process.starts <= self._settings.restarts and not port_is_free(process.url):
            self._client.problem = f"{process.name} ended, and another program listens on its port: {process.url}"
            return
        if process.starts <= self._settings.restarts:
            self.restarts += 1
            process.start()
        else:
            self.fatal = given_up(list(self._process_of.values()), self._settings.restarts)
