"""Teachers: copies of the policy that read a private prompt (arXiv 2605.10194, section 3.1), or other models.

A teacher is held only while the plan can still need it. It is run before the micro-batches, without gradient, on the
sequences that have a token to distil, and gives hidden states of those tokens only, never logits. They wait in host
memory for their micro-batch, so that a device holds those of one at a time, however many a step has.

Legend: T response tokens of a micro-batch, R those that a teacher is wanted for, r those of them that this rank
predicts, H hidden.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from megatron_bridge.device import training_device
from megatron_bridge.losses import TeacherHidden
from megatron_bridge.model.gpt import bare
from megatron_bridge.prompts import encode_prompt
from megatron_bridge.tasks.base import Task
from megatron_bridge.training.collect import Rollout
from megatron_bridge.training.forward import hidden_rows
from megatron_bridge.training.host_memory import OffloadedWeights, in_host_memory
from megatron_bridge.training.microbatch import MicroBatch, Sequences, Share, join
from trace_dsl.lowering import FusedRouting
from trace_dsl.model import Ema, Frozen, ModelTeacher, SelfTeacher, Sync, Teacher
from trace_dsl.plan import Plan
from trace_dsl.plan.measurements import measurements


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherRows:
    """A teacher's hidden states in host memory, at `row_r` of the tokens of a micro-batch that this rank predicts, and
    its output weight."""

    row_r: Tensor
    hidden_rH: Tensor
    output_weight_vH: Tensor

    def for_loss(self) -> TeacherHidden:
        """On the device, for the loss over the tokens that this rank predicts."""
        return TeacherHidden(
            rows_T=self.row_r,
            hidden_RH=self.hidden_rH.to(self.output_weight_vH.device, non_blocking=True),
            output_weight_vH=self.output_weight_vH,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Read:
    """What a teacher reads for one micro-batch; of its sequences' tokens those that are wanted, `number_R` (ascending).

    row_r: which of the tokens that this rank's policy predicts are taught; kept_r: their places among R.
    """

    sequences: Sequences
    number_R: Tensor
    row_r: Tensor
    kept_r: Tensor
    cp: int

    def rows(self, hidden_tH: Tensor) -> Tensor:
        """[r, H] in host memory, from the rows that the teacher has on this rank; the context-parallel ranks have cut
        its sequences at other places than the policy's, so a sum over them fills in the others.
        """
        if self.cp > 1:
            wanted_RH = hidden_tH.new_zeros(len(self.number_R), hidden_tH.shape[1])
            wanted_RH[torch.searchsorted(self.number_R, self.sequences.here_t)] = hidden_tH
            dist.all_reduce(wanted_RH, group=parallel_state.get_context_parallel_group())
            hidden_tH = wanted_RH[self.kept_r]
        return in_host_memory(hidden_tH)


class TeacherModel:
    """One teacher: its weights and the prompt it is given.

    average: a moving average in float32, of which a bfloat16 `model` is a rounded copy: what a step moves it by would
    be lost in bfloat16. offload: the weights stand in host memory and are on the device while the teacher reads; its
    output weight until the step's rows are let go of.
    """

    def __init__(
        self,
        teacher: Teacher,
        model: torch.nn.ModuleList,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        *,
        average: torch.nn.ModuleList | None = None,
        offload: bool = False,
    ) -> None:
        assert (average is not None) == needs_average(teacher, model[-1].config.params_dtype)
        self.teacher = teacher
        self.model = model.eval().requires_grad_(False)
        self._average = None if average is None else average.eval().requires_grad_(False)
        self._task = task
        self._tokenizer = tokenizer
        held = [self.model] if self._average is None else [self.model, self._average]
        self._offloaded = [OffloadedWeights(weights) for weights in held] if offload else []

    def begin(self, student: torch.nn.ModuleList) -> None:
        """Start in the middle of a run: from the student of now, or, frozen, as the policy that the run began with."""
        match self.teacher.source:
            case SelfTeacher(update=Sync() | Ema()):
                _copy(student, self.kept)
                self.after_restore()
            case _:
                pass

    def before_step(self, student: torch.nn.ModuleList, step: int) -> None:
        """Copy the student where `sync` or the start of the run asks for it."""
        match self.teacher.source:
            case ModelTeacher():
                pass
            case SelfTeacher(update=Sync(every)):
                if step % every == 0:
                    _copy(student, self.kept)
            case SelfTeacher(update=Ema() | Frozen()):
                if step == 0:
                    _copy(student, self.kept)
                    self.after_restore()
            case _:
                raise AssertionError(f"a teacher has a source {self.teacher.source} that nobody runs")

    def after_step(self, student: torch.nn.ModuleList) -> None:
        """Follow the student where the teacher is a moving average."""
        match self.teacher.source:
            case SelfTeacher(update=Ema(rate)):
                with torch.no_grad():
                    for mine, new in zip(self.kept.parameters(), student.parameters(), strict=True):
                        here = mine.to(new.device)  # itself, unless it waits in host memory
                        mine.copy_(here.lerp_(new.to(mine.dtype), rate))
                self.after_restore()
            case _:
                pass

    @property
    def offloaded(self) -> bool:
        """Whether its weights wait in host memory."""
        return bool(self._offloaded)

    @property
    def kept(self) -> torch.nn.ModuleList:
        """The weights that a checkpoint carries, those of another model aside."""
        return self.model if self._average is None else self._average

    def after_restore(self) -> None:
        """Make the model that is run of the weights that are kept."""
        if self._average is not None:
            _copy(self._average, self.model)

    def hidden_rows(
        self, micro_batches: Sequence[MicroBatch], wanted: Sequence[Tensor], part: Share
    ) -> list[TeacherRows | None]:
        """For each micro-batch the hidden states at its tokens `wanted` (int64, ascending), or None when there are none
        that this rank predicts.

        On stages before the last every item is None. Collectives: those of the layers; from stage to stage; with
        context parallelism one sum of the rows over cp.
        """
        asked = [number for number, token_t in enumerate(wanted) if len(token_t)]
        reads = [self._read(micro_batches[number], wanted[number], part) for number in asked]
        found: list[TeacherRows | None] = [None] * len(micro_batches)
        if not reads:
            return found
        with self._there():
            rows = hidden_rows(self.model, [read.sequences for read in reads], lambda n, tH: reads[n].rows(tH))
            for number, read, hidden_rH in zip(asked, reads, rows, strict=False):
                if len(hidden_rH):
                    found[number] = TeacherRows(
                        row_r=read.row_r,
                        hidden_rH=hidden_rH,
                        output_weight_vH=bare(self.model[-1]).output_weight().detach(),
                    )
        return found

    def _there(self) -> contextlib.AbstractContextManager[None]:
        """A block in which the model that is run is on the device."""
        return self._offloaded[0].there(training_device()) if self._offloaded else contextlib.nullcontext()

    def _read(self, micro_batch: MicroBatch, token_R: Tensor, part: Share) -> _Read:
        """The rollouts that have a wanted token, behind the teacher's prompt, each up to its last wanted token: no
        hidden state depends on what comes after.
        """
        device = micro_batch.row_T.device
        length_r = torch.tensor([len(rollout.token_ids) for rollout in micro_batch.rollouts], device=device)
        row_R = micro_batch.row_T[token_R]
        place_R = token_R - (length_r.cumsum(0) - length_r)[row_R]
        read_r = torch.zeros_like(length_r).scatter_reduce(0, row_R, place_R + 1, "amax")
        reads = [(rollout, read) for rollout, read in zip(micro_batch.rollouts, read_r.tolist(), strict=True) if read]
        members = [rollout for rollout, _ in reads]
        prompts = [
            encode_prompt(
                self._tokenizer,
                self._task.prompt_format,
                self._task.teacher_prompt(m.problem, m.context(self.teacher.sees)),
            )
            for m in members
        ]
        number_R = (read_r.cumsum(0) - read_r)[row_R] + place_R
        here_t = micro_batch.sequences.here_t
        kept_r = torch.isin(token_R, here_t).nonzero()[:, 0]
        return _Read(
            sequences=join(prompts, [rollout.token_ids[:read] for rollout, read in reads], device, part).only(number_R),
            number_R=number_R,
            row_r=torch.searchsorted(here_t, token_R[kept_r]),
            kept_r=kept_r,
            cp=part.cp,
        )


@torch.no_grad()
def _copy(source: torch.nn.ModuleList, target: torch.nn.ModuleList) -> None:
    """Put the weights of `source`, rounded to the target's precision, into `target`."""
    for mine, new in zip(target.parameters(), source.parameters(), strict=True):
        mine.copy_(new)


