"""HTTP calls to servers, and what each way in which one fails means to a batch."""

from __future__ import annotations

import ssl
from typing import Any

import httpx

from megatron_bridge.rollout.engine import RolloutError
from megatron_bridge.rollout.protocol import VersionError
from megatron_bridge.rollout.settings import RolloutSettings

CONNECT_SECONDS = 10.0
_AGAIN = (408, 429)  # besides every 5xx
# What httpx raises that is no answer: besides its errors an address that it cannot read.
_BROKEN = (httpx.HTTPError, httpx.InvalidURL)


class AttemptFailed(Exception):
    """One request went wrong in a way that another one may not. gone: nobody answers at the address; late: no answer in
    time.
    """

    def __init__(self, message: str, *, gone: bool = False, late: bool = False) -> None:
        super().__init__(message)
        self.gone, self.late = gone, late


class Connections:
    """Calls to the servers of one run, with its key. Call it in one event loop."""

    def __init__(self, settings: RolloutSettings, key: str | None = None) -> None:
        self._settings = settings
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._trust = ssl.create_default_context()
        self._http = self._connections()
        # One set of connections a request in flight: httpx looks at every connection of a set for every request, which
        # with 64 in one set takes longer than everything else a client does.
        self._lanes: list[httpx.AsyncClient] = []

    def _connections(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(self._settings.request_timeout, connect=CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            headers=self._headers,
            verify=self._trust,
            trust_env=False,  # a proxy for the outside world is not for servers of one's own
        )

    async def close(self) -> None:
        for lane in (self._http, *self._lanes):
            await lane.aclose()

    async def generate(self, url: str, body: dict[str, Any]) -> bytes:
        """POST /generate. Raises AttemptFailed, or RolloutError for a refusal."""
        lane = self._lanes.pop() if self._lanes else self._connections()
        try:
            response = await lane.post(f"{url}/generate", json=body)
        except httpx.ConnectError as error:
            raise AttemptFailed(f"{url} cannot be reached: {error}", gone=True) from error
        except httpx.TimeoutException as error:
            raise AttemptFailed(
                f"{url} did not answer in {self._settings.request_timeout:g} s (rollout.request_timeout)", late=True
            ) from error
        except _BROKEN as error:
            raise AttemptFailed(f"the connection to {url} broke: {error or type(error).__name__}") from error
        finally:
            self._lanes.append(lane)
        if response.status_code in _AGAIN or response.status_code >= 500:
            raise AttemptFailed(f"{url} answered {response.status_code}: {response.text[:300]}")
        if response.status_code != 200:
            raise RolloutError(f"{url} refuses a request ({response.status_code}): {response.text[:500]}")
        return response.content

    async def abort(self, url: str, body: dict[str, Any]) -> bool:
        """Ask a server to drop requests; whether it was heard."""
        try:
            await self._http.post(f"{url}/abort_request", json=body, timeout=CONNECT_SECONDS)
        except _BROKEN:
            return False
        return True

    async def healthy(self, url: str) -> bool:
        """Whether a server generates: SGLang answers /health only when its scheduler does."""
        try:
            response = await self._http.get(f"{url}/health", timeout=self._settings.health_timeout)
        except _BROKEN:
            return False
        return response.status_code == 200

    async def read(self, url: str, path: str) -> Any:
        """The JSON of a GET, None without a usable answer. Raises RolloutError where there never will be one."""
        try:
            response = await self._http.get(f"{url}{path}", timeout=self._settings.health_timeout)
            if response.status_code == 404:
                raise VersionError(f"{url} does not answer like an SGLang server: it has no {path} (404)")
            if response.status_code in (401, 403):
                raise RolloutError(
                    f"{url} refuses {path} ({response.status_code}): name the environment variable that holds its key "
                    "in rollout.api_key_env"
                )
            return response.raise_for_status().json()
        except (*_BROKEN, ValueError):
            return None

    async def call(self, url: str, path: str, body: dict[str, Any], *, seconds: float) -> bytes:
        """POST another call. Raises RolloutError where it fails or answers `"success": false`."""
        try:
            response = await self._http.post(f"{url}{path}", json=body, timeout=seconds)
        except _BROKEN as error:
            raise RolloutError(f"{url}{path}: {error or type(error).__name__}") from error
        if response.status_code != 200 or b'"success":false' in response.content.replace(b" ", b""):
            raise RolloutError(f"{url}{path} failed ({response.status_code}): {response.text[:500]}")
        return response.content
