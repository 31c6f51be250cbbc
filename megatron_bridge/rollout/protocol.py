"""What SGLang's HTTP interface looks like, and how its versions differ: requests made, answers checked.

Everything here is a pure function of plain data: no socket, no torch.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from megatron_bridge.rollout.engine import RolloutError, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one version is spoken to. session: updates from tensors and over a process group stand between
    `/begin_weight_update` and `/end_weight_update`."""

    session: bool


# Every version that the tests were run against; `make sglang` installs 0.5.20.
DIALECTS = {
    "0.5.20": Dialect(session=False),
    "0.5.21": Dialect(session=True),
    "0.5.22": Dialect(session=True),
    "0.5.23": Dialect(session=True),
}


class VersionError(RolloutError):
    """A server is of a version whose calls are not known."""


def dialect_of(version: str, url: str) -> Dialect:
    """How to speak to a server of `version`. Raises VersionError for one that is not known."""
    release = version.partition("+")[0].partition(".post")[0]
    if release not in DIALECTS:
        raise VersionError(
            f"{url} is SGLang {version}: known are {', '.join(DIALECTS)}. Its calls may differ, and a weight update "
            "that half works trains on the wrong rollouts: run one of these versions"
        )
    return DIALECTS[release]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What a server says of itself: version, ranks that hold its weights, longest input, tokens."""

    version: str
    ranks: int
    longest_input: int


def server_facts(info: Any, url: str) -> ServerFacts:
    """Read `/server_info`. Raises VersionError where it is not SGLang's."""
    try:
        return ServerFacts(
            version=str(info["version"]),
            ranks=int(info["tp_size"]) * int(info.get("pp_size", 1)),
            longest_input=int(info["max_req_input_len"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise VersionError(f"{url} does not answer like an SGLang server: /server_info lacks {error}") from error


# ------------------------------------------------------------------------------------------------------------ requests


def generate_request(token_ids: Sequence[int], params: SamplingParams, *, budget: int, rid: str) -> dict[str, Any]:
    """The body of `/generate` that draws up to `budget` tokens after `token_ids`.

    All that shapes the distribution is written out: a server has defaults of its own. `rid` names the request for an
    abort, which matches prefixes: no rid may begin with another.
    """
    return {
        "rid": rid,
        "input_ids": list(token_ids),
        "sampling_params": {
            "temperature": params.temperature,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "max_new_tokens": budget,
            "stop_token_ids": list(params.stop_token_ids),
            "ignore_eos": not params.stop_token_ids,
        },
        "return_logprob": True,
    }


def probe_request(token_ids: Sequence[int], *, temperature: float, draw: int) -> dict[str, Any]:
    """The body of `/generate` that scores `token_ids` and draws `draw` tokens after them; SGLang scores inputs at
    temperature 1, whatever is asked, and what it draws at `temperature`.
    """
    params = SamplingParams(temperature=temperature, max_new_tokens=draw, stop_token_ids=(), seed=0)
    return generate_request(token_ids, params, budget=draw, rid=f"probe-{uuid.uuid4().hex}") | {"logprob_start_len": 0}


# ------------------------------------------------------------------------------------------------------------- answers


class BadAnswer(Exception):
    """An answer that is not whole or contradicts itself; asking again may give a good one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Tokens drawn, their log-probs, the weight version of each, and why the server stopped."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    versions: tuple[str, ...]
    finish: Literal["stop", "length", "abort"]


def read_answer(content: bytes, *, budget: int, vocab_size: int) -> Answer:
    """Check an answer of `/generate`. Raises BadAnswer for one that is cut, or whose parts do not fit together."""
    found = _parsed(content)
    try:
        tokens = found["output_ids"]
        meta = found["meta_info"]
        finish = meta["finish_reason"]["type"]
        scored = meta["output_token_logprobs"]
        pieces = meta["weight_versions"]
        logprobs = tuple(float(entry[0]) for entry in scored)
        versions = tuple(str(p["version"]) for p in pieces for _ in range(p["start"], p["end"]))
        same = [entry[1] for entry in scored] == list(tokens)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise BadAnswer(f"it lacks {error}") from error
    if finish not in ("stop", "length", "abort"):
        raise BadAnswer(f"its finish reason is {finish!r}")
    if not same:
        raise BadAnswer(f"{len(tokens)} tokens with the log-probs of {len(scored)} others")
    if len(versions) != len(tokens):
        raise BadAnswer(f"{len(tokens)} tokens with the weight versions of {len(versions)}")
    if len(tokens) > budget:
        raise BadAnswer(f"{len(tokens)} tokens where {budget} were asked for")
    if not all(isinstance(token, int) and 0 <= token < vocab_size for token in tokens):
        raise BadAnswer(f"a token outside of the vocabulary 0 .. {vocab_size - 1}")
    if not all(math.isfinite(logprob) and logprob <= 0 for logprob in logprobs):
        raise BadAnswer("a log-probability that is not finite or above 0")
    return Answer(token_ids=tuple(tokens), logprobs=logprobs, versions=versions, finish=finish)


def read_scores(content: bytes, token_ids: Sequence[int]) -> tuple[float, ...]:
    """The log-probs of `token_ids` from the second on. Raises BadAnswer."""
    try:
        scored = _parsed(content)["meta_info"]["input_token_logprobs"]
        if [entry[1] for entry in scored] != list(token_ids):
            raise BadAnswer("the scores are of other tokens")
        scores = tuple(float(entry[0]) for entry in scored[1:])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise BadAnswer(f"it lacks {error}") from error
    if not all(math.isfinite(score) for score in scores):
        raise BadAnswer("a score that is not finite")
    return scores


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise BadAnswer(f"it is no JSON: {error}") from error


# ------------------------------------------------------------------------------------------------------------- versions


def version_name(run: str, step: int) -> str:
    """The name that weights carry on a server: those of another run are never taken for this one's."""
    return f"{run}:{step}"


def unproved_name(run: str) -> str:
    """The name while weights are sent, until they are proved: those of no step."""
    return f"{run}:unproved"


def version_step(name: str, run: str) -> int | None:
    """The optimizer step of a weight version, or None where it is not of this run."""
    owner, colon, step = name.rpartition(":")
    return int(step) if colon and owner == run and step.isdigit() else None
