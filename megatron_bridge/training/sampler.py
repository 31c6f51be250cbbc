"""A run's rollouts: which problems, drawn by which engine, judged, and the same global batch on every rank."""

from __future__ import annotations

import time

import torch
from megatron.core import parallel_state
from transformers import PreTrainedTokenizerBase

from megatron_bridge.rollout.embedded import EmbeddedEngine
from megatron_bridge.rollout.engine import RolloutEngine, SamplingParams
from megatron_bridge.rollout.served import ServedEngine
from megatron_bridge.run_directory import RunDirectory
from megatron_bridge.run_file import LoadedRun
from megatron_bridge.tasks.base import Task
from megatron_bridge.training.ahead import Ahead, Collected, staleness_of
from megatron_bridge.training.collect import (
    PendingRollouts,
    Rollout,
    begin_rollouts,
    check_judges,
    finish_rollouts,
    gather_rollouts,
    judge_rollouts,
    share,
    told_by_first,
    withhold,
)
from megatron_bridge.training.data_position import DataPosition
from megatron_bridge.training.evaluate import Evaluation, evaluate
from megatron_bridge.training.policy_answers import PolicyAnswers
from trace_dsl.plan import Plan


class Sampler:
    """The rollout engine of a run, with its task and its annotator.

    Prompts are shared out over data- and context-parallel ranks: each draws with the whole context.
    """

    def __init__(
        self,
        loaded: LoadedRun,
        plan: Plan,
        directory: RunDirectory,
        model: torch.nn.Module,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        stop_tokens: tuple[int, ...],
    ) -> None:
        self._run, self._task, self._tokenizer = loaded.file, task, tokenizer
        self._stop_tokens = stop_tokens
        self._max_context = loaded.shape.max_position
        self._group = parallel_state.get_data_parallel_group(with_context_parallel=True)
        self._engine = _engine(loaded, directory, model)
        self._annotator = task.annotator(
            PolicyAnswers(
                self._engine,
                tokenizer,
                stop_token_ids=stop_tokens,
                seed=self._run.seed,
                max_context=self._max_context,
            )
        )
        told_by_first(self._annotator.start)
        self._shown = tuple(dict.fromkeys(t.teacher.sees for t in plan.teachers))
        self.position = DataPosition(digest=task.digest)

    def ahead(self, step: int) -> Ahead:
        """The iterations that are left after `step` optimizer steps."""
        each = self._run.minibatches
        return Ahead(
            self._begin, first=step // each, last=self._run.steps // each, staleness=self._run.rollout.staleness
        )

    def _begin(self, iteration: int) -> PendingRollouts:
        """Ask for the rollouts of an iteration; this rank samples its share of the prompts."""
        rollout = self._run.rollout
        mine = share(rollout.prompts, self._group.rank(), self._group.size())
        first = self.position.first(iteration, rollout.prompts) + mine.start
        return begin_rollouts(
            self._engine,
            self._tokenizer,
            self._task.problems(split="train", seed=self._run.seed, start=first, count=len(mine)),
            range(first, first + len(mine)),
            n=rollout.group_size,
            params=SamplingParams(
                temperature=rollout.temperature,
                max_new_tokens=rollout.max_response_tokens,
                stop_token_ids=self._stop_tokens,
                seed=self._run.seed,
            ),
            prompt_format=self._task.prompt_format,
        )

    def collect(self, ahead: Ahead, step: int) -> Collected:
        """The global batch of the next iteration, none of its tokens staler than the run file allows.

        Collective over all ranks. Raises TraceError, on every rank, where the engine, the verifier or the annotator
        fails.
        """
        began = time.perf_counter()
        self._engine.sync(step)
        drawn, draw_seconds = finish_rollouts(ahead.take(), self._tokenizer)

        def judged() -> list[Rollout]:
            rollouts = judge_rollouts(self._task, drawn, self._annotator)
            return withhold(rollouts, self._task, self._tokenizer, self._shown, self._max_context)

        rollouts = gather_rollouts(judged, self._group)
        check_judges(self._task, rollouts)
        return Collected(
            rollouts=rollouts,
            staleness=staleness_of(
                rollouts, step=step, minibatches=self._run.minibatches, allowed=self._run.rollout.staleness
            ),
            wait_seconds=time.perf_counter() - began,
            draw_seconds=draw_seconds,
        )

    def evaluate(self, step: int) -> Evaluation:
        """The accuracy of the weights of now. Collective over all ranks."""
        self._engine.sync(step)
        return evaluate(self._engine, self._task, self._tokenizer, self._run, self._stop_tokens)

    def metrics(self) -> dict[str, float]:
        """What happened in the engine since the last call, by metric name."""
        return self._engine.metrics()

    def close(self) -> None:
        """Stop what the run started beside itself."""
        self._engine.close()


def _engine(loaded: LoadedRun, directory: RunDirectory, model: torch.nn.Module) -> RolloutEngine:
    rollout, shape = loaded.file.rollout, loaded.shape
    if rollout.engine == "sglang":
        return ServedEngine(
            model,
            shape=shape,
            policy=loaded.policy_path,
            settings=rollout,
            directory=directory.path,
            seed=loaded.file.seed,
        )
    return EmbeddedEngine(
        model, vocab_size=shape.vocab_size, max_context=shape.max_position, max_batch=rollout.max_batch
    )
