"""What every rollout engine gives the trainer: token ids with the log-probabilities they were drawn with.

The embedded engine samples in the training process; a served engine answers over HTTP. Both take token ids,
never text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from trace_dsl.errors import TraceError

Finish = Literal["stop", "length"]


class PromptError(TraceError, ValueError):
    """A prompt cannot be continued: it is empty, outside of the vocabulary, or fills the context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to sample: temperature 0 is greedy; seed, key and sample index fix all randomness."""

    temperature: float
    max_new_tokens: int
    stop_token_ids: tuple[int, ...]
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature {self.temperature}: it is a number from 0 (greedy) upwards")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {self.max_new_tokens}: ask for at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One response. `logprobs[t]` is log p(token_ids[t]) at the sampling temperature (at 1 where it is 0).

    The stop token, where one was drawn, is the last of `token_ids` and `finish` is "stop"; otherwise the
    response was cut and `finish` is "length". `weight_version` says which weights drew it.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    weight_version: int


class RolloutEngine(Protocol):
    """Draws n responses to each prompt."""

    def generate(
        self, prompts: Sequence[Sequence[int]], n: int, params: SamplingParams, *, keys: Sequence[int]
    ) -> list[list[Sample]]:
        """Sample `n` responses to each prompt; the answer is in the order of `prompts`, n to each.

        `keys[i]` is the global index of prompt i. The randomness of sample j of prompt i is a pure function
        of (params.seed, keys[i], j): the same samples come however a batch is cut and whichever rank draws
        it. Raises PromptError for a prompt that is empty or leaves no room for one new token.
        """
        ...
