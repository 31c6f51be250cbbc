"""Characters to tokens: which sampled token wrote which characters of a response.

Intervals come from the sampled ids, never from encoding the text again: the tokenizer might cut the same text elsewhere
than the policy did (arXiv 2605.10194, section 3.2). Three readings of the ids are tried, each used only if it gives
exactly the text that the tokenizer decodes:

1. bytes: each token stands for bytes (byte-level BPE); exact also where tokens split a character or spell no character;
2. pieces: each token adds text behind the one before it (Metaspace, WordPiece), runs of `<0xE6>` tokens spell bytes;
3. prefixes: the text that is settled once a token is read; for any other decoder, in quadratic time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

from megatron_bridge.annotation import AnnotatedSpan
from trace_dsl.lowering import TokenSpan

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_of_character() -> dict[str, int]:
    """The characters in which byte-level BPE writes bytes: printable ones as themselves, the rest from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_of_character()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedText:
    """A response's text and, for each token, the characters [start, end) it wrote.

    The tokens that share one character (bytes of it) all cover that character.
    """

    text: str
    intervals: tuple[tuple[int, int], ...]


def align(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> AlignedText:
    """The text of `token_ids` and the characters of each."""
    text = decode(tokenizer, token_ids)
    tokens = tokenizer.convert_ids_to_tokens(list(token_ids))
    intervals = _by_bytes(tokens, text)
    if intervals is None:
        intervals = _by_pieces(tokenizer, token_ids, tokens, text)
    if intervals is None:
        intervals = _by_prefixes(tokenizer, token_ids, text)
    return AlignedText(text=text, intervals=tuple(intervals))


def decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """The exact text of token ids: no special token left out, no space tidied."""
    return tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def token_spans(row: int, aligned: AlignedText, spans: Sequence[AnnotatedSpan]) -> tuple[TokenSpan, ...]:
    """Spans over tokens: a token belongs to a span when its characters meet it; empty spans vanish."""
    result = []
    for span in spans:
        if span.start >= span.end:
            continue
        met = [n for n, (a, b) in enumerate(aligned.intervals) if a < span.end and span.start < b]
        if met:
            result.append(TokenSpan(row=row, label=span.label, start=met[0], end=met[-1] + 1))
    return tuple(result)


# -------------------------------------------------------------------------------------------------------------- bytes


def _by_bytes(tokens: Sequence[str | None], text: str) -> list[tuple[int, int]] | None:
    """Intervals where every token is a string of bytes; None where these do not spell `text`."""
    # an id that the tokenizer does not know (a model's vocabulary may be larger) is decoded to nothing
    pieces = [b"" if token is None else _token_bytes(token) for token in tokens]
    spelled = b"".join(pieces)
    if spelled.decode("utf-8", "replace") != text:
        return None
    character_at = _character_of_byte(spelled)
    intervals, start = [], 0
    for piece in pieces:
        intervals.append(_covered(character_at, start, start + len(piece), len(text)))
        start += len(piece)
    return intervals


def _token_bytes(token: str) -> bytes:
    """The bytes of a token: by the byte-level alphabet, or (an added token) the token's own text."""
    found = [_BYTES.get(character) for character in token]
    return token.encode() if None in found else bytes(found)


def _character_of_byte(spelled: bytes) -> list[int]:
    """For each byte the number of the character it is part of; bytes that spell none share one replacement mark, as
    many as a decoder replaces at once.
    """
    places: list[int] = []
    number = at = 0
    while at < len(spelled):
        width = _width(spelled, at)
        places += [number] * width
        number, at = number + 1, at + width
    return places


def _width(spelled: bytes, at: int) -> int:
    """How many bytes from `at` on are one character, or are replaced by one mark."""
    for width in (1, 2, 3, 4):
        try:
            spelled[at : at + width].decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return max(1, error.end - error.start)
            if at + width > len(spelled):
                return len(spelled) - at
        else:
            return width
    raise AssertionError("UTF-8 has no character of more than 4 bytes")


def _covered(character_at: Sequence[int], start: int, end: int, characters: int) -> tuple[int, int]:
    """The characters of bytes [start, end); nothing at its place for an empty token."""
    if start == end:
        place = character_at[start] if start < len(character_at) else characters
        return place, place
    return character_at[start], character_at[end - 1] + 1


# ------------------------------------------------------------------------------------------------------------- pieces


def _by_pieces(
    tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], tokens: Sequence[str | None], text: str
) -> list[tuple[int, int]] | None:
    """Intervals where a token's text depends on the one before it alone; None where the pieces do not spell `text`."""
    intervals: list[tuple[int, int]] = []
    position = number = 0
    while number < len(token_ids):
        last = number + 1
        if _BYTE_TOKEN.fullmatch(tokens[number] or ""):
            while last < len(tokens) and _BYTE_TOKEN.fullmatch(tokens[last] or ""):
                last += 1
        before = decode(tokenizer, token_ids[number - 1 : number]) if number else ""
        with_it = decode(tokenizer, token_ids[max(0, number - 1) : last])
        if not with_it.startswith(before):
            return None
        piece = with_it[len(before) :]
        if not text.startswith(piece, position):
            return None
        intervals += [(position + a, position + b) for a, b in _inside_piece(tokens[number:last], piece)]
        position += len(piece)
        number = last
    return intervals if position == len(text) else None


def _inside_piece(tokens: Sequence[str | None], piece: str) -> list[tuple[int, int]]:
    """The characters of each token of one piece: all of them, or for byte tokens those that hold their bytes."""
    if len(tokens) == 1:
        return [(0, len(piece))]
    spelled = bytes(int(token[3:5], 16) for token in tokens)
    if spelled.decode("utf-8", "replace") == piece:
        return [(place, place + 1) for place in _character_of_byte(spelled)]
    if len(piece) == len(tokens):  # a decoder that replaces each byte of a run that spells no text
        return [(n, n + 1) for n in range(len(tokens))]
    return [(0, len(piece))] * len(tokens)


# ----------------------------------------------------------------------------------------------------------- prefixes


def _by_prefixes(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], text: str) -> list[tuple[int, int]]:
    """A token wrote what agrees with the whole text once it is read and did not before; one that settles nothing
    covers the character being written.
    """
    settled = [_common(decode(tokenizer, token_ids[:n]), text) for n in range(len(token_ids))]
    ends = list(accumulate([*settled[1:], len(text)], max))
    intervals, start = [], 0
    for end in ends:
        intervals.append((start, end) if end > start else (start, min(start + 1, len(text))))
        start = end
    return intervals


def _common(one: str, other: str) -> int:
    """The length of the longest common prefix."""
    shorter = min(len(one), len(other))
    return next((n for n in range(shorter) if one[n] != other[n]), shorter)
