"""A run's rollouts: which problems, drawn by which engine, judged, and the same global batch on every rank."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from transformers import PreTrainedTokenizerBase

from megatron_bridge.rank_log import Phase, RankLog
from megatron_bridge.rollout.embedded import EmbeddedEngine
from megatron_bridge.rollout.engine import RolloutEngine, SamplingParams
from megatron_bridge.rollout.served import ServedEngine
from megatron_bridge.run_directory import RunDirectory
from megatron_bridge.run_file import LoadedRun
from megatron_bridge.tasks.base import Task
from megatron_bridge.training.ahead import Ahead, Collected, staleness_of
from megatron_bridge.training.collect import (
    PendingRollouts,
    annotate_rollouts,
    begin_rollouts,
    check_judges,
    finish_rollouts,
    grade_rollouts,
    share,
    withhold,
)
from megatron_bridge.training.data_position import DataPosition
from megatron_bridge.training.evaluate import Evaluation, evaluate
from megatron_bridge.training.policy_answers import PolicyAnswers
from megatron_bridge.training.rollout_buffer import RolloutBuffer
from megatron_bridge.training.timings import Timings
from megatron_bridge.training.together import agreed, gathered, told_by_first
from trace_dsl.plan import Plan

_LARGEST = ("rollout/probe_gap", "perf/sync_seconds")  # the same thing, seen by several ranks


class Sampler:
    """The rollout engine of a run, with its task and its annotator.

    Prompts are shared out over data- and context-parallel ranks: each draws with the whole context.
    """

    def __init__(
        self,
        loaded: LoadedRun,
        plan: Plan,
        directory: RunDirectory,
        model: torch.nn.ModuleList,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        stop_tokens: tuple[int, ...],
        timings: Timings,
        log: RankLog,
    ) -> None:
        self._run, self._task, self._tokenizer = loaded.file, task, tokenizer
        self._stop_tokens, self._timings, self._log = stop_tokens, timings, log
        self._max_context = loaded.shape.max_position
        self._group = parallel_state.get_data_parallel_group(with_context_parallel=True)
        self._engine = _engine(loaded, directory, model)
        policy = PolicyAnswers(self._engine, tokenizer, stop_token_ids=stop_tokens, seed=self._run.seed)
        self._annotator = agreed(lambda: task.annotator(policy))
        agreed(lambda: told_by_first(self._annotator.start))
        self._shown = tuple(dict.fromkeys(t.teacher.sees for t in plan.teachers))
        self._metrics: dict[str, float] = {}
        self._position = DataPosition(identity=agreed(lambda: task.identity(self._run.seed)))
        self._ahead: Ahead | None = None
        self._buffer = RolloutBuffer.of(self._run)

    # ------------------------------------------------------------------------------------------------- checkpoints

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint after `step` optimizer steps carries: the position in the data, and the rollouts that were
        asked for and are not trained on. Collective over all ranks.
        """
        iteration, prompts = step // self._run.minibatches, self._run.rollout.prompts
        begun = {}
        for number, asked in () if self._ahead is None else self._ahead.untrained(iteration):
            mine = asked.pending.so_far()
            if mine is not None:
                begun[number] = [samples for part in gathered(mine, self._group) for samples in part]
        return {
            "data": self._position.state(iteration, prompts),
            "rollouts": self._buffer.state(begun, iteration, self._position.first(iteration, prompts)),
        }

    def restore(self, extra: Mapping[str, Any], step: int) -> None:
        """Go on from `state`. Raises CheckpointError when problems or their order are others."""
        iteration, prompts = step // self._run.minibatches, self._run.rollout.prompts
        self._position = self._position.restored(extra["data"], iteration, prompts)
        self._buffer.restore(extra.get("rollouts"), iteration, self._position.first(iteration, prompts))

    # ---------------------------------------------------------------------------------------------------- rollouts

    def _begin(self, iteration: int) -> PendingRollouts:
        """Ask for the rollouts of an iteration; this rank samples its share of the prompts."""
        rollout = self._run.rollout
        mine = share(rollout.prompts, self._group.rank(), self._group.size())
        first = self._position.first(iteration, rollout.prompts) + mine.start
        begun = self._buffer.take(iteration)
        params = SamplingParams(
            temperature=rollout.temperature,
            max_new_tokens=rollout.max_response_tokens,
            stop_token_ids=self._stop_tokens,
            seed=self._run.seed,
        )
        return agreed(
            lambda: begin_rollouts(
                self._engine,
                self._tokenizer,
                self._task.problems(split="train", seed=self._run.seed, start=first, count=len(mine)),
                range(first, first + len(mine)),
                n=rollout.group_size,
                params=params,
                prompt_format=self._task.prompt_format,
                begun=None if begun is None else begun[mine.start : mine.stop],
            )
        )

    def collect(self, step: int) -> Collected:
        """The global batch of the next iteration, none of its tokens staler than the run file allows.

        Collective over all ranks. Raises TraceError, on every rank, where the data, the engine, the verifier or the
        annotator fails.
        """
        began = time.perf_counter()
        timings, each = self._timings, self._run.minibatches
        if self._ahead is None:
            self._ahead = Ahead(
                self._begin, first=step // each, last=self._run.steps // each, staleness=self._run.rollout.staleness
            )
        self._log.enter(Phase.ROLLOUT, step)
        with timings.part("sync"):
            self._engine.sync(step)
        with timings.part("rollout"):
            asked = self._ahead.take()
            drawn, draw_seconds = agreed(lambda: finish_rollouts(asked, self._tokenizer))
        self._log.enter(Phase.ANNOTATE, step)
        with timings.part("verify"):
            graded = grade_rollouts(self._task, drawn)
        with timings.part("annotate"):
            judged = annotate_rollouts(self._annotator, graded)
        mine = agreed(lambda: withhold(judged, self._task, self._tokenizer, self._shown, self._max_context))
        parts = gathered((mine, self._engine.metrics(), draw_seconds), self._group)
        rollouts = [rollout for part, _, _ in parts for rollout in part]
        self._metrics = over_ranks([metrics for _, metrics, _ in parts])
        check_judges(self._task, rollouts)
        return Collected(
            rollouts=rollouts,
            staleness=staleness_of(rollouts, step=step, minibatches=each, allowed=self._run.rollout.staleness),
            wait_seconds=time.perf_counter() - began,
            draw_seconds=max(seconds for _, _, seconds in parts),
        )

    def evaluate(self, step: int) -> list[Evaluation]:
        """The accuracy of the weights of now on every split, the main one first. Collective over all ranks."""
        with self._timings.part("evaluate"):
            self._engine.sync(step)
            return [
                evaluate(self._engine, self._task, self._tokenizer, self._run, self._stop_tokens, split=split)
                for split in self._run.evaluation.splits
            ]

    def metrics(self) -> dict[str, float]:
        """What happened in the engine, on all ranks, between the last two batches; counts are given once."""
        found = self._metrics
        self._metrics = found | {name: 0.0 for name in found if name != "rollout/probe_gap"}
        return found

    def close(self) -> None:
        """Stop what the run started beside itself."""
        self._engine.close()


def over_ranks(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One set of engine metrics of several ranks: counts are added; of seconds and gaps the largest is taken."""
    names = dict.fromkeys(name for one in metrics for name in one)
    return {name: (max if name in _LARGEST else sum)(one[name] for one in metrics if name in one) for name in names}


def _engine(loaded: LoadedRun, directory: RunDirectory, model: torch.nn.ModuleList) -> RolloutEngine:
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
