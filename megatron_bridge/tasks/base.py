"""What a task gives the trainer: problems, a verifier, an annotator and the teacher's prompt.

A task is plain Python over text; it knows nothing of tokens, tensors or specs. Every method is a pure function of its
arguments, so that a resumed run sees the same data; verifiers and annotators that are processes or servers are as
repeatable as those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from megatron_bridge.contexts import Context
from megatron_bridge.verify.grade import Grade


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem: `prompt` is the text the policy continues, `data` is the task's own description of it.

    `solution` is a worked solution that a teacher may be shown, where there is one.
    """

    prompt: str
    data: Any
    solution: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFormat:
    """How a prompt is written: with the tokenizer's chat template, as a user's message behind a `system` message, in
    `thinking` mode or not; or (`chat` False) as it stands.
    """

    chat: bool = False
    system: str | None = None
    thinking: bool = False


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
        """Whether it samples from the policy, in which every rank of a tensor-parallel group takes part."""
        ...

    def start(self) -> None:
        """Find out whether it can work at all. Raises TraceError."""
        ...

    def annotate(self, written: Sequence[Written]) -> list[Annotation]:
        """The annotation of each response, in order. What goes wrong with one is said in its `missing`."""
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


class Task(Protocol):
    """Problems with a verifier and an annotator (arXiv 2605.10194, sections 3.1 and 3.2)."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The span labels that the annotator can give, for example ("key", "error")."""
        ...

    @property
    def contexts(self) -> tuple[str, ...]:
        """What a teacher can be shown: some of diagnosis, solution, sibling, feedback (`nothing` always can)."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that `problems` has: "train" and held-out ones."""
        ...

    @property
    def prompt_format(self) -> PromptFormat:
        """How a prompt becomes tokens, the student's and every teacher's alike."""
        ...

    @property
    def max_failures(self) -> tuple[float, float]:
        """The share of an iteration's responses on which the verifier, and the annotator, may fail."""
        ...

    @property
    def digest(self) -> str | None:
        """Of the data behind the problems; None where a program draws them."""
        ...

    def start(self, *, held_out: str, problems: int) -> None:
        """Read the data and start what judges, before a run does; `problems` of split `held_out` will be asked for.

        Raises TraceError.
        """
        ...

    def problems(self, *, split: str, seed: int, start: int, count: int) -> Sequence[Problem]:
        """Problems start .. start+count-1 of a split ("train", "eval", "ood"); each depends on (split, seed, index)."""
        ...

    def grade(self, items: Sequence[tuple[Problem, str]]) -> list[Grade]:
        """The grade of each response that ended by itself."""
        ...

    def annotator(self, policy: Policy) -> Annotator:
        """The task's annotator; `policy` is whom one asks that asks the policy itself."""
        ...

    def teacher_prompt(self, problem: Problem, context: Context | None) -> str:
        """The prompt a privileged teacher is given in place of `problem.prompt`: a function of problem and context
        alone.
        """
        ...

    def close(self) -> None:
        """End the processes it started."""
        ...
