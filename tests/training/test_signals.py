"""What is measured before a step, where it cannot be."""

from __future__ import annotations

import pytest
import torch

from megatron_bridge.training.microbatch import Share
from megatron_bridge.training.signals import measure
from trace_dsl.terms import Rank, Signal


def test_a_teacher_that_is_not_held_is_no_teacher_without_context() -> None:
    """Its values would all be NaN, as where a rollout lacks what the teacher sees."""
    read = frozenset({Signal(name="teacher_logp", rank=Rank.TOKEN, teacher="big")})
    with pytest.raises(RuntimeError, match="big: read at this step, and not held any more"):
        measure(read, torch.nn.ModuleList(), [], [], Share(), tokens=3, temperature=1.0, vocab_size=8)
