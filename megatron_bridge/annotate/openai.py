"""A server that speaks the OpenAI chat protocol, asked for many answers at once.

Whatever it does (late, cut, garbage, endless, gone) becomes a reply that says so. The key goes into one header and
nowhere else: not into a message, a log, a file or the cache.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from megatron_bridge.annotate.ask import AnnotatorError
from megatron_bridge.annotate.questions import Question
from megatron_bridge.annotate.settings import OpenAISettings
from megatron_bridge.annotation import Missing, Reply, Usage

LONGEST_BODY = 1 << 20  # bytes
LONGEST_NOTE = 200
_FIRST_PAUSE = 0.5  # seconds before the first retry; doubled for each
_LONGEST_PAUSE = 30.0


@dataclass(slots=True)
class _Batch:
    """What the questions of one call share: how many may fail of all that the iteration has."""

    allowed: float
    failed: int = 0

    @property
    def lost(self) -> bool:
        """Whether the iteration is, whatever other ranks and kept answers add: each failure costs a response."""
        return self.failed > self.allowed


class OpenAIAsker:
    """Asks `settings.base_url`; see `OpenAISettings` for the limits."""

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._key = os.environ.get(settings.api_key_env, "") if settings.api_key_env else ""

    def start(self) -> None:
        """Raises AnnotatorError when the key is not set or cannot stand in a header."""
        name = self._settings.api_key_env
        if name and not self._key:
            raise AnnotatorError(f"task.annotator.api_key_env: the environment variable {name} is not set")
        if not (self._key.isascii() and self._key.isprintable()):
            raise AnnotatorError(f"task.annotator.api_key_env: {name} holds characters that no key has")

    def ask(self, questions: Sequence[Question], *, of: int) -> list[Reply]:
        """See `Asker.ask`. Collects for at most `deadline` seconds."""
        return asyncio.run(self._ask_all(questions, of)) if questions else []

    async def _ask_all(self, questions: Sequence[Question], of: int) -> list[Reply]:
        settings = self._settings
        batch = _Batch(settings.max_failures * of)
        gate = asyncio.Semaphore(settings.concurrency)
        until = time.monotonic() + settings.deadline
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=settings.concurrency)
        async with httpx.AsyncClient(headers=headers, limits=limits, timeout=settings.timeout) as client:

            async def answer(question: Question) -> Reply:
                async with gate:
                    if batch.lost:
                        return Reply(missing=Missing.NOT_ASKED, note="more had failed than task.annotator.max_failures")
                    reply = await self._answer(client, question, until)
                batch.failed += reply.missing is not None and reply.missing.is_failure
                return reply

            return list(await asyncio.gather(*(answer(question) for question in questions)))

    async def _answer(self, client: httpx.AsyncClient, question: Question, until: float) -> Reply:
        """The answer to one question, with retries."""
        began, pause = time.time(), _FIRST_PAUSE
        if time.monotonic() >= until:
            return Reply(missing=Missing.LATE, note="not asked: task.annotator.deadline was over")
        for attempt in range(1, self._settings.retries + 2):
            left = min(self._settings.timeout, until - time.monotonic())
            reply, again = await self._try(client, question, left)
            if again is None or attempt > self._settings.retries:
                break
            wait = max(pause, again)
            if time.monotonic() + wait >= until:
                break
            await asyncio.sleep(wait)
            pause *= 2
        usage = reply.usage
        prompt_price, completion_price = self._settings.price_per_million
        cost = (usage.prompt_tokens * prompt_price + usage.completion_tokens * completion_price) / 1e6
        return Reply(
            text=reply.text,
            missing=reply.missing,
            note=reply.note,
            usage=Usage(
                requests=attempt,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cost=cost,
                began=began,
                ended=time.time(),
            ),
        )

    async def _try(self, client: httpx.AsyncClient, question: Question, seconds: float) -> tuple[Reply, float | None]:
        """One request: the reply, and after how many seconds another might help (None: it would not)."""
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                return await self._request(client, question)
        except TimeoutError:
            return Reply(missing=Missing.LATE, note=f"no answer within {max(seconds, 0.0):.1f} s"), None
        except httpx.TimeoutException:
            return Reply(missing=Missing.LATE, note="no answer in time"), None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Reply(missing=Missing.UNREACHABLE, note=self._safe(f"{type(error).__name__}: {error}")), 0.0

    async def _request(self, client: httpx.AsyncClient, question: Question) -> tuple[Reply, float | None]:
        url = self._settings.base_url.rstrip("/") + "/chat/completions"
        async with client.stream("POST", url, json=self._body(question)) as response:
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > LONGEST_BODY:
                    return Reply(missing=Missing.MALFORMED, note=f"an answer of over {LONGEST_BODY} bytes"), None
        status = response.status_code
        if status == 200:
            return self._read(bytes(body)), None
        note = self._safe(f"HTTP {status}: {bytes(body).decode('utf-8', 'replace')}")
        if status == 429 or status >= 500:
            return Reply(missing=Missing.SERVER_ERROR, note=note), _retry_after(response.headers.get("retry-after"))
        return Reply(missing=Missing.REFUSED, note=note), None

    def _body(self, question: Question) -> dict[str, Any]:
        settings = self._settings
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": [
                {"role": "system", "content": question.system},
                {"role": "user", "content": question.user},
            ],
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
        }
        if settings.structured_output:
            schema = {"name": "annotation", "strict": True, "schema": question.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _read(self, body: bytes) -> Reply:
        """The text of a chat completion; anything else is malformed."""
        try:
            found = json.loads(body)
            choice = found["choices"][0]
            text, finish = choice["message"]["content"], choice.get("finish_reason")
            counts = found.get("usage") or {}
            usage = Usage(
                prompt_tokens=_count(counts.get("prompt_tokens")),
                completion_tokens=_count(counts.get("completion_tokens")),
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            return Reply(missing=Missing.MALFORMED, note=self._safe(f"no chat completion: {type(error).__name__}"))
        if finish == "length":
            return Reply(missing=Missing.CUT, note="the answer was cut at task.annotator.max_tokens", usage=usage)
        if text is not None and not isinstance(text, str):
            return Reply(missing=Missing.MALFORMED, note="its content is no text", usage=usage)
        if not (text or "").strip():
            return Reply(missing=Missing.EMPTY, note="its content is empty", usage=usage)
        return Reply(text=self._masked(text), usage=usage)

    def _safe(self, text: str) -> str:
        """One short line without the key: servers repeat what they were sent."""
        return self._masked(" ".join(text.split()))[:LONGEST_NOTE]

    def _masked(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else 0


def _retry_after(header: str | None) -> float:
    """Seconds that a server asks to wait, at most half a minute; 0 where it says nothing of use."""
    return min(float(header), _LONGEST_PAUSE) if header is not None and header.isdecimal() else 0.0
