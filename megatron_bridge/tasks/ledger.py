"""Ledger, the demo's reasoning task: chained two-digit arithmetic whose steps go wrong in five known ways.

It stands in for a reasoning benchmark: problems are drawn by a program (no data to download), the verifier
is exact and the annotator never guesses. `megatron_bridge.tasks.ledger_steps` shows a problem and its
response.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from megatron_bridge.annotate.programmatic import FunctionAnnotator
from megatron_bridge.annotation import Annotation, Annotator, Policy, Problem
from megatron_bridge.contexts import Context, ContextError, Diagnosis, sees_of
from megatron_bridge.tasks.base import PromptFormat
from megatron_bridge.tasks.ledger_annotator import annotate_response, stated_answer
from megatron_bridge.tasks.ledger_controls import Control, controlled
from megatron_bridge.tasks.ledger_steps import StepType, answer, draw_ledger, prompt_text
from megatron_bridge.verify.grade import Grade

SPLIT_OPS = {"train": 4, "eval": 4, "ood": 6}


def is_held_out(prompt: str) -> bool:
    """Whether a prompt belongs to the evaluation splits: one in eight, by a checksum of its text."""
    return zlib.crc32(prompt.encode()) % 8 == 0


_PLAIN = PromptFormat()


@dataclass(frozen=True, slots=True)
class LedgerTask:
    """The Ledger task (see `megatron_bridge.tasks.base.Task` for what each member promises).

    control: what is made worse of its annotations, None for nothing.
    """

    control: Control | None = None
    labels: tuple[str, ...] = ("key", "error")
    contexts: tuple[str, ...] = ("diagnosis",)
    splits: tuple[str, ...] = tuple(SPLIT_OPS)
    prompt_format: PromptFormat = _PLAIN
    max_failures: tuple[float, float] = (0.0, 0.0)

    @property
    def name(self) -> str:
        return "ledger" if self.control is None else f"ledger-{self.control}"

    def identity(self, seed: int) -> dict[str, str]:
        """See `Task.identity`."""
        return {"task": self.name, "seed": str(seed)}

    def start(self, *, held_out: Sequence[str], problems: int) -> None:
        """Nothing to start: problems, verifier and annotator are of this process."""

    def close(self) -> None:
        """Nothing to end."""

    def problems(self, *, split: str, seed: int, start: int, count: int) -> Sequence[Problem]:
        """Problems of 4 operations ("train", "eval"; no prompt is in both) or 6, one a swap ("ood").

        Raises ValueError for another split, or a negative `start` or `count`.
        """
        if split not in SPLIT_OPS:
            raise ValueError(f"unknown split {split!r}: allowed are {', '.join(map(repr, SPLIT_OPS))}")
        if start < 0 or count < 0:
            raise ValueError(f"start={start}, count={count}: both must be at least 0")
        return [_problem(split, seed, index) for index in range(start, start + count)]

    def verify(self, problem: Problem, response: str) -> float:
        """1.0 if the response's last line is the only answer line and gives the right value, else 0.0."""
        return float(stated_answer(response) == answer(problem.data))

    def grade(self, items: Sequence[tuple[Problem, str]]) -> list[Grade]:
        """The grade of each response, see `verify`."""
        return [self._grade(problem, response) for problem, response in items]

    def _grade(self, problem: Problem, response: str) -> Grade:
        reward = self.verify(problem, response)
        return Grade(reward=reward, reason="the answer is right" if reward else "no answer, or a wrong one")

    def annotator(self, policy: Policy) -> Annotator:
        """The annotator that is a program."""
        return FunctionAnnotator(lambda w: self.annotate(w.problem, w.response, correct=w.correct))

    def annotate(self, problem: Problem, response: str, *, correct: bool) -> Annotation:
        """See `megatron_bridge.tasks.ledger_annotator.annotate_response` and `ledger_controls`."""
        annotation = annotate_response(problem.data, response, correct=correct)
        return annotation if self.control is None else controlled(annotation, self.control, problem.prompt, response)

    def teacher_prompt(self, problem: Problem, context: Context | None) -> str:
        """The prompt behind a label token such as `<carry>`; without a diagnosis the bare prompt.

        Raises ContextError for another context, or a diagnosis that is no step type.
        """
        match context:
            case None:
                return problem.prompt
            case Diagnosis(kind=kind) if kind in set(StepType):
                return f"<{kind}>{problem.prompt}"
            case Diagnosis(kind=kind):
                raise ContextError(
                    f"unknown diagnosis {kind!r}: allowed are {', '.join(repr(str(t)) for t in StepType)}"
                )
            case _:
                raise ContextError(
                    f"task 'ledger' cannot show a teacher the {sees_of(context)}: allowed are 'diagnosis' and "
                    "'nothing' (the demo policy was trained to read type labels only)"
                )


def _problem(split: str, seed: int, index: int) -> Problem:
    rng = random.Random(f"ledger/{split}/{seed}/{index}")
    while True:
        ledger = draw_ledger(rng, ops=SPLIT_OPS[split], swaps=int(split == "ood"))
        prompt = prompt_text(ledger)
        if is_held_out(prompt) == (split != "train"):
            return Problem(prompt=prompt, data=ledger)
