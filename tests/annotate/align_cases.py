"""Generated (text, tokenizer, span) cases of alignment, and what each token wrote by another way.

`python -m tests.annotate.align_cases --cases 10000` runs that many for every tokenizer.
"""

from __future__ import annotations

import argparse
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from megatron_bridge.annotation import AnnotatedSpan
from megatron_bridge.rollout.align import AlignedText, align, token_spans
from trace_dsl.lowering import RolloutBatch, TokenSpan
from trace_dsl.lowering.labels import label_mask
from trace_dsl.model import Place, SpanLabel

Intervals = list[tuple[int, int]]
SPECIAL = ["<end>", "<think>", "</think>"]
PIECES = [
    *(
        "the sum ",
        "of 12 ",
        "carry",
        " the one",
        "So x = 3.",
        " Hence",
        "\n",
        "\n\n",
        "  ",
        " ",
        "\t",
        "a",
        "é",
        "e\u0301",
    ),
    *(
        "\\frac{1}{2}",
        "$x^2$",
        "\\begin{align}",
        "\\[",
        "{",
        "}",
        "\\boxed{7}",
        "_",
        "&",
        "\\\\",
        "42",
        "-1",
        "...",
        "?",
    ),
    *("漢字", "数", "你好。", "नमस्ते", "שלום", "🦊", "😀", "👩‍👩‍👧", "🇫🇷", "∑", "≤", "𝔽", "\u200b", "\ufffd", "ß", "Ǆ"),
    *SPECIAL,
]
CORPUS = [
    "the sum of 12 and 7 is 19, so x = 19\n",
    "let y = \\frac{1}{2}; 漢字 and 😀 emoji ",
    "carry the one. Hence ...",
] * 30


@dataclass(frozen=True, slots=True)
class Subject:
    """A tokenizer with `oracle(ids, text)`: the characters of each token, read in another way than the code's."""

    name: str
    tokenizer: PreTrainedTokenizerFast
    oracle: Callable[[Sequence[int], str], Intervals]


def subjects() -> list[Subject]:
    """Tokenizers of the three kinds, and one with byte fallback, trained here."""
    byte_level, unigram, word_piece, fallback = _byte_level(), _unigram(), _word_piece(), _byte_fallback()
    return [
        Subject("byte-level BPE", byte_level, lambda ids, text: bytes_oracle(_token_bytes(byte_level, ids), text)),
        Subject("unigram", unigram, lambda ids, text: pieces_oracle(_metaspace_pieces(unigram, ids), text)),
        Subject("WordPiece", word_piece, lambda ids, text: pieces_oracle(_word_pieces(word_piece, ids), text)),
        Subject("BPE with byte fallback", fallback, lambda ids, text: _fallback_oracle(fallback, ids, text)),
    ]


def random_text(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 14)))


def check_case(subject: Subject, rng: random.Random) -> None:
    """One case: a text as the tokenizer cuts it or ids that no encoder would give, a span, a cap."""
    if rng.random() < 0.5:
        ids = subject.tokenizer.encode(random_text(rng), add_special_tokens=False)
    else:
        ids = [rng.randrange(len(subject.tokenizer)) for _ in range(rng.randint(0, 24))]
    aligned = align(subject.tokenizer, ids)
    assert list(aligned.intervals) == subject.oracle(ids, aligned.text), (subject.name, ids)
    _check_whole(aligned)
    a, b = sorted((rng.randint(0, len(aligned.text)), rng.randint(0, len(aligned.text))))
    c, d = sorted((rng.randint(0, len(aligned.text)), rng.randint(0, len(aligned.text))))
    spans = [AnnotatedSpan(label="key", kind="insight", start=x, end=y) for x, y in ((a, b), (c, d))]
    found = token_spans(0, aligned, spans)
    marked = {n for span in found for n in range(span.start, span.end)}
    written = {
        n
        for n, (start, end) in enumerate(aligned.intervals)
        if any(start <= place < end for span in spans for place in range(span.start, span.end))
    }
    silent = {n for n, (start, end) in enumerate(aligned.intervals) if start == end}
    assert written <= marked <= written | silent, (subject.name, ids, spans)
    _check_cap(len(ids), found, rng.choice([0.1, 0.25, 0.5, 1.0]))


def _check_whole(aligned: AlignedText) -> None:
    """In order, inside the text, every character with a token that wrote it."""
    owned, before = set(), 0
    for start, end in aligned.intervals:
        assert before <= start <= end <= len(aligned.text)
        before = start
        owned |= set(range(start, end))
    assert owned == set(range(len(aligned.text)))


def _check_cap(tokens: int, spans: Sequence[TokenSpan], cap: float) -> None:
    """At most the cap is marked, the same tokens in whatever order the spans come."""
    masks = [
        label_mask(
            RolloutBatch(
                length_R=torch.tensor([tokens]),
                reward_R=torch.zeros(1, dtype=torch.float64),
                correct_R=torch.zeros(1, dtype=torch.bool),
                group_R=torch.zeros(1, dtype=torch.int64),
                old_logp_T=torch.zeros(tokens),
                from_model_T=torch.ones(tokens, dtype=torch.bool),
                spans=tuple(order),
            ),
            SpanLabel(name="key", cap=cap, place=Place(line=1, column=1, end_line=1, end_column=2)),
        )
        for order in (spans, spans[::-1])
    ]
    assert masks[0].tolist() == masks[1].tolist()
    assert int(masks[0].sum()) <= math.floor(round(cap * tokens, 9))


