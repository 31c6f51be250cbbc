"""One iteration of rollouts: sample groups, verify, annotate, align; then the batch that `lower` reads.

The data-parallel ranks sample their own prompts and then share the results, so every rank knows the whole global
batch: that is what makes denominators global whatever the layout. What a verifier or a server says is asked for by one
rank of a copy of the model and told to the others: they must not train on different answers. What fails on one rank
fails on all, with one error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import torch
from megatron.core import parallel_state
from transformers import PreTrainedTokenizerBase

from megatron_bridge.annotate.run import check_annotations
from megatron_bridge.annotation import Annotation, Annotator, Problem, Written
from megatron_bridge.contexts import Context, Diagnosis, Feedback, Sibling, Solution
from megatron_bridge.prompts import encode_prompt
from megatron_bridge.rollout.align import AlignedText, align, token_spans
from megatron_bridge.rollout.engine import Begun, Finish, Pending, RolloutEngine, SamplingParams
from megatron_bridge.tasks.base import PromptFormat, Task
from megatron_bridge.training.together import agreed, told_by_first
from megatron_bridge.verify.grade import Grade, check_failures
from trace_dsl.lowering import RolloutBatch
from trace_dsl.model import PLAIN_ROWS, UNJUDGED_ROWS, Sees
from trace_dsl.terms import Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One sampled response with its verdict. `group` is the global number of its prompt.

    reason, verifier_failure: what the verifier said, or why it could not; sibling: another response of the group that
    is correct; feedback: what a teacher may be told of the verdict; withheld: contexts that do not fit the model's;
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
    reason: str = ""
    verifier_failure: str | None = None
    sibling: str | None = None
    feedback: str | None = None
    withheld: frozenset[Sees] = frozenset()

    @property
    def correct(self) -> bool:
        return self.reward >= 1.0

    @property
    def judged(self) -> bool:
        """Whether the verifier had its say; nothing is trained on a response of which it had none."""
        return self.verifier_failure is None

    def context(self, sees: Sees) -> Context | None:
        """What a teacher that sees this is shown of it, None where there is nothing to show."""
        if sees in self.withheld:
            return None
        match sees:
            case Sees.NOTHING | Sees.MISMATCHED:
                return (
                    None  # no task gives a mismatched prompt; teacher-context-missing refuses a spec that asks for it
                )
            case Sees.DIAGNOSIS:
                kind = self.annotation.diagnosis
                return None if kind is None else Diagnosis(kind)
            case Sees.SOLUTION:
                return None if self.problem.solution is None else Solution(self.problem.solution)
            case Sees.SIBLING:
                return None if self.sibling is None else Sibling(self.sibling)
            case Sees.FEEDBACK:
                return None if self.feedback is None else Feedback(self.feedback)
            case _:
                assert_never(sees)

    def has(self, sees: Sees) -> bool:
        """Whether there is such a context to show a teacher."""
        return sees is Sees.NOTHING or self.context(sees) is not None


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
    prompt_format: PromptFormat,
    begun: Sequence[Sequence[Begun]] | None = None,
) -> PendingRollouts:
    """Ask for `n` responses to each problem, of which `begun` is there already. Raises PromptError, on this rank
    alone.
    """
    prompts = [encode_prompt(tokenizer, prompt_format, p.prompt) for p in problems]
    return PendingRollouts(
        problems=problems, keys=keys, prompts=prompts, pending=engine.start(prompts, n, params, keys=keys, begun=begun)
    )


def finish_rollouts(asked: PendingRollouts, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Rollout], float]:
    """Wait for the responses, not judged yet; also the seconds that drawing them took.

    Rollouts of one problem stand together. Collective where the engine's waiting is.
    """
    drawn = asked.pending.result()
    rollouts = []
    for problem, key, prompt_ids, samples in zip(asked.problems, asked.keys, asked.prompts, drawn.samples, strict=True):
        for sample in samples:
            written = sample.token_ids[:-1] if sample.finish == "stop" else sample.token_ids
            rollouts.append(
                Rollout(
                    group=key,
                    problem=problem,
                    prompt_ids=prompt_ids,
                    token_ids=sample.token_ids,
                    logprobs=sample.logprobs,
                    weight_versions=sample.weight_versions,
                    finish=sample.finish,
                    aligned=align(tokenizer, written),
                    reward=0.0,
                    annotation=Annotation(),
                )
            )
    return rollouts, drawn.seconds


def judge_rollouts(task: Task, rollouts: list[Rollout], annotator: Annotator | None) -> list[Rollout]:
    """The rollouts with their verdicts, and with annotations where there is an annotator; groups stand together.

    Collectives: broadcasts of verdicts and annotations (tp x pp), those of the engine where the policy is asked, and
    two agreements of all ranks, so that nobody waits for the policy's answers beside a rank whose verifier failed.
    Raises TraceError, on every rank.
    """
    graded = grade_rollouts(task, rollouts)
    return graded if annotator is None else annotate_rollouts(annotator, graded)


def grade_rollouts(task: Task, rollouts: list[Rollout]) -> list[Rollout]:
    """The first half of `judge_rollouts`: the verdicts."""
    return agreed(lambda: _graded(task, rollouts))


def annotate_rollouts(annotator: Annotator, rollouts: list[Rollout]) -> list[Rollout]:
    """The second half of `judge_rollouts`: the annotations of what has a verdict."""
    return agreed(lambda: _annotated(annotator, rollouts))


def _graded(task: Task, rollouts: list[Rollout]) -> list[Rollout]:
    """The rollouts with their verdicts, and what these give a teacher to see."""
    # a response that was cut has no final answer, whatever its last line looks like
    ended = [n for n, rollout in enumerate(rollouts) if rollout.finish == "stop"]
    grades = [Grade(reward=0.0, reason="the response was cut")] * len(rollouts)
    found = told_by_first(lambda: task.grade([(rollouts[n].problem, rollouts[n].aligned.text) for n in ended]))
    for n, grade in zip(ended, found, strict=True):
        grades[n] = grade
    graded = [
        replace(
            rollout,
            reward=grade.reward,
            reason=grade.reason,
            verifier_failure=grade.failure,
            feedback=grade.reason or None if grade.failure is None and "feedback" in task.contexts else None,
        )
        for rollout, grade in zip(rollouts, grades, strict=True)
    ]
    return _with_siblings(graded) if "sibling" in task.contexts else graded


def _with_siblings(rollouts: list[Rollout]) -> list[Rollout]:
    """Each rollout with the next correct one of its group, in a circle; none for the only correct one."""
    members: dict[int, list[int]] = {}
    for n, rollout in enumerate(rollouts):
        members.setdefault(rollout.group, []).append(n)
    result = list(rollouts)
    for numbers in members.values():
        for place, n in enumerate(numbers):
            others = (rollouts[m] for m in (*numbers[place + 1 :], *numbers[:place]))
            sibling = next((other.aligned.text for other in others if other.correct), None)
            result[n] = replace(rollouts[n], sibling=sibling)
    return result


def _annotated(annotator: Annotator, rollouts: list[Rollout]) -> list[Rollout]:
    """The rollouts with annotations; those without a verdict have none."""
    judged = [n for n, r in enumerate(rollouts) if r.judged]
    written = [
        Written(problem=r.problem, response=r.aligned.text, correct=r.correct) for r in (rollouts[n] for n in judged)
    ]
    everywhere = len(rollouts) * parallel_state.get_data_parallel_world_size(with_context_parallel=True)
    if annotator.asks_policy:
        annotations = annotator.annotate(written, of=everywhere)
    else:
        annotations = told_by_first(lambda: annotator.annotate(written, of=everywhere))
    result = list(rollouts)
    for n, annotation in zip(judged, annotations, strict=True):
        result[n] = replace(rollouts[n], annotation=annotation)
    return result


def withhold(
    rollouts: Sequence[Rollout],
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    shown: Sequence[Sees],
    max_context: int,
) -> list[Rollout]:
    """The rollouts without the contexts among `shown` whose prompt and response would not fit `max_context` tokens."""
    result = []
    for rollout in rollouts:
        too_long = set()
        for sees in shown:
            context = rollout.context(sees)
            if context is not None:
                prompt = encode_prompt(tokenizer, task.prompt_format, task.teacher_prompt(rollout.problem, context))
                if len(prompt) + len(rollout.token_ids) > max_context:
                    too_long.add(sees)
        result.append(replace(rollout, withheld=frozenset(too_long)) if too_long else rollout)
    return result


def check_judges(task: Task, rollouts: Sequence[Rollout]) -> None:
    """Raises TraceError when verifier or annotator failed on more of the rollouts than the run allows."""
    verifier_limit, annotator_limit = task.max_failures
    grades = [Grade(reward=r.reward, reason=r.reason, failure=r.verifier_failure) for r in rollouts]
    check_failures(grades, limit=verifier_limit)
    check_annotations([r.annotation for r in rollouts], limit=annotator_limit)


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
        source_R=tuple(PLAIN_ROWS if r.judged else UNJUDGED_ROWS for r in rollouts),
        contexts=tuple(
            (sees.value, torch.tensor([r.has(sees) for r in rollouts], dtype=torch.bool))
            for sees in (Sees.DIAGNOSIS, Sees.SOLUTION, Sees.SIBLING, Sees.FEEDBACK)
        ),
        measured=measured,
    )
