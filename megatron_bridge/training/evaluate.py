"""Accuracy on held-out problems, sampled with seeds that do not depend on training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch.distributed as dist
from megatron.core import parallel_state
from transformers import PreTrainedTokenizerBase

from megatron_bridge.rollout.engine import RolloutEngine, SamplingParams
from megatron_bridge.run_file import RunFile
from megatron_bridge.tasks.base import Task
from megatron_bridge.training.collect import (
    begin_rollouts,
    check_judges,
    finish_rollouts,
    judge_rollouts,
    share,
)
from megatron_bridge.training.together import agreed, gathered

SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Accuracy over `problems` held-out problems of a split, and the first few responses for people to read.

    solved: a 1 or a 0 for each problem, in their order.
    """

    split: str
    accuracy: float
    problems: int
    solved: str
    mean_tokens: float
    examples: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    engine: RolloutEngine,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    run: RunFile,
    stop: tuple[int, ...],
    *,
    split: str,
) -> Evaluation:
    """Sample one response to each held-out problem of a split: the same problems at every call, and with the embedded
    engine the same random numbers.

    Collective over all ranks. Raises TraceError, on every rank.
    """
    settings = run.evaluation
    dp_group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    dp = dist.get_world_size(dp_group)
    padded = -(-settings.problems // dp) * dp
    mine = [i for i in share(padded, dist.get_rank(dp_group), dp) if i < settings.problems]
    params = SamplingParams(
        temperature=run.rollout.temperature,
        max_new_tokens=run.rollout.max_response_tokens,
        stop_token_ids=stop,
        seed=settings.seed,
    )
    asked = agreed(
        lambda: begin_rollouts(
            engine,
            tokenizer,
            [task.problems(split=split, seed=settings.seed, start=i, count=1)[0] for i in mine],
            mine,
            n=1,
            params=params,
            prompt_format=task.prompt_format,
        )
    )
    drawn, _ = agreed(lambda: finish_rollouts(asked, tokenizer))
    parts = gathered(judge_rollouts(task, drawn, None), dp_group)
    rollouts = [rollout for part in parts for rollout in part]
    check_judges(task, rollouts)
    solved = [r.reward >= 1.0 for r in rollouts]
    return Evaluation(
        split=split,
        accuracy=sum(solved) / len(solved),
        problems=len(rollouts),
        solved="".join(str(int(one)) for one in solved),
        mean_tokens=sum(len(r.token_ids) for r in rollouts) / len(rollouts),
        examples=tuple(
            {"prompt": r.problem.prompt, "response": r.aligned.text, "correct": r.correct} for r in rollouts[:SHOWN]
        ),
    )
