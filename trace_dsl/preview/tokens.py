"""Characters to tokens, for rollouts whose file does not say how they were tokenized."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise

Interval = tuple[int, int]

# A word with the blank before it; every other blank, line ends among them, stands alone.
_WORD = re.compile(r"[ \t]?\S+|\s")


def words(text: str) -> tuple[Interval, ...]:
    """A text cut into words, each with the blank before it; every other blank is a token. Nothing is left out."""
    return tuple(match.span() for match in _WORD.finditer(text))


def intervals_of(tokens: Sequence[str]) -> tuple[Interval, ...]:
    """The characters of tokens that stand one behind the other."""
    return tuple(pairwise(accumulate((len(token) for token in tokens), initial=0)))


def tokens_met(intervals: Sequence[Interval], start: int, end: int) -> Interval | None:
    """The first token that characters [start, end) meet and the one behind the last; None where they meet none."""
    if start >= end:
        return None
    met = [n for n, (first, last) in enumerate(intervals) if first < end and start < last]
    return (met[0], met[-1] + 1) if met else None
