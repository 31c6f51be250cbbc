"""Characters to tokens: which sampled token wrote which characters of a response.

Intervals come from decoding the sampled ids, never from encoding the text again: the tokenizer might cut the same text
elsewhere than the policy did (arXiv 2605.10194, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from megatron_bridge.tasks.base import AnnotatedSpan
from trace_dsl.lowering import TokenSpan

_INCOMPLETE = "�"  # what a decoder writes for bytes that are not yet a whole character


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedText:
    """A response's text and, for each token, the characters [start, end) it wrote.

    The tokens that share one character (bytes of it) all cover that character.
    """

    text: str
    intervals: tuple[tuple[int, int], ...]


def align(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> AlignedText:
    """Decode `token_ids` once in full and prefix by prefix where single tokens do not add up to the whole."""
    text = decode(tokenizer, token_ids)
    pieces = [decode(tokenizer, [token]) for token in token_ids]
    if "".join(pieces) == text and _INCOMPLETE not in text:
        ends, position = [], 0
        for piece in pieces:
            position += len(piece)
            ends.append(position)
    else:
        ends = [len(decode(tokenizer, token_ids[: n + 1]).rstrip(_INCOMPLETE)) for n in range(len(token_ids))]
        ends = [max(ends[: n + 1]) for n in range(len(ends))]
    intervals, start = [], 0
    for end in ends:
        # a token that only holds part of a character covers the character being written
        intervals.append((start, end) if end > start else (start, min(start + 1, len(text))))
        start = end
    return AlignedText(text=text, intervals=tuple(intervals))


def decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """The exact text of token ids: no special token left out, no space tidied."""
    return tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def token_spans(row: int, aligned: AlignedText, spans: Sequence[AnnotatedSpan]) -> tuple[TokenSpan, ...]:
    """Spans over tokens: a token belongs to a span when its characters meet it; empty spans vanish."""
    result = []
    for span in spans:
        met = [n for n, (a, b) in enumerate(aligned.intervals) if a < span.end and span.start < b]
        if met:
            result.append(TokenSpan(row=row, label=span.label, start=met[0], end=met[-1] + 1))
    return tuple(result)
