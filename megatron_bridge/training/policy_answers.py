"""The policy in training, asked as an annotator of its own responses."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from megatron_bridge.annotation import Message, Missing, Reply, Usage
from megatron_bridge.prompts import encode_prompt
from megatron_bridge.rollout.align import decode
from megatron_bridge.rollout.engine import RolloutEngine, Sample, SamplingParams
from megatron_bridge.tasks.base import PromptFormat
from megatron_bridge.training.together import agreed


class PolicyAnswers:
    """A `megatron_bridge.annotation.Policy` over a rollout engine. Every rank with a part of the model calls it."""

    def __init__(
        self,
        engine: RolloutEngine,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_token_ids: tuple[int, ...],
        seed: int,
    ) -> None:
        self._engine, self._tokenizer = engine, tokenizer
        self._stop, self._seed = stop_token_ids, seed

    def answer(self, messages: Sequence[Message], *, max_tokens: int, temperature: float) -> list[Reply]:
        """One reply to each message; a question that leaves no room for an answer is too long.

        Collective over all ranks: asking is agreed, and a rank without a question takes part in the waiting.
        """
        prompts = [self._encode(message) for message in messages]
        fitting = [n for n, prompt in enumerate(prompts) if len(prompt) < self._engine.max_context]
        replies = [Reply(missing=Missing.TOO_LONG, note="the question fills the policy's context")] * len(messages)
        params = SamplingParams(
            temperature=temperature, max_new_tokens=max_tokens, stop_token_ids=self._stop, seed=self._seed
        )
        keys = [zlib.crc32(repr(prompts[n]).encode()) for n in fitting]
        pending = agreed(lambda: self._engine.start([prompts[n] for n in fitting], 1, params, keys=keys))
        drawn = pending.result()
        for n, (sample,) in zip(fitting, drawn.samples, strict=True):
            replies[n] = self._reply(sample, len(prompts[n]))
        return replies

    def _encode(self, message: Message) -> tuple[int, ...]:
        if self._tokenizer.chat_template is not None:
            return encode_prompt(self._tokenizer, PromptFormat(chat=True, system=message.system), message.user)
        return encode_prompt(self._tokenizer, PromptFormat(), f"{message.system}\n\n{message.user}\n")

    def _cut_by(self, usage: Usage) -> str:
        """What ended an answer that had not ended itself."""
        if usage.prompt_tokens + usage.completion_tokens >= self._engine.max_context:
            return (
                f"the answer was cut where the policy's context of {self._engine.max_context} tokens ends, of which "
                f"the question takes {usage.prompt_tokens}: keep responses shorter (rollout.max_response_tokens)"
            )
        return f"the answer was cut at task.annotator.max_tokens = {usage.completion_tokens}: raise it"

    def _reply(self, sample: Sample, prompt_tokens: int) -> Reply:
        usage = Usage(requests=1, prompt_tokens=prompt_tokens, completion_tokens=len(sample.token_ids))
        if sample.finish == "length":
            return Reply(missing=Missing.CUT, note=self._cut_by(usage), usage=usage)
        text = decode(self._tokenizer, sample.token_ids[:-1])
        if not text.strip():
            return Reply(missing=Missing.EMPTY, note="its answer is empty", usage=usage)
        return Reply(text=text, usage=usage)
