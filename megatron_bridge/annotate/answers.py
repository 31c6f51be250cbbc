"""An annotator's answer, read strictly: it fits in every part, or nothing of it is used."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from megatron_bridge.annotate.questions import MAX_SEGMENTS, MAX_SPANS, Question, answer_keys
from megatron_bridge.annotate.segments import trimmed
from megatron_bridge.annotation import AnnotatedSpan, Annotation, Missing

LONGEST_ANSWER = 1 << 16  # characters
_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n```", re.S)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_SegmentIds = Annotated[list[int], Field(min_length=1, max_length=MAX_SEGMENTS)]


class _ErrorSpan(_Strict):
    segment_ids: _SegmentIds
    error_type: str


class _KeySpan(_Strict):
    segment_ids: _SegmentIds
    step_type: str


class _Errors(_Strict):
    error_spans: Annotated[list[_ErrorSpan], Field(max_length=MAX_SPANS)]


class _Keys(_Strict):
    key_spans: Annotated[list[_KeySpan], Field(max_length=MAX_SPANS)]


def read_answer(answer: str, question: Question) -> Annotation:
    """The annotation that an answer gives, in the order of the response; its diagnosis is the type of the first span.

    An answer that is no such JSON, names a segment that is not there or not the next one, or a type that is none of
    the question's types, gives no spans and says `malformed`.
    """
    try:
        found = _spans(_body(answer), correct=question.correct)
    except ValidationError:
        return Annotation(missing=Missing.MALFORMED)
    spans = []
    for ids, kind in found:
        consecutive = ids == list(range(ids[0], ids[0] + len(ids)))
        if kind not in question.types or not consecutive or ids[0] < 1 or ids[-1] > len(question.parts):
            return Annotation(missing=Missing.MALFORMED)
        start, end = trimmed(question.response, question.parts[ids[0] - 1].start, question.parts[ids[-1] - 1].end)
        spans.append(AnnotatedSpan(label="key" if question.correct else "error", kind=kind, start=start, end=end))
    spans.sort(key=lambda span: (span.start, span.end, span.kind))
    return Annotation(spans=tuple(spans), diagnosis=spans[0].kind if spans else None)


def _body(answer: str) -> str:
    """The JSON of an answer: behind what a model thought aloud, out of the one fence around it. Too long: nothing."""
    if len(answer) > LONGEST_ANSWER:
        return ""
    text = answer.rpartition("</think>")[2].strip()
    fenced = _FENCE.fullmatch(text)
    return fenced[1] if fenced is not None else text


def _spans(body: str, *, correct: bool) -> list[tuple[list[int], str]]:
    """(segments, type) of each span, under the names of `answer_keys`."""
    outer, inner = answer_keys(correct=correct)
    found = (_Keys if correct else _Errors).model_validate_json(body)
    return [(span.segment_ids, getattr(span, inner)) for span in getattr(found, outer)]
