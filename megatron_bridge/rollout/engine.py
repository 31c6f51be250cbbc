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


class RolloutError(TraceError, RuntimeError):
    """Rollouts cannot be had: servers are gone, refuse, or hold other weights than the trainer."""


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
    response was cut and `finish` is "length". `weight_versions[t]` says which weights drew token t: the optimizer
    steps they had behind them.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    weight_versions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The tokens that a sample has so far, perhaps all of them; fields as those of `Sample`."""

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    weight_versions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The samples of one request, in the order of its prompts, and the seconds from its start to its last token."""

    samples: list[list[Sample]]
    seconds: float


class Pending(Protocol):
    """Samples that were asked for."""

    def result(self) -> Drawn:
        """Wait for them. Collective over all ranks; every rank gets its data-parallel share. Raises RolloutError."""
        ...

    def so_far(self) -> list[list[Begun]] | None:
        """What each sample has by now, in the order of the prompts, on every rank its data-parallel share; drawing goes
        on. None where the same samples come when they are drawn again. Collective over all ranks.
        """
        ...


class RolloutEngine(Protocol):
    """Draws n responses to each prompt, with the weights of the last `sync`."""

    @property
    def max_context(self) -> int:
        """Tokens of prompt and response together that fit; a served engine knows it after the first `sync`."""
        ...

    def sync(self, step: int) -> None:
        """Sample with the trainer's weights of now from here on; they have `step` optimizer steps behind them.

        Samples that are being drawn go on with the new weights. Collective over all ranks. Raises RolloutError.
        """
        ...

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        params: SamplingParams,
        *,
        keys: Sequence[int],
        begun: Sequence[Sequence[Begun]] | None = None,
    ) -> Pending:
        """Ask for `n` responses to each prompt; a served engine draws them while the trainer does other things.

        `begun`, as `Pending.so_far` gave it, are tokens that the samples have already: they go on from there.
        `keys[i]` is the global index of prompt i. In the embedded engine the randomness of sample j of prompt i is a
        pure function of (params.seed, keys[i], j): the same samples come however a batch is cut and whichever rank
        draws it. Raises PromptError for a prompt that is empty or leaves no room for one new token.
        """
        ...

    def metrics(self) -> dict[str, float]:
        """What happened since the last call, by metric name: this rank's part of it."""
        ...

    def close(self) -> None:
        """Stop drawing, and stop what was started for it. Not collective."""
        ...


def check_budgets(
    prompts: Sequence[Sequence[int]], params: SamplingParams, *, max_context: int, vocab_size: int
) -> list[int]:
    """How many tokens may follow each prompt: `max_new_tokens`, cut to what fits into the context.

    Raises PromptError for a prompt that is empty, leaves no room or holds a token outside of the vocabulary.
    """
    budgets = []
    for number, prompt in enumerate(prompts):
        room = max_context - len(prompt)
        if not prompt:
            raise PromptError(f"prompt {number} is empty: give at least 1 token")
        if room < 1:
            raise PromptError(
                f"prompt {number} has {len(prompt)} tokens and the context {max_context}: "
                f"shorten it to at most {max_context - 1}, or raise max_context"
            )
        if not 0 <= min(prompt) <= max(prompt) < vocab_size:
            raise PromptError(f"prompt {number} holds a token outside of the vocabulary 0 .. {vocab_size - 1}")
        budgets.append(min(params.max_new_tokens, room))
    return budgets