# ------------------------------------------------------------------------------------------------------------ oracles


# Unicode 15, table 3-7 (well-formed byte sequences), then what of one a decoder replaces by one mark, then any byte.
_CHARACTER = re.compile(
    rb"[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    rb"|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
    rb"|\xe0[\xa0-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]|\xed[\x80-\x9f]|\xf0[\x90-\xbf][\x80-\xbf]?"
    rb"|[\xf1-\xf3][\x80-\xbf]{1,2}|\xf4[\x80-\x8f][\x80-\xbf]?|[\x00-\xff]"
)


def bytes_oracle(pieces: Sequence[bytes], text: str) -> Intervals:
    """The characters whose bytes each token holds, by the tables of the Unicode standard."""
    spelled = b"".join(pieces)
    places = [found.span() for found in _CHARACTER.finditer(spelled)]
    assert len(places) == len(text)
    intervals, at = [], 0
    for piece in pieces:
        inside = [c for c, (start, end) in enumerate(places) if start < at + len(piece) and end > at]
        before = sum(end <= at for _, end in places)
        intervals.append((inside[0], inside[-1] + 1) if piece else (before, before))
        at += len(piece)
    return intervals


def pieces_oracle(pieces: Sequence[str], text: str) -> Intervals:
    """Tokens that write whole characters, one behind the other."""
    assert "".join(pieces) == text
    intervals, at = [], 0
    for piece in pieces:
        intervals.append((at, at + len(piece)))
        at += len(piece)
    return intervals


def _fallback_oracle(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], text: str) -> Intervals:
    """Runs of byte tokens are their text if they are UTF-8 as a whole, else one mark a byte; other tokens stand for
    themselves.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    intervals, at, n = [], 0, 0
    while n < len(tokens):
        run = n
        while run < len(tokens) and tokens[run].startswith("<0x"):
            run += 1
        spelled = bytes(int(token[3:5], 16) for token in tokens[n:run])
        if run == n:
            intervals.append((at, at + len(tokens[n])))
            at, n = at + len(tokens[n]), n + 1
            continue
        try:
            whole = spelled.decode()
            found = bytes_oracle([bytes([byte]) for byte in spelled], whole)
        except UnicodeDecodeError:
            whole, found = "\ufffd" * len(spelled), [(m, m + 1) for m in range(len(spelled))]
        intervals += [(at + a, at + b) for a, b in found]
        at, n = at + len(whole), run
    assert at == len(text)
    return intervals


# --------------------------------------------------------------------------------------------------------- tokenizers


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>")
    fast.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    return fast


def _byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=["<end>", "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _wrapped(tokenizer)


def _token_bytes(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[bytes]:
    """By what the pre-tokenizer itself makes of each byte that a character may hold."""
    table = {}
    for byte in range(256):
        table[chr(byte) if _stands_for_itself(byte) else None] = byte
    hidden = [byte for byte in range(256) if not _stands_for_itself(byte)]
    table |= {chr(256 + n): byte for n, byte in enumerate(hidden)}
    special = set(tokenizer.all_special_tokens)
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    return [t.encode() if t in special else bytes(table[character] for character in t) for t in tokens]


def _stands_for_itself(byte: int) -> bool:
    pre = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return (byte < 128 and pre.pre_tokenize_str(chr(byte))[0][0] == chr(byte)) or (byte >= 161 and byte != 173)


def _unigram() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<end>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _wrapped(tokenizer)


def _metaspace_pieces(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[str]:
    pieces = [token.replace("▁", " ") for token in tokenizer.convert_ids_to_tokens(list(ids))]
    return [piece.removeprefix(" ") if n == 0 else piece for n, piece in enumerate(pieces)]


def _word_piece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["<end>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _wrapped(tokenizer)


def _word_pieces(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[str]:
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    return [t if n == 0 else t[2:] if t.startswith("##") else f" {t}" for n, t in enumerate(tokens)]


def _byte_fallback() -> PreTrainedTokenizerFast:
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {token: n for n, token in enumerate([*byte_tokens, *"abcx =.,123\n漢", "<end>", "<unk>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return _wrapped(tokenizer)


def run(cases: int, seed: int = 0) -> None:
    """Check `cases` cases for every tokenizer; an AssertionError names the first that fails."""
    for subject in subjects():
        for number in range(cases):
            check_case(subject, random.Random(f"{seed}/{subject.name}/{number}"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Check that generated cases of alignment are exact.")
    parser.add_argument("--cases", type=int, default=10_000, help="of each of the four tokenizers")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run(options.cases, options.seed)
    print(f"{options.cases} cases for each tokenizer, all exact")


if __name__ == "__main__":
    main()
