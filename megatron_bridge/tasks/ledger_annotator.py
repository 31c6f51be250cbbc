"""The Ledger annotator, a program: where a response goes wrong, or which of its lines are decisive.

It stands in for the language model that annotates rollouts in arXiv 2605.10194 (section 3.2) and keeps the
same rules: spans cover at most a quarter of the response, an empty annotation is better than a guess.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from megatron_bridge.annotation import AnnotatedSpan, Annotation
from megatron_bridge.tasks.ledger_steps import Ledger, Line, answer, right_response

SPAN_SHARE = 0.25  # of the characters of a response

_SUM_LINE = re.compile(r"[0-9]{2}(?: (?:odd|even))? [+-] [0-9]{2} (?:=|carry|borrow) [0-9]{2}")
_ANSWER = re.compile(r"answer ([0-9]{2})")


def stated_answer(response: str) -> int | None:
    """The value on the response's last line if that is its only answer line, else None."""
    found = _ANSWER.fullmatch(response.rsplit("\n", 1)[-1])
    return int(found[1]) if found is not None and response.count("answer") == 1 else None


def annotate_response(ledger: Ledger, response: str, *, correct: bool) -> Annotation:
    """The first wrong line of a wrong response, or the decisive lines of one type of a correct one.

    A response gets no span when it is empty or cut before its answer line, when its first wrong line is no
    sum or difference or shows a slip of no type, and when it is called correct but has a wrong line or
    answer. Spans hold whole lines; of a line over the budget, the words from the wrong or deciding one on
    (a key line is left out if these are over it too, an error line is cut). A line that is the right result alone is
    right, and never in a span.
    """
    stated = stated_answer(response)
    if stated is None:
        return Annotation()
    written = response.split("\n")[:-1]
    right = right_response(ledger)
    if correct:
        whole = len(written) == len(right) and all(map(_is_right, written, right)) and stated == answer(ledger)
        return _annotate_keys(right, written, response) if whole else Annotation()
    start = 0
    for line, expected in zip(written, right, strict=False):
        if not _is_right(line, expected):
            return _annotate_error(expected, line, start, int(SPAN_SHARE * len(response)))
        start += len(line) + 1
    return Annotation()


def _is_right(written: str, right: Line) -> bool:
    return written in (right.text, right.terse)


def _annotate_error(right: Line, written: str, start: int, budget: int) -> Annotation:
    if _SUM_LINE.fullmatch(written) is None:
        return Annotation()
    right_words, words = right.text.split(" "), written.split(" ")
    at = next(i for i, (a, b) in enumerate(zip(right_words, words, strict=False)) if a != b)
    kind = right.roles[at]
    if kind is None:
        return Annotation()
    begin = start if len(written) <= budget else start + _word_start(written, at)
    end = min(start + len(written), begin + budget)
    return Annotation(spans=(AnnotatedSpan(label="error", kind=kind, start=begin, end=end),), diagnosis=kind)


def _annotate_keys(right: Sequence[Line], written: Sequence[str], response: str) -> Annotation:
    starts = accumulate((len(line) + 1 for line in written), initial=0)
    whole = [(line, start) for line, text, start in zip(right, written, starts, strict=False) if text == line.text]
    counts = Counter(kind for line, _ in whole for kind in line.hard)
    counts = counts or Counter(kind for line, _ in whole for kind in line.types)
    if not counts:
        return Annotation()
    kind = max(counts, key=lambda kind: (counts[kind], zlib.crc32(f"{kind}/{response}".encode())))
    carriers = [(line, start) for line, start in whole if kind in line.types]
    budget = int(SPAN_SHARE * len(response))
    spans: list[AnnotatedSpan] = []
    for line, start in sorted(carriers, key=lambda carrier: kind not in carrier[0].hard):
        begin = _word_start(line.text, line.roles.index(kind)) if len(line.text) > budget else 0
        if len(line.text) - begin <= budget:
            spans.append(AnnotatedSpan(label="key", kind=kind, start=start + begin, end=start + len(line.text)))
            budget -= len(line.text) - begin
    spans.sort(key=lambda span: span.start)
    return Annotation(spans=tuple(spans), diagnosis=kind if spans else None)


def _word_start(line: str, word: int) -> int:
    """The offset in characters of a line's word number `word`, counted from 0."""
    return len(" ".join(line.split(" ")[:word])) + (word > 0)
