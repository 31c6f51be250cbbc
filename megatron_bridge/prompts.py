"""A prompt as token ids: one function for the student and every teacher, so that both are asked in the same way."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from megatron_bridge.tasks.base import PromptFormat


def encode_prompt(tokenizer: PreTrainedTokenizerBase, style: PromptFormat, text: str) -> tuple[int, ...]:
    """The ids of `text` as a prompt. With `style.chat` the tokenizer must have a chat template."""
    if style.chat:
        messages = [{"role": "user", "content": text}]
        if style.system is not None:
            messages.insert(0, {"role": "system", "content": style.system})
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=style.thinking
        )
    return tuple(tokenizer.encode(text, add_special_tokens=False))
