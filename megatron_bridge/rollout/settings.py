"""The `rollout` section of a run file. Imports neither torch nor an HTTP client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from trace_dsl.strict_yaml import Strict

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]


class LaunchSettings(Strict):
    """SGLang servers that the run starts on this machine, and stops.

    servers: how many; router: put sglang-router in front of several; python: the interpreter that has SGLang (seen from
    the working directory); arguments: more of SGLang's own, such as --tp-size; start_timeout: seconds until a server
    must answer; restarts: how often each is started again after it died or hung.
    """

    servers: Positive = 1
    router: bool = True
    python: str = ".venv-sglang/bin/python"
    arguments: list[str] = Field(default=[])
    start_timeout: Seconds = 600.0
    restarts: Count = 3


class RolloutSettings(Strict):
    """prompts: problems an iteration, over all ranks; group_size: responses to each; temperature: of sampling.

    engine: what samples. max_batch, of embedded alone: sequences at once. The rest is of sglang alone: launch starts
    servers, url or urls name running ones (router: one in front of them; api_key_env: the environment variable with the
    key they ask for); sync: how weights reach them, in pieces of bucket_mb; staleness: iterations that training may be
    ahead of the weights that drew a token; concurrency: requests in flight; request_timeout, health_timeout,
    server_timeout: seconds for one request, for a sign of life, and without any server; retries: of one sample;
    logprob_bound: how far the servers' log-probs may lie from the trainer's after a sync.
    """

    prompts: Positive = 32
    group_size: Positive = 8
    temperature: Annotated[float, Field(gt=0)] = 1.0
    max_response_tokens: Positive = 256
    max_batch: Positive = 256
    engine: Literal["embedded", "sglang"] = "embedded"
    launch: LaunchSettings | None = None
    url: str | None = None
    urls: list[str] = Field(default=[])
    router: str | None = None
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    sync: Literal["disk", "tensor", "distributed"] = "tensor"
    bucket_mb: Positive = 256
    staleness: Count = 0
    concurrency: Positive = 64
    request_timeout: Seconds = 600.0
    health_timeout: Seconds = 30.0
    server_timeout: Seconds = 900.0
    retries: Count = 8
    logprob_bound: Annotated[float, Field(gt=0)] | None = None

    @property
    def running(self) -> tuple[str, ...]:
        """The URLs of running servers that were given, without a slash at the end."""
        given = [self.url, *self.urls] if self.url else self.urls
        return tuple(url.rstrip("/") for url in given)

    @property
    def started(self) -> LaunchSettings:
        """How servers are started where none runs."""
        return self.launch or LaunchSettings()


_OF_EMBEDDED = ("max_batch",)
_OF_BOTH = ("prompts", "group_size", "temperature", "max_response_tokens", "engine")


def _ignored(settings: RolloutSettings) -> Iterator[str]:
    """Settings that differ from their default and that the engine does not read."""
    for name, field in RolloutSettings.model_fields.items():
        of_embedded = name in _OF_EMBEDDED
        if name in _OF_BOTH or of_embedded == (settings.engine == "embedded"):
            continue
        if getattr(settings, name) != field.get_default(call_default_factory=True):
            yield name


def _is_address(url: str) -> bool:
    """Whether a server can be at `url`."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, a bracket that is not closed
        return False


def rollout_problems(settings: RolloutSettings, *, ranks: int) -> Iterator[tuple[str, str]]:
    """What does not fit together: the setting, and a message that names the values and the fix.

    `ranks`: how many ranks sample a share of the prompts each.
    """
    if settings.engine == "embedded":
        for name in _ignored(settings):
            yield (
                f"rollout.{name}",
                "the embedded engine samples in the training process, between two steps: "
                "set rollout.engine to sglang, or leave it out",
            )
        return
    for name in _ignored(settings):
        yield f"rollout.{name}", "only the embedded engine reads it; leave it out, rollout.concurrency bounds servers"
    if settings.url and settings.urls:
        yield "rollout.url", "give either url or urls, not both"
    if settings.running and settings.launch:
        yield "rollout.launch", "give either launch (servers are started) or url/urls (they run already), not both"
    given = [("url", settings.url), *(("urls", url) for url in settings.urls), ("router", settings.router)]
    for name, url in given:
        if url is not None and not _is_address(url):
            yield f"rollout.{name}", f"{url!r} is no server's address: write it as http://HOST:PORT"
    if settings.api_key_env is not None and not settings.running:
        yield (
            "rollout.api_key_env",
            "it is for running servers (url, urls); those that the run starts get a key of its own",
        )
    if len(set(settings.running)) < len(settings.running):
        yield "rollout.urls", "a server stands there twice: its weights would be sent twice"
    if settings.router and not settings.running:
        yield (
            "rollout.router",
            "name the servers behind the router in rollout.urls as well: weights go to each of them "
            "(launch puts a router of its own in front of several servers)",
        )
    if settings.concurrency < ranks:
        yield (
            "rollout.concurrency",
            f"{settings.concurrency} requests in flight are fewer than the {ranks} ranks that sample; "
            f"set it to at least {ranks}",
        )


def rollout_missing(settings: RolloutSettings) -> Iterator[tuple[str, str]]:
    """What this machine lacks for the rollouts: the setting, and a message with the fix."""
    if settings.engine == "embedded":
        return
    if settings.api_key_env is not None and settings.running and not os.environ.get(settings.api_key_env):
        yield "rollout.api_key_env", f"the environment variable {settings.api_key_env} is not set"
    if not settings.running and not Path(settings.started.python).is_file():
        yield (
            "rollout.launch.python",
            f"no file {settings.started.python!r}: install SGLang with `make sglang`, give the "
            "interpreter that has it, or name running servers in rollout.urls",
        )
