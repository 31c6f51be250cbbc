"""Characters to tokens, with real tokenizers trained here."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from megatron_bridge.annotation import AnnotatedSpan
from megatron_bridge.rollout.align import align, token_spans
from trace_dsl.lowering import TokenSpan

CORPUS = ["the sum of 12 and 7 is 19, so x = 19\n", "let y = \\frac{1}{2}; 漢字 and 😀 emoji ", "carry the one\n"] * 30


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    """A byte-level BPE: characters outside of its merges are split into bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<end>"]
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


@settings(max_examples=200)
@given(text=st.text(alphabet="ab 12\n+={}\\é漢字😀", max_size=30))
def test_tokens_cover_what_the_encoder_says_they_wrote(byte_level: PreTrainedTokenizerFast, text: str) -> None:
    encoded = byte_level(text, return_offsets_mapping=True, add_special_tokens=False)
    aligned = align(byte_level, encoded["input_ids"])
    assert aligned.text == text
    for (start, end), (first, last) in zip(aligned.intervals, encoded["offset_mapping"], strict=True):
        assert start <= first <= last <= end or (first <= start and end <= last)


@settings(max_examples=200)
@given(ids=st.lists(st.integers(0, 290), max_size=30))
def test_any_sampled_ids_give_ordered_intervals_inside_the_text(
    byte_level: PreTrainedTokenizerFast, ids: list[int]
) -> None:
    """A policy may sample bytes that are no character; alignment neither raises nor leaves the text."""
    aligned = align(byte_level, ids)
    assert len(aligned.intervals) == len(ids)
    previous = 0
    for start, end in aligned.intervals:
        assert previous <= start <= end <= len(aligned.text)
        previous = start


def test_an_id_that_the_tokenizer_does_not_know_writes_nothing(byte_level: PreTrainedTokenizerFast) -> None:
    """A model's vocabulary may be larger than its tokenizer's; the other tokens keep their bytes."""
    ids = byte_level.encode("a🦊b", add_special_tokens=False)
    unknown = len(byte_level) + 7
    aligned = align(byte_level, [ids[0], unknown, *ids[1:3], unknown, *ids[3:]])
    assert aligned.text == "a🦊b"
    assert [aligned.intervals[n] for n in (0, 2, 3, 5, 6)] == [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)]
    assert aligned.intervals[1][0] == aligned.intervals[1][1]


def test_bytes_of_one_character_all_belong_to_it(byte_level: PreTrainedTokenizerFast) -> None:
    ids = byte_level.encode("a🦊b", add_special_tokens=False)
    assert len(ids) == 5  # one token for a, three for the four bytes of the fox, one for b
    aligned = align(byte_level, ids)
    assert aligned.intervals == ((0, 1), (1, 2), (1, 2), (1, 2), (2, 3))
    spans = token_spans(0, aligned, [AnnotatedSpan(label="key", kind="insight", start=1, end=2)])
    assert spans == (TokenSpan(row=0, label="key", start=1, end=4),)


def test_a_token_is_marked_when_its_characters_meet_the_span() -> None:
    tokenizer = AutoTokenizer.from_pretrained("specs/demo/policy")
    ids = tokenizer.encode("34 + 47 carry 81\n", add_special_tokens=False)
    aligned = align(tokenizer, ids)
    start = aligned.text.index("carry") + 2  # inside the word
    (span,) = token_spans(3, aligned, [AnnotatedSpan(label="error", kind="carry", start=start, end=start + 1)])
    assert span.row == 3
    covered = "".join(aligned.text[a:b] for a, b in aligned.intervals[span.start : span.end])
    assert covered.strip() == "carry"


def test_empty_spans_and_empty_responses_mark_nothing() -> None:
    tokenizer = AutoTokenizer.from_pretrained("specs/demo/policy")
    aligned = align(tokenizer, [])
    assert aligned.text == ""
    assert aligned.intervals == ()
    assert token_spans(0, aligned, [AnnotatedSpan(label="key", kind="carry", start=0, end=3)]) == ()
    aligned = align(tokenizer, tokenizer.encode("81\n", add_special_tokens=False))
    assert token_spans(0, aligned, [AnnotatedSpan(label="key", kind="carry", start=1, end=1)]) == ()
