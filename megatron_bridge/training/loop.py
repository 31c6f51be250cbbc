"""The main loop: sample, lower, train, record, save; until the last step or an agreed stop.

`step` counts optimizer steps done. Everything random is a pure function of the run's seed and of what is being
drawn, so a run that goes on from a checkpoint repeats the unbroken run exactly.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from megatron_bridge.checkpoint import load_checkpoint
from megatron_bridge.checkpoint_files import ACCURACY
from megatron_bridge.chunk_rows import largest_chunk
from megatron_bridge.device import training_device
from megatron_bridge.model.hf import save_hf
from megatron_bridge.model.rope import forget_rotary
from megatron_bridge.model.shape import padded_vocab
from megatron_bridge.rank_log import Phase, RankLog
from megatron_bridge.run_directory import RunDirectory, meta_of
from megatron_bridge.run_file import LoadedRun
from megatron_bridge.tasks.base import Task
from megatron_bridge.training.ahead import Collected
from megatron_bridge.training.best import keep_evaluation
from megatron_bridge.training.carried import check_complete
from megatron_bridge.training.collect import Rollout, to_batch
from megatron_bridge.training.evaluate import Evaluation
from megatron_bridge.training.flops import Compute
from megatron_bridge.training.interrupt import Interrupt
from megatron_bridge.training.measure import channel_names, step_metrics
from megatron_bridge.training.microbatch import MicroBatch, Share, cut
from megatron_bridge.training.models import make_policy, make_teacher
from megatron_bridge.training.optimize import Trainer, make_trainer, train_step
from megatron_bridge.training.profiling import StepProfiler
from megatron_bridge.training.records import Records
from megatron_bridge.training.route_metrics import with_exposure
from megatron_bridge.training.sampler import Sampler
from megatron_bridge.training.saving import Saving
from megatron_bridge.training.signals import measure
from megatron_bridge.training.stopped import NotFinite, StoppedBatch, stop
from megatron_bridge.training.teacher import (
    TeacherModel,
    TeacherUsage,
    needed_teachers,
    sequences_read,
    state_of,
)
from megatron_bridge.training.timings import Timings, time_metrics
from trace_dsl.lowering import FusedRouting, Lowered, RolloutBatch, lower
from trace_dsl.plan import Plan
from trace_dsl.plan.measurements import measurements, needs_proximal
from trace_dsl.terms import Rank, Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How training ended. `finished` is False after an agreed stop; `step` optimizer steps are done."""

    finished: bool
    step: int
    before: Evaluation
    after: Evaluation | None
    teachers: dict[str, TeacherUsage]


