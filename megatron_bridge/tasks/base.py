"""What a task gives the trainer: problems, a verifier, an annotator and the teacher's prompt.

A task is plain Python over text; it knows nothing of tokens, tensors or specs. Every method is a pure function of its
arguments, so that a resumed run sees the same data; verifiers and annotators that are processes or servers are as
repeatable as those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from megatron_bridge.annotation import Annotator, Policy, Problem
from megatron_bridge.contexts import Context
from megatron_bridge.verify.grade import Grade


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFormat:
    """How a prompt is written: with the tokenizer's chat template, as a user's message behind a `system` message, in
    `thinking` mode or not; or (`chat` False) as it stands.
    """

    chat: bool = False
    system: str | None = None
    thinking: bool = False


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

    def identity(self, seed: int) -> dict[str, str]:
        """What decides which problem stands at which position of "train": the name of a setting or of files, and its
        value or a digest. A run does not go on where one of them changed.
        """
        ...

    def start(self, *, held_out: Sequence[str], problems: int) -> None:
        """Read the data and start what judges, before a run does; `problems` of each split in `held_out` will be asked
        for.

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
