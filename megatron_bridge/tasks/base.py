"""What a task gives the trainer: problems, a verifier, an annotator and the teacher's prompt.

A task is plain Python over text; it knows nothing of tokens, tensors or specs. Every method is a pure function of its
arguments, so that a resumed run sees the same data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem: `prompt` is the text the policy continues, `data` is the task's own description of it."""

    prompt: str
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedSpan:
    """A labelled character interval [start, end) of a response; `kind` is the step or error type."""

    label: str
    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """What the annotator says of one response: its spans, and the one type label a teacher may be shown."""

    spans: tuple[AnnotatedSpan, ...] = ()
    diagnosis: str | None = None


class Task(Protocol):
    """Problems with a verifier and an annotator (arXiv 2605.10194, sections 3.1 and 3.2)."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The span labels that `annotate` can give, for example ("key", "error")."""
        ...

    @property
    def contexts(self) -> tuple[str, ...]:
        """What `teacher_prompt` can show: a subset of diagnosis, solution (`nothing` is always possible)."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that `problems` has: "train" and held-out ones."""
        ...

    def problems(self, *, split: str, seed: int, start: int, count: int) -> Sequence[Problem]:
        """Problems start .. start+count-1 of a split ("train", "eval", "ood"); each depends on (split, seed, index)."""
        ...

    def verify(self, problem: Problem, response: str) -> float:
        """The outcome reward: 1.0 for a correct response, 0.0 otherwise."""
        ...

    def annotate(self, problem: Problem, response: str, *, correct: bool) -> Annotation:
        """Spans of one response. `response` is its text without the stop token; it may be empty or cut."""
        ...

    def teacher_prompt(self, problem: Problem, *, sees: str, diagnosis: str | None) -> str:
        """The prompt a privileged teacher is given in place of `problem.prompt`; never any response text."""
        ...
