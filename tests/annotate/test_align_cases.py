"""Alignment is exact on generated cases; `python -m tests.annotate.align_cases` runs many more."""

from __future__ import annotations

import random

import pytest

from megatron_bridge.annotation import AnnotatedSpan
from megatron_bridge.rollout.align import align, token_spans
from tests.annotate.align_cases import Subject, check_case, subjects

CASES = 150
SUBJECTS = subjects()


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_generated_cases_align_exactly(subject: Subject) -> None:
    for number in range(CASES):
        check_case(subject, random.Random(f"ci/{subject.name}/{number}"))


def test_the_bytes_of_an_emoji_in_two_tokens_each() -> None:
    """One token ends a character and begins the next: both are its own."""
    tokenizer = SUBJECTS[0].tokenizer
    ids = tokenizer.encode("é漢", add_special_tokens=False)
    aligned = align(tokenizer, ids)
    assert aligned.text == "é漢"
    assert aligned.intervals[0][0] == 0
    assert aligned.intervals[-1] == (1, 2)
    (span,) = token_spans(0, aligned, [AnnotatedSpan(label="key", kind="insight", start=1, end=2)])
    covered = {n for n, (start, end) in enumerate(aligned.intervals) if start <= 1 < end}
    assert set(range(span.start, span.end)) == covered


def test_a_span_without_characters_marks_no_token() -> None:
    tokenizer = SUBJECTS[0].tokenizer
    aligned = align(tokenizer, tokenizer.encode("the sum of", add_special_tokens=False))
    inside = next(start + 1 for start, end in aligned.intervals if end - start > 1)
    assert token_spans(0, aligned, [AnnotatedSpan(label="key", kind="insight", start=inside, end=inside)]) == ()


def test_a_long_response_is_aligned_in_linear_time() -> None:
    """A quadratic reading of 40,000 tokens would decode 800 million of them."""
    for subject in SUBJECTS:
        ids = subject.tokenizer.encode("the sum 漢 " * 4000, add_special_tokens=False)[:40_000]
        assert len(align(subject.tokenizer, ids).intervals) == len(ids)
