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

from megatron_bridge.tasks.base import Annotation, Problem
from megatron_bridge.tasks.ledger_annotator import annotate_response, stated_answer
from megatron_bridge.tasks.ledger_steps import StepType, answer, draw_ledger, prompt_text

SPLIT_OPS = {"train": 4, "eval": 4, "ood": 6}


def is_held_out(prompt: str) -> bool:
    """Whether a prompt belongs to the evaluation splits: one in eight, by a checksum of its text."""
    return zlib.crc32(prompt.encode()) % 8 == 0


@dataclass(frozen=True, slots=True)
class LedgerTask:
    """The Ledger task (see `megatron_bridge.tasks.base.Task` for what each member promises)."""

    name: str = "ledger"
    labels: tuple[str, ...] = ("key", "error")
    contexts: tuple[str, ...] = ("diagnosis",)
    splits: tuple[str, ...] = tuple(SPLIT_OPS)

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

    def annotate(self, problem: Problem, response: str, *, correct: bool) -> Annotation:
        """See `megatron_bridge.tasks.ledger_annotator.annotate_response`."""
        return annotate_response(problem.data, response, correct=correct)

    def teacher_prompt(self, problem: Problem, *, sees: str, diagnosis: str | None) -> str:
        """The prompt behind a label token such as `<carry>`; without a diagnosis the bare prompt.

        Raises ValueError for another context, or a diagnosis that is no step type.
        """
        if sees not in (*self.contexts, "nothing"):
            raise ValueError(
                f"task 'ledger' cannot show a teacher {sees!r}: allowed are 'diagnosis' and 'nothing' "
                "(the demo policy was trained to read type labels only)"
            )
        if sees == "nothing" or diagnosis is None:
            return problem.prompt
        if diagnosis not in {str(step_type) for step_type in StepType}:
            raise ValueError(f"unknown diagnosis {diagnosis!r}: allowed are {', '.join(map(repr, map(str, StepType)))}")
        return f"<{diagnosis}>{problem.prompt}"


def _problem(split: str, seed: int, index: int) -> Problem:
    rng = random.Random(f"ledger/{split}/{seed}/{index}")
    while True:
        ledger = draw_ledger(rng, ops=SPLIT_OPS[split], swaps=int(split == "ood"))
        prompt = prompt_text(ledger)
        if is_held_out(prompt) == (split != "train"):
            return Problem(prompt=prompt, data=ledger)
