"""Problems, responses, and what an annotator says of them: the nouns that tasks and annotators share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem: `prompt` is the text the policy continues, `data` is the task's own description of it.

    `solution` is a worked solution that a teacher may be shown, where there is one.
    """

    prompt: str
    data: Any
    solution: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedSpan:
    """A labelled character interval [start, end) of a response; `kind` is the step or error type."""

    label: str
    kind: str
    start: int
    end: int


class Missing(StrEnum):
    """Why an annotator that should have looked at a response gave nothing."""

    TOO_LONG = "too_long"  # the response is longer than the annotator takes; no failure
    EMPTY = "empty"
    MALFORMED = "malformed"
    CUT = "cut"
    LATE = "late"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    SERVER_ERROR = "server_error"
    NOT_ASKED = "not_asked"  # so many had failed before it that the iteration was lost

    @property
    def is_failure(self) -> bool:
        return self is not Missing.TOO_LONG


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one answer cost. `began`, `ended`: seconds since the epoch; `cached`: read from the disk, nothing was asked;
    `cost`: in the currency of the prices; `cache_failure`: why the answer could not be kept or read.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    cached: bool = False
    cache_failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """What the annotator says of one response: its spans, and the one type label a teacher may be shown.

    `missing` is why there is nothing, None where the annotator had its say; `note` a line on it; `usage` what the
    answer of a language model cost.
    """

    spans: tuple[AnnotatedSpan, ...] = ()
    diagnosis: str | None = None
    missing: Missing | None = None
    note: str = ""
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A response to annotate: its text without the stop token (it may be empty or cut) and the verifier's outcome."""

    problem: Problem
    response: str
    correct: bool


class Annotator(Protocol):
    """Finds spans in responses."""

    @property
    def asks_policy(self) -> bool:
        """Whether it samples from the policy, in which every rank that holds a part of the model takes part."""
        ...

    def start(self) -> None:
        """Find out whether it can work at all. Raises TraceError."""
        ...

    def annotate(self, written: Sequence[Written], *, of: int | None = None) -> list[Annotation]:
        """The annotation of each response, in order. What goes wrong with one is said in its `missing`.

        of: responses of the iteration over all ranks, of which these are some (None: all of them). Only once more of
        them failed than a run allows may others be left out.
        """
        ...

    def close(self) -> None:
        """End the processes it started."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What the policy in training is asked: text for its chat template, or as it stands where it has none."""

    system: str
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What was answered: `text`, or in `missing` why there is none; `note` a line on it; `usage` what it cost."""

    text: str = ""
    missing: Missing | None = None
    note: str = ""
    usage: Usage = Usage()


class Policy(Protocol):
    """The policy in training, as an annotator may ask it."""

    def answer(self, messages: Sequence[Message], *, max_tokens: int, temperature: float) -> list[Reply]:
        """One reply to each message, in order."""
        ...
