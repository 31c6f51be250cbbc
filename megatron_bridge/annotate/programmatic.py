"""Annotators that are programs: a function of this process, or one in a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from megatron_bridge.annotate.settings import ProgrammaticSettings
from megatron_bridge.annotation import AnnotatedSpan, Annotation, Missing, Written
from megatron_bridge.workers import Failure, Returned, WorkerPool

MAX_SPANS = 64
LONGEST_NOTE = 200


class FunctionAnnotator:
    """Calls `function(written)` here; for annotators that ship with a task."""

    asks_policy = False

    def __init__(self, function: Callable[[Written], Annotation]) -> None:
        self._function = function

    def start(self) -> None:
        """Nothing to start."""

    def close(self) -> None:
        """Nothing to end."""

    def annotate(self, written: Sequence[Written], *, of: int | None = None) -> list[Annotation]:
        """See `Annotator.annotate`."""
        return [self._function(one) for one in written]


class _Span(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    label: str
    kind: str
    start: int
    end: int


_SPANS = TypeAdapter(Annotated[list[_Span], Field(max_length=MAX_SPANS)])


class WorkerAnnotator:
    """Calls a user's function in worker processes: `function(response=, row=, correct=)` gives a list of spans, each
    {"label": .., "kind": .., "start": .., "end": ..} in characters of the response.
    """

    asks_policy = False

    def __init__(self, settings: ProgrammaticSettings, folder: str) -> None:
        target = {"kind": "python", "function": settings.function, "folder": folder}
        self._settings = settings
        self._pool = WorkerPool(target, count=settings.workers, timeout=settings.timeout, memory_gb=settings.memory_gb)

    def start(self) -> None:
        """See `Annotator.start`."""
        self._pool.start()

    def close(self) -> None:
        """See `Annotator.close`."""
        self._pool.close()

    def annotate(self, written: Sequence[Written], *, of: int | None = None) -> list[Annotation]:
        """See `Annotator.annotate`. A span outside of the response, or of a label or type that the settings do not
        list, makes the whole answer malformed.
        """
        calls = [{"response": w.response, "row": w.problem.data, "correct": w.correct} for w in written]
        return [self._read(returned, one) for returned, one in zip(self._pool.map(calls), written, strict=True)]

    def _read(self, returned: Returned, one: Written) -> Annotation:
        if returned.failure is not None:
            missing = Missing.LATE if returned.failure is Failure.TIMED_OUT else Missing.SERVER_ERROR
            return Annotation(missing=missing, note=f"{returned.failure}: {returned.reason}")
        try:
            found = _SPANS.validate_python(returned.value)
        except ValidationError:
            return _malformed(f"no list of spans: {returned.value}")
        for span in found:
            if span.label not in self._settings.labels or span.kind not in self._settings.types:
                return _malformed(f"{span.label!r}/{span.kind!r} is not in the settings")
            if not 0 <= span.start < span.end <= len(one.response):
                return _malformed(f"[{span.start}, {span.end}) is not in the response")
        ordered = sorted(found, key=lambda span: (span.start, span.end, span.label, span.kind))
        spans = tuple(AnnotatedSpan(label=s.label, kind=s.kind, start=s.start, end=s.end) for s in ordered)
        return Annotation(spans=spans, diagnosis=spans[0].kind if spans else None)


def _malformed(note: str) -> Annotation:
    return Annotation(missing=Missing.MALFORMED, note=note[:LONGEST_NOTE])
