"""The servers a client speaks to: which of them can be used, and the one that is to draw next.

One event loop owns these objects; nothing here is called from another thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class State(Enum):
    """UP: draws with the weights of now. STALE: answers, with other weights. DOWN: does not answer."""

    UP = "up"
    STALE = "stale"
    DOWN = "down"


@dataclass(slots=True, kw_only=True, eq=False)
class Server:
    """One server or router. `posts` are the requests in flight; `claimed` counts who is about to send one
    or waits for it; `answered` when it answered last; `lives`
    counts how often it was found after it had been away."""

    url: str
    state: State = State.DOWN
    ranks: int = 1
    session: bool = False
    posts: set[asyncio.Task[bytes]] = field(default_factory=set)
    claimed: int = 0
    answered: float = 0.0
    lives: int = 0


class Pool:
    """`servers` hold weights; requests go to `targets`: the servers themselves, or a router in front of them."""

    def __init__(self, urls: Sequence[str], router: str | None) -> None:
        self.servers = tuple(Server(url=url) for url in urls)
        self.router = None if router is None else Server(url=router)
        self.targets = self.servers if self.router is None else (self.router,)
        self._changed = asyncio.Condition()

    @property
    def everything(self) -> tuple[Server, ...]:
        return self.servers if self.router is None else (*self.servers, self.router)

    @property
    def in_flight(self) -> int:
        return sum(len(target.posts) for target in self.targets)

    @property
    def wants_weights(self) -> bool:
        """Whether drawing cannot go on well before weights are sent again.

        Behind a router every server must be current: nobody says which of them draws.
        """
        stale = [server for server in self.servers if server.state is State.STALE]
        if self.router is not None:
            return bool(stale)
        return bool(stale) and not any(server.state is State.UP for server in self.servers)

    async def set_state(self, server: Server, state: State) -> None:
        """Note a change; requests in flight on a server that went down are cancelled, to be asked again elsewhere."""
        if server.state is state:
            return
        server.state = state
        if state is State.DOWN:
            for post in server.posts:
                post.cancel()
        async with self._changed:
            self._changed.notify_all()

    async def claim(self) -> Server:
        """The least busy target; waits until one can be used. Give it back with `release`."""
        async with self._changed:
            await self._changed.wait_for(self._usable)
            target = min(self._usable(), key=lambda target: target.claimed)
            target.claimed += 1  # before anyone else chooses
            return target

    def release(self, target: Server) -> None:
        """The end of a claim."""
        target.claimed -= 1

    def _usable(self) -> list[Server]:
        if self.router is not None and not any(server.state is State.UP for server in self.servers):
            return []
        return [target for target in self.targets if target.state is State.UP]
