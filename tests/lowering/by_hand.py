"""Batches written down by hand, and what a spec makes of them."""

from __future__ import annotations

import torch

from tests.lowering.cases import facts_of, spec_of, tensors_of
from tests.lowering.plain import PlainBatch, PlainSpan
from trace_dsl.lowering import Lowered, lower
from trace_dsl.plan import compile_plan

torch.set_num_threads(1)

TRACE = """
spans   key(cap=25%), error(cap=25%)
teacher = self(sync=10, sees=diagnosis)
let kl  = schedule(0.5, warmup=10, anneal=linear(30))
error when wrong: rkl(w=kl) + grpo(w=1 - kl/0.5, clip=(0.2, 0.28))
rest:             grpo(clip=(0.2, 0.28))
"""


def batch_of(
    lengths: list[int],
    *,
    reward: list[float] | None = None,
    group: list[int] | None = None,
    spans: list[tuple[int, str, int, int]] = (),
    tool: list[tuple[int, int]] = (),
    contexts: dict[str, list[bool]] | None = None,
    source: list[str] = (),
) -> PlainBatch:
    """A batch of given lengths; correct means a reward above 0, `tool` lists (row, position)."""
    rewards = [0.0] * len(lengths) if reward is None else reward
    return PlainBatch(
        reward=rewards,
        correct=[value > 0 for value in rewards],
        group=[0] * len(lengths) if group is None else group,
        old_logp=[[-1.0 - pos / 4 for pos in range(length)] for length in lengths],
        from_model=[[(row, pos) not in tool for pos in range(length)] for row, length in enumerate(lengths)],
        spans=[PlainSpan(row=r, label=label, start=start, end=end) for r, label, start, end in spans],
        contexts={"diagnosis": [True] * len(lengths)} if contexts is None else contexts,
        source=list(source),
    )


def lowered(text: str, batch: PlainBatch, step: int = 0, tokens: float = 0.0, total_steps: int = 100) -> Lowered:
    return lower(compile_plan(spec_of(text), facts_of(total_steps)), tensors_of(batch), step, tokens=tokens)


def weights(text: str, batch: PlainBatch, step: int = 0, tokens: float = 0.0, total_steps: int = 100) -> list[float]:
    """Weights of a spec with one kernel; where it has none anywhere, its channel is not there."""
    routing = lowered(text, batch, step, tokens, total_steps).routing
    assert len(routing.kernels) <= 1
    return routing.weight_CT.sum(0).tolist()
