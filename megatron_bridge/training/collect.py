"""One iteration of rollouts: sample groups, verify, annotate, align; then the batch that `lower` reads.

The data-parallel ranks sample their own prompts and then share the results, so every rank knows the whole global
batch:
that is what makes denominators global whatever the layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from megatron_bridge.rollout.align import AlignedText, align, token_spans
from megatron_bridge.rollout.engine import Finish, Pending, RolloutEngine, SamplingParams
from megatron_bridge.tasks.base import Annotation, Problem, Task
from trace_dsl.lowering import RolloutBatch
from trace_dsl.model import Sees
from trace_dsl.terms import Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One sampled response with its verdict. `group` is the global number of its prompt.

    weight_versions: for each token, the optimizer steps behind the weights that drew it.
    """

    group: int
    problem: Problem
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    weight_versions: tuple[int, ...]
    finish: Finish
    aligned: AlignedText
    reward: float
    annotation: Annotation

    @property
    def correct(self) -> bool:
        return self.reward >= 1.0

    def has(self, sees: Sees) -> bool:
        """Whether there is such a context to show a teacher."""
        match sees:
            case Sees.NOTHING | Sees.SOLUTION:
                return True
            case Sees.DIAGNOSIS:
                return self.annotation.diagnosis is not None
            case Sees.SIBLING | Sees.FEEDBACK | Sees.MISMATCHED:
                return False  # no task gives these yet; teacher-context-missing refuses a spec that asks for them
            case _:
                assert_never(sees)


def share(count: int, rank: int, ranks: int) -> range:
    """Which of `count` things a rank handles: a contiguous, equal share."""
    each = count // ranks
    return range(rank * each, (rank + 1) * each)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRollouts:
    """Responses that an engine was asked for."""

    problems: Sequence[Problem]
    keys: Sequence[int]
    prompts: Sequence[tuple[int, ...]]
    pending: Pending


def begin_rollouts(
    engine: RolloutEngine,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    keys: Sequence[int],
    *,
    n: int,
    params: SamplingParams,
) -> PendingRollouts:
    """Ask for `n` responses to each problem."""
    prompts = [tuple(tokenizer.encode(p.prompt, add_special_tokens=False)) for p in problems]
    return PendingRollouts(
        problems=problems, keys=keys, prompts=prompts, pending=engine.start(prompts, n, params, keys=keys)
    )


def finish_rollouts(
    asked: PendingRollouts, task: Task, tokenizer: PreTrainedTokenizerBase, *, annotate: bool = True
) -> tuple[list[Rollout], float]:
    """Wait for the responses, verify and annotate them; also the seconds that drawing them took.

    Rollouts of one problem stand together. Collective where the engine's waiting is.
    """
    drawn = asked.pending.result()
    rollouts = []
    for problem, key, prompt_ids, samples in zip(asked.problems, asked.keys, asked.prompts, drawn.samples, strict=True):
        for sample in samples:
            written = sample.token_ids[:-1] if sample.finish == "stop" else sample.token_ids
            aligned = align(tokenizer, written)
            # a response that was cut has no final answer, whatever its last line looks like
            reward = task.verify(problem, aligned.text) if sample.finish == "stop" else 0.0
            rollouts.append(
                Rollout(
                    group=key,
                    problem=problem,
                    prompt_ids=prompt_ids,
                    token_ids=sample.token_ids,
                    logprobs=sample.logprobs,
                    weight_versions=sample.weight_versions,
                    finish=sample.finish,
                    aligned=aligned,
                    reward=reward,
                    annotation=task.annotate(problem, aligned.text, correct=reward >= 1.0)
                    if annotate
                    else Annotation(),
                )
            )
    return rollouts, drawn.seconds


def gather_rollouts(mine: list[Rollout], group: dist.ProcessGroup) -> list[Rollout]:
    """The rollouts of all data-parallel ranks, in rank order. One all-gather of objects when there are several."""
    if dist.get_world_size(group) == 1:
        return mine
    parts: list[list[Rollout]] = [[] for _ in range(dist.get_world_size(group))]
    dist.all_gather_object(parts, mine, group=group)
    return [rollout for part in parts for rollout in part]


def to_batch(rollouts: Sequence[Rollout], measured: tuple[tuple[Signal, torch.Tensor], ...] = ()) -> RolloutBatch:
    """The facts that `lower` needs of the rollouts of one optimizer step, with the signals measured on them."""
    lengths = [len(r.token_ids) for r in rollouts]
    spans = [span for row, r in enumerate(rollouts) for span in token_spans(row, r.aligned, r.annotation.spans)]
    return RolloutBatch(
        length_R=torch.tensor(lengths, dtype=torch.int64),
        reward_R=torch.tensor([r.reward for r in rollouts], dtype=torch.float64),
        correct_R=torch.tensor([r.correct for r in rollouts], dtype=torch.bool),
        group_R=torch.tensor([r.group for r in rollouts], dtype=torch.int64),
        old_logp_T=torch.tensor([lp for r in rollouts for lp in r.logprobs], dtype=torch.float32),
        from_model_T=torch.ones(sum(lengths), dtype=torch.bool),
        spans=tuple(spans),
        contexts=tuple(
            (sees.value, torch.tensor([r.has(sees) for r in rollouts], dtype=torch.bool))
            for sees in (Sees.DIAGNOSIS, Sees.SOLUTION)
        ),
        measured=measured,
    )
