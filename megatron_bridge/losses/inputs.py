"""What one call of the routed loss evaluates, and what a sweep adds up.

Legend: T tokens, C channels, v columns of the vocabulary on this rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_bridge.losses import gemm
from megatron_bridge.losses.student import Student
from megatron_bridge.losses.teacher import TeacherRows
from trace_dsl.lowering.fused import FusedRouting


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyLogProbs:
    """Log-probs [T] of the sampled tokens under other policies, as constants; see `routed_linear_loss`."""

    old_T: Tensor | None
    proximal_T: Tensor | None
    reference: Mapping[str, Tensor]

    @classmethod
    def of(
        cls, old_logp_T: Tensor | None, proximal_logp_T: Tensor | None, reference_logp: Mapping[str, Tensor]
    ) -> PolicyLogProbs:
        """The same, cut off from any graph."""
        return cls(
            old_T=None if old_logp_T is None else old_logp_T.detach(),
            proximal_T=None if proximal_logp_T is None else proximal_logp_T.detach(),
            reference={name: logp_T.detach() for name, logp_T in reference_logp.items()},
        )

    def named(self, to: str) -> Tensor | None:
        """Those that k3 compares with."""
        return self.old_T if to == "old" else self.reference.get(to)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepInputs:
    """`shard` counts the padded columns of this rank, `vocabulary` the true ones of all ranks; `live` are the channels
    with weight at some token."""

    student: Student
    teachers: Mapping[str, TeacherRows]
    target_T: Tensor
    policies: PolicyLogProbs
    routing: FusedRouting
    live: frozenset[int]
    temperature: float
    shard: int
    vocabulary: int
    tp_group: dist.ProcessGroup | None
    chunk_rows: int
    evaluate_all: bool
    buffers: gemm.Buffers = field(default_factory=gemm.Buffers)

    @property
    def rank(self) -> int:
        return 0 if self.tp_group is None else self.tp_group.rank()

    @property
    def has_weight(self) -> bool:
        """Whether any token is routed at all."""
        return bool(self.live)

    @property
    def first_column(self) -> int:
        return self.rank * self.shard


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepTotals:
    """The loss by channel, and the statistics of `TokenStatistics`."""

    loss_C: Tensor
    value_CT: Tensor
    logp_T: Tensor
    entropy_T: Tensor
    clipped_CT: Tensor
    gradient_norm_CT: Tensor

    @classmethod
    def zeros(cls, inputs: SweepInputs) -> SweepTotals:
        device, (channels, tokens) = inputs.target_T.device, inputs.routing.weight_CT.shape
        missing = torch.full((2 * channels + 2, tokens), torch.nan, dtype=inputs.student.dtype, device=device)
        return cls(
            loss_C=torch.zeros(channels, dtype=torch.float64, device=device),
            value_CT=missing[2 : channels + 2],
            logp_T=missing[0],
            entropy_T=missing[1],
            clipped_CT=torch.zeros(channels, tokens, dtype=torch.bool, device=device),
            gradient_norm_CT=missing[channels + 2 :],
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """In the order in which `RoutedLoss.of` takes them."""
        return self.loss_C, self.logp_T, self.entropy_T, self.value_CT, self.clipped_CT, self.gradient_norm_CT
