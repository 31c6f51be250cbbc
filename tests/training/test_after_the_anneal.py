"""What a step holds once a divergence has no weight any more: what a step of GRPO holds."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from megatron_bridge.annotation import AnnotatedSpan, Annotation
from megatron_bridge.losses import routed_linear_loss
from megatron_bridge.prepare import prepare_run
from megatron_bridge.rollout.align import AlignedText
from megatron_bridge.training.collect import Rollout, to_batch
from megatron_bridge.training.microbatch import Share, cut
from megatron_bridge.training.step_sums import token_sums
from tests.training.test_packing import rollout
from trace_dsl.lowering import Lowered, lower

RUN = Path("specs/demo/run.yaml")
AFTER, DURING, BEFORE = 45, 20, 0  # of the demo's anneal


def rollouts() -> list[Rollout]:
    """A group of four responses of 8 tokens, one character each; a step of one is marked wrong, of another decisive."""
    made = []
    for n, (label, reward) in enumerate((("error", 0.0), ("key", 1.0), (None, 1.0), (None, 0.0))):
        spans = () if label is None else (AnnotatedSpan(label=label, kind="sign", start=2, end=6),)
        made.append(
            replace(
                rollout(n, 3, 8),
                group=0,
                reward=reward,
                aligned=AlignedText(text="abcdefgh", intervals=tuple((i, i + 1) for i in range(8))),
                annotation=Annotation(spans=spans, diagnosis="sign" if spans else None),
            )
        )
    return made


def lowered(spec: str, step: int) -> Lowered:
    _, plan, _ = prepare_run(RUN, [f"spec={spec}"])
    return lower(plan, to_batch(rollouts()), step)


def tensors(value: object, name: str = "") -> dict[str, tuple[torch.dtype, int]]:
    """Every tensor inside, by name: its type and bytes."""
    if isinstance(value, Tensor):
        return {name: (value.dtype, value.nbytes)}
    if not is_dataclass(value):
        return {}
    inner = [tensors(getattr(value, field.name), f"{name}.{field.name}") for field in fields(value)]
    return {name: found for one in inner for name, found in one.items()}


def carried(spec: str, step: int) -> list[dict[str, tuple[torch.dtype, int]]]:
    """What each micro-batch of a step holds."""
    routing = lowered(spec, step).routing
    return [
        tensors(batch) for batch in cut(rollouts(), routing, micro_batch=2, part=Share(), device=torch.device("cpu"))
    ]


def test_micro_batches_carry_the_tensors_of_grpo() -> None:
    """Known failure: weights, advantages and parts of losses that train nothing any more, at every token."""
    grpo, trace = lowered("grpo.trace", AFTER), lowered("trace.trace", AFTER)
    assert len(trace.losses) == 4
    assert tensors(trace.routing) == tensors(grpo.routing)
    assert carried("trace.trace", AFTER) == carried("grpo.trace", AFTER)
    (during, *_), (after, *_) = carried("trace.trace", DURING), carried("trace.trace", AFTER)
    for name in ("weight_CT", "advantage_CT", "loss_PT", "part_PT"):  # two channels, one more loss than its rows
        assert during[f".routing.{name}"][1] == 2 * after[f".routing.{name}"][1]


def test_losses_that_share_a_row_are_told_apart() -> None:
    """Three routes of one policy gradient, and the divergence that shares tokens with one of them."""
    found = lowered("trace.trace", DURING)
    parts = found.routing.parts
    assert parts.channel_of_P == (0, 1)
    numbers = [set(loss_T.tolist()) - {-1} for loss_T in parts.loss_PT]
    assert numbers == [{0}, {1, 2, 3}]
    assert parts.loss_PT[1].tolist() == [route + 1 for route in found.route_of_T.tolist()]
    assert torch.equal(parts.part_PT, found.routing.weight_CT)


def test_a_step_in_which_nothing_has_weight(tmp_path: Path) -> None:
    """No channel at all: a gradient of zero, and a loss that is told for every loss of the spec."""
    (tmp_path / "late.trace").write_text("rest: nll(start=40) + entropy(w=0)\n")
    found = lowered(str(tmp_path / "late.trace"), BEFORE)
    assert found.routing.kernels == () == found.loss_of_C
    (batch,) = cut(rollouts(), found.routing, micro_batch=4, part=Share(), device=torch.device("cpu"))
    hidden_TH, weight_vH = (torch.randn(rows, 8, requires_grad=True) for rows in (len(batch.target_T), 11))
    result = routed_linear_loss(
        hidden_TH, weight_vH, target_T=batch.target_T, old_logp_T=batch.old_logp_T, routing=batch.routing
    )
    result.loss.backward()
    assert result.loss == 0
    assert hidden_TH.grad is None or not hidden_TH.grad.any()
    sums = token_sums(result, batch)
    assert sums["loss_L"].tolist() == sums["gradient_L"].tolist() == pytest.approx([0.0, 0.0])