def needs_average(teacher: Teacher, dtype: torch.dtype) -> bool:
    """Whether a teacher with weights of `dtype` keeps its moving average beside them."""
    source = teacher.source
    return isinstance(source, SelfTeacher) and isinstance(source.update, Ema) and dtype is torch.bfloat16


def needed_teachers(plan: Plan, step: int) -> list[Teacher]:
    """The teachers that some loss may still need at `step` or later."""
    return [t.teacher for t in plan.teachers if t.last_step >= step]


def sequences_read(plan: Plan, step: int, teacher: str, rollouts: Sequence[Rollout], routing: FusedRouting) -> int:
    """How many rollouts of the global batch a teacher reads in a step."""
    rows = set(routing.row_of_T[routing.teacher_tokens(teacher)].tolist())
    if any(signal.teacher == teacher for signal in measurements(plan, step)):
        (sees,) = (t.teacher.sees for t in plan.teachers if t.teacher.name == teacher)
        rows |= {row for row, rollout in enumerate(rollouts) if rollout.has(sees)}
    return len(rows)


def state_of(teachers: Sequence[TeacherModel], plan: Plan, step: int) -> dict[str, torch.nn.ModuleList]:
    """What a checkpoint carries of teachers: those that `step` or a later one may run and that come from the policy."""
    needed = {teacher.name for teacher in needed_teachers(plan, step)}
    return {
        f"teacher_{t.teacher.name}": t.kept
        for t in teachers
        if t.teacher.name in needed and isinstance(t.teacher.source, SelfTeacher)
    }
