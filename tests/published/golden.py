"""What a golden case is, and how its batch is made.

The numbers of a case come from the paper's formula, in plain Python; nothing here evaluates an expression of the
language.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from trace_dsl.lowering import RolloutBatch, TokenSpan
from trace_dsl.model import DEFAULT_TEACHER
from trace_dsl.terms import Rank, Signal
from trace_dsl.vocabulary import SIGNALS


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Rollouts, row after row. `measured` has one number a token, under names such as "gap", "teacher_logp(other)"."""

    lengths: Sequence[int]
    rewards: Sequence[float]
    prompts: Sequence[int]
    has: Mapping[str, Sequence[bool]] = field(default_factory=dict)
    sources: Sequence[str] = ()
    by_tool: Sequence[int] = ()
    spans: Sequence[tuple[int, str, int, int]] = ()
    old_logp: Sequence[float] = ()
    measured: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One spec on one batch at one step.

    weights: for each kernel ("pg", "rkl", "jsd(by_sibling)") what every token's value is multiplied by, denominator
    included; advantages: for each policy gradient the number that multiplies the ratio, read where the weight is not
    zero; constants: the settings of every loss, in the order of the spec.
    """

    spec: str
    rollouts: Rollouts
    weights: Mapping[str, Sequence[float]]
    advantages: Mapping[str, Sequence[float]] = field(default_factory=dict)
    constants: Sequence[Mapping[str, object]] = ()
    step: int = 0
    case: str = ""

    @property
    def name(self) -> str:
        return f"{self.spec}-{self.case}" if self.case else self.spec


def golden_batch(rollouts: Rollouts) -> RolloutBatch:
    """The batch as `lower` takes it; a rollout is correct when its reward is above 0."""
    tokens = sum(rollouts.lengths)
    measured = {}
    if rollouts.measured:
        measured["measured"] = tuple(
            (_signal(name), torch.tensor(values, dtype=torch.float64)) for name, values in rollouts.measured.items()
        )
    return RolloutBatch(
        length_R=torch.tensor(rollouts.lengths, dtype=torch.int64),
        reward_R=torch.tensor(rollouts.rewards, dtype=torch.float64),
        correct_R=torch.tensor([reward > 0 for reward in rollouts.rewards]),
        group_R=torch.tensor(rollouts.prompts, dtype=torch.int64),
        old_logp_T=torch.tensor(list(rollouts.old_logp) or [-1.0] * tokens, dtype=torch.float32),
        from_model_T=torch.tensor([token not in rollouts.by_tool for token in range(tokens)]),
        spans=tuple(TokenSpan(row=row, label=label, start=a, end=b) for row, label, a, b in rollouts.spans),
        source_R=tuple(rollouts.sources),
        contexts=tuple((name, torch.tensor(list(rows))) for name, rows in rollouts.has.items()),
        **measured,
    )


def _signal(name: str) -> Signal:
    word, _, teacher = name.removesuffix(")").partition("(")
    of_teacher = SIGNALS[word].of_teacher
    return Signal(name=word, rank=Rank.TOKEN, teacher=(teacher or DEFAULT_TEACHER) if of_teacher else None)


# ---------------------------------------------------------------------------------------- arithmetic that papers share

# Two prompts of two rollouts, 8 tokens: one prompt has a correct and a wrong rollout, the other two correct ones.
FOUR = {"lengths": (2, 3, 1, 2), "rewards": (1.0, 0.0, 1.0, 1.0), "prompts": (0, 0, 1, 1)}
ROW_OF = (0, 0, 1, 1, 1, 2, 3, 3)

# (R - mean)/std of the rewards 1 and 0: mean 1/2, std sqrt((1/4 + 1/4)/(2 - 1)) = sqrt(1/2). Equal rewards: 0.
HIGH = 0.5 / math.sqrt(0.5)
A = tuple((HIGH, -HIGH, 0.0, 0.0)[row] for row in ROW_OF)

# 1 / (length of its response x 4 responses), and 1 / 8 tokens.
PER_SEQUENCE = tuple(1 / (FOUR["lengths"][row] * 4) for row in ROW_OF)
PER_TOKEN = (1 / 8,) * 8


def sign(x: float) -> float:
    return 0.0 if x == 0 else math.copysign(1.0, x)


def clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))
