"""Self-teachers: copies of the policy that read a private prompt (arXiv 2605.10194, section 3.1).

A teacher is held only while the plan can still need it. It is run inside the micro-batch that uses it, without
gradient, on the sequences that have a token to distil, and gives hidden states only, never logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from megatron_bridge.losses import TeacherHidden
from megatron_bridge.model.gpt import RoutedGPTModel, bare
from megatron_bridge.prompts import encode_prompt
from megatron_bridge.tasks.base import Task
from megatron_bridge.training.microbatch import MicroBatch, pack
from trace_dsl.model import Ema, Frozen, SelfTeacher, Sync, Teacher
from trace_dsl.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherUsage:
    """How often a teacher has been run, over all ranks: steps, sequences read, the last step (-1: never)."""

    steps: int = 0
    sequences: int = 0
    last_step: int = -1

    def after(self, step: int, sequences: int) -> TeacherUsage:
        """The usage with one more step, in which the teacher read so many sequences of the global batch."""
        if sequences == 0:
            return self
        return TeacherUsage(steps=self.steps + 1, sequences=self.sequences + sequences, last_step=step)


class SelfTeacherModel:
    """One self-teacher: its weights and the prompt it is given."""

    def __init__(
        self,
        teacher: Teacher,
        model: RoutedGPTModel,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.teacher = teacher
        self.model = model.eval().requires_grad_(False)
        self._task = task
        self._tokenizer = tokenizer

    def before_step(self, student: torch.nn.Module, step: int) -> None:
        """Copy the student where `sync` or the start of the run asks for it."""
        match self._update:
            case Sync(every):
                if step % every == 0:
                    self._copy(student)
            case Ema() | Frozen():
                if step == 0:
                    self._copy(student)
            case _:
                assert_never(self._update)

    def after_step(self, student: torch.nn.Module) -> None:
        """Follow the student where the teacher is a moving average."""
        if isinstance(self._update, Ema):
            with torch.no_grad():
                for mine, new in zip(self.model.parameters(), bare(student).parameters(), strict=True):
                    mine.lerp_(new.to(mine.dtype), self._update.rate)

    def hidden_rows(self, micro_batch: MicroBatch, token_t: Tensor) -> TeacherHidden | None:
        """Hidden states at `token_t` (int64 indices into a micro-batch's tokens), or None when there are none."""
        if len(token_t) == 0:
            return None
        device = micro_batch.target_T.device
        row_t = micro_batch.sequences.row_T[token_t]
        rows = row_t.unique().tolist()
        members = [micro_batch.rollouts[row] for row in rows]
        prompts = [
            encode_prompt(
                self._tokenizer,
                self._task.prompt_format,
                self._task.teacher_prompt(m.problem, m.context(self.teacher.sees)),
            )
            for m in members
        ]
        sequences = pack(prompts, [m.token_ids for m in members], device)
        with torch.no_grad():
            hidden_sbH = self.model(sequences.ids_bs, sequences.positions_bs, None, return_hidden=True)
        # place of each wanted token: its row's first response place plus its index within the response
        first_r = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        student_first = torch.tensor([len(m.prompt_ids) - 1 for m in members], device=device)
        index_of_row = torch.full((len(micro_batch.rollouts),), -1, device=device)
        index_of_row[torch.tensor(rows, device=device)] = torch.arange(len(rows), device=device)
        member_t = index_of_row[row_t]
        at_t = micro_batch.sequences.at_T[token_t] - student_first[member_t] + first_r[member_t]
        return TeacherHidden(
            rows_T=token_t,
            hidden_RH=hidden_sbH[at_t, member_t],
            output_weight_vH=self.model.output_weight().detach(),
        )

    @property
    def _update(self) -> Sync | Ema | Frozen:
        assert isinstance(self.teacher.source, SelfTeacher)
        return self.teacher.source.update

    def _copy(self, student: torch.nn.Module) -> None:
        with torch.no_grad():
            for mine, new in zip(self.model.parameters(), bare(student).parameters(), strict=True):
                mine.copy_(new)


def needed_teachers(plan: Plan, step: int) -> list[Teacher]:
    """The teachers that some loss may still need at `step` or later."""
    return [t.teacher for t in plan.teachers if t.last_step >= step]