class Loop:
    """One run on this rank: the policy, its teachers and the state that a checkpoint carries."""

    def __init__(
        self,
        loaded: LoadedRun,
        plan: Plan,
        directory: RunDirectory,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        stop_tokens: tuple[int, ...],
        interrupt: Interrupt,
        log: RankLog,
    ) -> None:
        self._loaded, self._run, self._plan, self._directory = loaded, loaded.file, plan, directory
        self._task, self._tokenizer = task, tokenizer
        self._interrupt, self._log = interrupt, log
        self._device = training_device()
        self._profiler = StepProfiler(self._run.profile, directory.path, rank=dist.get_rank())
        self._timings = Timings(self._profiler.mark)
        self._part = Share(
            dp_rank=parallel_state.get_data_parallel_rank(),
            dp=parallel_state.get_data_parallel_world_size(),
            cp_rank=parallel_state.get_context_parallel_rank(),
            cp=parallel_state.get_context_parallel_world_size(),
            multiple=self._run.layout.layout.sequence_multiple,
            pack_tokens=self._run.pack_tokens,
            fewest=self._run.layout.layout.fewest_micro_batches,
        )
        self._trainer: Trainer = make_trainer(make_policy(self._loaded), self._run.optim, self._run.steps)
        self._saving = Saving(directory.checkpoints, self._run.checkpoint, self._trainer, self._timings)
        self._compute = Compute.here(loaded)
        self._sampler = Sampler(
            loaded, plan, directory, self._trainer.model, task, tokenizer, stop_tokens, self._timings, log
        )
        self._step = 0
        self._trained_tokens = 0
        self._exposure: dict[str, float] = {}
        self._latches: dict[str, bool] = {}
        self._before: Evaluation | None = None
        self._evaluated = 0, 0.0  # step and accuracy of the last evaluation
        self._owes_evaluation = False
        self._teachers: list[TeacherModel] = []
        self._usage = {t.teacher.name: TeacherUsage() for t in plan.teachers}
        self._restore()

    # -------------------------------------------------------------------------------------------------------- running

    def train(self, records: Records | None) -> Outcome:
        """Run to the last step, or until the ranks agree on a stop. `records` is None on all ranks but the first."""
        run = self._run
        if records is not None:
            shard = padded_vocab(self._loaded.shape.vocab_size, run.layout.tp) // run.layout.tp
            rows = run.chunk_rows or largest_chunk(shard, self._device.type)
            records.note(f"the loss holds at most {rows} rows of {shard} logits at a time (chunk_rows)")
        if self._before is None:
            self._before = self._evaluate(records)
        if self._owes_evaluation:  # the run was killed between saving and evaluating
            self._evaluate(records)
            self._keep_evaluation()
        while self._step < run.steps:
            if self._interrupt.agreed(self._device):
                self._save()
                return self._outcome(None)
            self._saving.finish_written()
            self._profiler.at(self._step)
            collected = self._sampler.collect(self._step)
            if self._interrupt.agreed(self._device):
                self._save()
                return self._outcome(None)
            each = len(collected.rollouts) // run.minibatches
            self._log.enter(Phase.TRAIN, self._step)
            parts = [collected.rollouts[m * each : (m + 1) * each] for m in range(run.minibatches)]
            began = time.perf_counter()
            proximal = self._proximal_logp(parts)
            proximal_seconds = (time.perf_counter() - began) / run.minibatches
            for part, proximal_logp_T in zip(parts, proximal, strict=True):
                self._optimize(part, proximal_logp_T, proximal_seconds, collected, records)
            self._save_when_due()
            if run.evaluation.every and self._step % run.evaluation.every == 0 and self._step < run.steps:
                self._evaluate(records)
                self._keep_evaluation()
        self._profiler.close(self._step)
        after = self._evaluate(records)
        self._keep_evaluation()
        save_hf(self._trainer.model, self._loaded.shape, self._loaded.policy_path, self._directory.model)
        return self._outcome(after)

    def _proximal_logp(self, parts: Sequence[Sequence[Rollout]]) -> list[Tensor | None]:
        """For each mini-batch of an iteration the policy's log-probs before its updates, None when no loss reads
        them."""
        if not needs_proximal(self._plan, range(self._step, self._step + len(parts))):
            return [None] * len(parts)
        logp = Signal(name="logp", rank=Rank.TOKEN)
        return [dict(self._measure(frozenset({logp}), part))[logp] for part in parts]

    def _optimize(
        self,
        rollouts: Sequence[Rollout],
        proximal_logp_T: Tensor | None,
        proximal_seconds: float,
        collected: Collected,
        records: Records | None,
    ) -> None:
        """One optimizer step on `rollouts`, its metrics and its records.

        Raises NotFiniteError, on every rank and before a weight is changed, where its loss or gradient is not finite.
        """
        run, step = self._run, self._step
        self._profiler.at(step)
        began = time.perf_counter()
        self._keep_needed_teachers()
        for teacher in self._teachers:
            teacher.before_step(self._trainer.model, step)
        batch, lowered, micro_batches = self._lower(rollouts, proximal_logp_T)
        result = train_step(
            self._trainer,
            micro_batches,
            self._teachers,
            self._part,
            temperature=run.rollout.temperature,
            vocab_size=self._loaded.shape.vocab_size,
            chunk_rows=run.chunk_rows,
            timings=self._timings,
        )
        if isinstance(result, NotFinite):
            stopped = StoppedBatch(
                step=step,
                rollouts=tuple(rollouts),
                lowered=lowered,
                proximal_logp_T=proximal_logp_T,
                found=result,
            )
            error = stop(self._directory.path, stopped, channel_names(self._plan, lowered))
            self._saving.finish()
            raise error
        for teacher in self._teachers:
            teacher.after_step(self._trainer.model)
        self._latches = lowered.latches
        self._usage = {
            name: usage.after(step, sequences_read(self._plan, step, name, rollouts, lowered.routing))
            for name, usage in self._usage.items()
        }
        self._trained_tokens += sum(len(r.token_ids) for r in rollouts)
        self._exposure = with_exposure(self._exposure, self._plan, lowered)
        self._step += 1
        seconds, train_seconds = self._timings.take(), time.perf_counter() - began + proximal_seconds
        if records is not None:
            records.step(
                step,
                step_metrics(
                    self._plan,
                    rollouts,
                    lowered,
                    result,
                    step=step,
                    trained_tokens=self._trained_tokens,
                    exposure=self._exposure,
                    teacher_ran=any(usage.last_step == step for usage in self._usage.values()),
                    sample_seconds=collected.wait_seconds / run.minibatches,
                    draw_seconds=collected.draw_seconds / run.minibatches,
                    train_seconds=train_seconds,
                    staleness=collected.staleness,
                )
                | time_metrics(seconds)
                | self._compute.metrics(rollouts, train_seconds)
                | self._sampler.metrics(),
            )
            if step % run.save_rollouts_every == 0:
                records.rollouts(step, rollouts, batch, lowered)

    def _measure(self, signals: frozenset[Signal], rollouts: Sequence[Rollout]) -> tuple[tuple[Signal, Tensor], ...]:
        """The signals under the weights of now, over the response tokens of `rollouts`."""
        tokens = sum(len(r.token_ids) for r in rollouts)
        with self._timings.part("measure"):
            return measure(
                signals,
                self._trainer.model,
                self._teachers,
                self._cut(rollouts, FusedRouting.empty(tokens)),
                self._part,
                tokens=tokens,
                temperature=self._run.rollout.temperature,
                vocab_size=self._loaded.shape.vocab_size,
            )

    def _lower(
        self, rollouts: Sequence[Rollout], proximal_logp_T: Tensor | None
    ) -> tuple[RolloutBatch, Lowered, list[MicroBatch]]:
        """The step's batch with what the plan reads of it measured, its fused weights, this rank's micro-batches."""
        signals = measurements(self._plan, self._step)
        batch = to_batch(rollouts, self._measure(signals, rollouts) if signals else ())
        lowered = lower(
            self._plan,
            batch,
            self._step,
            tokens=self._trained_tokens,
            latches=self._latches,
            seed=self._run.seed,
        )
        return batch, lowered, self._cut(rollouts, lowered.routing, proximal_logp_T)

    def _cut(
        self, rollouts: Sequence[Rollout], routing: FusedRouting, proximal_logp_T: Tensor | None = None
    ) -> list[MicroBatch]:
        return cut(
            rollouts,
            routing,
            proximal_logp_T,
            micro_batch=self._run.micro_batch,
            part=self._part,
            device=self._device,
            version=self._step,
        )

    def _evaluate(self, records: Records | None) -> Evaluation:
        self._log.enter(Phase.EVALUATE, self._step)
        evaluations = self._sampler.evaluate(self._step)
        self._evaluated = self._step, evaluations[0].accuracy
        if records is not None:
            records.evaluation(self._step, evaluations)
        return evaluations[0]

    # ------------------------------------------------------------------------------------------------ teachers, state

    def close(self) -> None:
        """Stop what the run started beside itself."""
        self._profiler.close(self._step)
        self._sampler.close()

    def _keep_needed_teachers(self) -> None:
        """Make the teachers that this step or a later one may need, and let go of the others."""
        held = {t.teacher.name: t for t in self._teachers}
        needed = needed_teachers(self._plan, self._step)
        # in the plan's order: every rank runs the teachers' collectives in the order of this list
        self._teachers = [
            held.get(teacher.name) or make_teacher(teacher, self._loaded, self._task, self._tokenizer)
            for teacher in needed
        ]
        if held.keys() - {teacher.name for teacher in needed}:
            forget_rotary()

    def _state(self) -> dict[str, Any]:
        return {"policy": self._trainer.model, **state_of(self._teachers, self._plan, self._step)}

    def _save_when_due(self) -> None:
        every = self._run.checkpoint.every
        if self._step == self._run.steps or (every and self._step % every == 0):
            self._save()

    def _save(self) -> None:
        if self._step == 0:
            return  # the policy's own directory is that state
        assert self._before is not None
        self._log.enter(Phase.SAVE, self._step)
        extra = {
            "trained_tokens": self._trained_tokens,
            "exposure": self._exposure,
            "latches": self._latches,
            "before": self._before.to_json(),
            "teachers": {name: asdict(usage) for name, usage in self._usage.items()},
            **self._sampler.state(self._step),
        }
        meta = meta_of(self._loaded, self._plan)
        if self._evaluated[0] == self._step:
            meta[ACCURACY] = self._evaluated[1]
        self._saving.begin(self._step, self._state(), extra=extra, meta=meta)

    def _keep_evaluation(self) -> None:
        self._saving.finish()
        keep_evaluation(self._directory.checkpoints, *self._evaluated, self._save, best=self._run.checkpoint.best)

    def _restore(self) -> None:
        checkpoint = self._directory.resume_from
        if checkpoint is None:
            self._keep_needed_teachers()
            return
        self._step = int(checkpoint.name.removeprefix("step_"))
        self._keep_needed_teachers()
        change = self._directory.change
        models = self._state()
        if change is not None:
            held = {"policy", *(f"teacher_{name}" for name in change.kept)}
            models = {name: model for name, model in models.items() if name in held}
        restored = load_checkpoint(
            checkpoint,
            models=models,
            optimizer=self._trainer.optimizer,
            scheduler=self._trainer.scheduler,
        )
        for teacher in self._teachers:
            teacher.after_restore()
        check_complete(checkpoint, restored.extra)
        every = self._run.evaluation.every
        due = every and self._step % every == 0 and self._step < self._run.steps
        self._owes_evaluation = bool(due) and ACCURACY not in restored.meta
        self._evaluated = (self._step, restored.meta[ACCURACY]) if ACCURACY in restored.meta else (0, 0.0)
        before = restored.extra["before"]
        self._before = Evaluation(**{**before, "examples": tuple(before["examples"])})
        self._trained_tokens = restored.extra["trained_tokens"]
        self._exposure = restored.extra["exposure"]
        self._latches = restored.extra["latches"]
        self._sampler.restore(restored.extra, self._step)
        self._usage |= {name: TeacherUsage(**usage) for name, usage in restored.extra["teachers"].items()}
        if change is not None:
            for teacher in self._teachers:
                if teacher.teacher.name not in change.kept:
                    teacher.begin(self._trainer.model)

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self._step

    def _outcome(self, after: Evaluation | None) -> Outcome:
        assert self._before is not None
        self._saving.finish()
        return Outcome(
            finished=after is not None,
            step=self._step,
            before=self._before,
            after=after,
            teachers=self._usage,
        )
