"""Responses that the verifier could not judge: nothing is learned from them, and nobody else's advantage sees them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from megatron_bridge.annotation import AnnotatedSpan, Annotation, Problem, Written
from megatron_bridge.model.shape import Layout
from megatron_bridge.parallel import start_parallel, stop_parallel
from megatron_bridge.prepare import prepare_run
from megatron_bridge.rollout.align import AlignedText
from megatron_bridge.training.collect import Rollout, judge_rollouts, to_batch
from megatron_bridge.verify.grade import Grade
from trace_dsl.lowering import lower

RUN = Path("specs/demo/run.yaml")


def rollouts() -> list[Rollout]:
    """Four responses to one prompt, two tokens each: right, wrong, wrong, and one of which nothing is known."""
    made = [
        Rollout(
            group=0,
            problem=Problem(prompt="p", data=None),
            prompt_ids=(1,),
            token_ids=(2, 3),
            logprobs=(-1.0, -1.0),
            weight_versions=(0, 0),
            finish="stop",
            aligned=AlignedText(text="ab", intervals=((0, 1), (1, 2))),
            reward=reward,
            annotation=Annotation(),
        )
        for reward in (1.0, 0.0, 0.0)
    ]
    span = AnnotatedSpan(label="error", kind="sign", start=0, end=1)
    lost = replace(made[1], verifier_failure="timed_out", annotation=Annotation(spans=(span,), diagnosis="sign"))
    return [*made, lost]


def test_they_take_no_part_in_advantages_and_losses() -> None:
    _, plan, _ = prepare_run(RUN, ["spec=grpo.trace"])
    whole, judged = rollouts(), rollouts()[:3]
    with_it, without = lower(plan, to_batch(whole), 0), lower(plan, to_batch(judged), 0)
    assert torch.equal(with_it.advantage_R[:3], without.advantage_R)
    assert with_it.advantage_R[3] == 0
    assert torch.equal(with_it.routing.weight_CT[:, :6], without.routing.weight_CT)
    assert not with_it.routing.weight_CT[:, 6:].any()
    assert with_it.route_of_T[6:].tolist() == [-1, -1]
    _, demo, _ = prepare_run(RUN)
    assert lower(demo, to_batch(whole), 0).route_of_T[6:].tolist() == [-1, -1]  # nor in spans


def test_reductions_over_the_batch_leave_them_out(tmp_path: Path) -> None:
    """The first of the batch has no verdict: neither a mean, nor a softmax, nor a latch reads its reward."""
    spec = tmp_path / "over_batch.trace"
    spec.write_text(
        "let easy = mean(reward, over=batch) > 0.3\n"
        "rest when latch(easy, mean(reward, over=batch) > 0.9): "
        "grpo(w=softmax(reward, over=batch)) + nll(w=mean(reward, over=batch))\n"
        "rest: none\n"
    )
    _, plan, _ = prepare_run(RUN, [f"spec={spec}"])
    whole, judged = [rollouts()[3], *rollouts()[:3]], rollouts()[:3]
    with_it, without = lower(plan, to_batch(whole), 0), lower(plan, to_batch(judged), 0)
    assert torch.equal(with_it.routing.weight_CT[:, 2:], without.routing.weight_CT)
    assert without.routing.weight_CT.any()
    assert with_it.route_of_T[:2].tolist() == [-1, -1]


def test_nobody_annotates_them() -> None:
    class Failing:
        contexts = ("diagnosis",)

        def grade(self, items):
            return [Grade(reward=1.0), *[Grade(reward=0.0, failure="died")] * (len(items) - 1)]

    class Everything:
        asks_policy = False

        def annotate(self, written: list[Written], *, of: int | None = None) -> list[Annotation]:
            self.seen = (len(written), of)
            return [Annotation(diagnosis="sign") for _ in written]

    annotator = Everything()
    start_parallel(Layout(), seed=0)
    try:
        found = judge_rollouts(Failing(), rollouts(), annotator)
    finally:
        stop_parallel()
    assert annotator.seen == (1, 4)
    assert found[0].annotation.diagnosis == "sign"
    assert [r.judged for r in found] == [True, False, False, False]
