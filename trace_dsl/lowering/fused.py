"""The fused form of an objective: what `lower` gives and the loss consumes.

The whole objective of a step is  sum_c sum_t weight[c, t] * kernel_c[t],  with the global denominators already inside
`weight`, so any cut of the batch into micro-batches or ranks adds up to the same loss and gradient.

Legend: C channels (distinct kernels), L losses of the spec (some may share a kernel), T response tokens of the batch,
rollout after rollout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trace_dsl.model import DivergenceKind, MixAnchor, RatioLevel, TopK


@dataclass(frozen=True, slots=True)
class PolicyGradientKernel:
    """-min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A), ratio = exp(logp - old_logp).

    `level`, `anchor` and `tis` change the ratio and weigh the result as `megatron_bridge.losses.sampled` says.
    """

    clip_low: float
    clip_high: float
    dual: float | None = None
    level: RatioLevel = RatioLevel.TOKEN
    anchor: MixAnchor | None = None  # None: the policy that wrote the rollout
    tis: float | None = None
    index: int = 0  # tells two policy gradients of one route apart


@dataclass(frozen=True, slots=True)
class DivergenceKernel:
    """fkl = KL(teacher || student), rkl = KL(student || teacher), jsd with beta = `parameter`.

    `top_k` None is the full vocabulary, `temperature` None the one of the call.
    """

    kind: DivergenceKind
    teacher: str
    parameter: float | None = None
    top_k: TopK | None = None
    temperature: float | None = None
    pclip: float | None = None


@dataclass(frozen=True, slots=True)
class CispoKernel:
    """-stopgrad(min(ratio, 1 + high)) A logp."""

    high: float
    index: int = 0


@dataclass(frozen=True, slots=True)
class K3Kernel:
    """exp(d) - d - 1, d = log-prob under `to` minus logp."""

    to: str


@dataclass(frozen=True, slots=True)
class NllKernel:
    """-logp of the sampled token."""


@dataclass(frozen=True, slots=True)
class EntropyKernel:
    """-H(student)."""


FusedKernel = PolicyGradientKernel | CispoKernel | DivergenceKernel | NllKernel | EntropyKernel | K3Kernel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FusedRouting:
    """Weights of every channel at every response token.

    kernels: C distinct kernels, in the plan's order; weight_CT: float32, 0 where not routed, denominators folded in;
    advantage_CT: float32, 0 for channels without one; row_of_T: int64, which rollout a token belongs to; written_T:
    int64, how many tokens of its whole response the model wrote, 0 at a token that it did not write (tool output).
    None: the model wrote all of them, and how many a response has is not known. channel_of_L, part_LT: which channel
    each loss of a spec feeds, and its part (float32) of that channel's weights; only metrics read them.
    """

    kernels: tuple[FusedKernel, ...]
    weight_CT: Tensor
    advantage_CT: Tensor
    row_of_T: Tensor
    written_T: Tensor | None = None
    channel_of_L: tuple[int, ...] = ()
    part_LT: Tensor | None = None

    @classmethod
    def empty(cls, tokens: int) -> FusedRouting:
        """A routing of `tokens` tokens to no channel."""
        nothing_CT = torch.zeros(0, tokens)
        return cls(kernels=(), weight_CT=nothing_CT, advantage_CT=nothing_CT, row_of_T=torch.zeros(tokens).long())

    def rows(self, channel: int) -> Tensor:
        """Indices (int64) of the tokens with weight on a channel."""
        return self.weight_CT[channel].nonzero()[:, 0]

    def take(self, tokens: Tensor) -> FusedRouting:
        """The same routing restricted to `tokens` (int64 indices), in their order."""
        return replace(
            self,
            weight_CT=self.weight_CT[:, tokens],
            advantage_CT=self.advantage_CT[:, tokens],
            row_of_T=self.row_of_T[tokens],
            written_T=None if self.written_T is None else self.written_T[tokens],
            part_LT=None if self.part_LT is None else self.part_LT[:, tokens],
        )

    def to(self, device: torch.device) -> FusedRouting:
        """The same routing on another device; the host does not wait for a GPU to have it."""
        return replace(
            self,
            weight_CT=_moved(self.weight_CT, device),
            advantage_CT=_moved(self.advantage_CT, device),
            row_of_T=_moved(self.row_of_T, device),
            written_T=None if self.written_T is None else _moved(self.written_T, device),
            part_LT=None if self.part_LT is None else _moved(self.part_LT, device),
        )

    @property
    def parts(self) -> tuple[tuple[int, ...], Tensor]:
        """The channel of every loss and its weights [L, T]; where no losses are told apart, every channel is one."""
        if self.part_LT is None:
            return tuple(range(len(self.kernels))), self.weight_CT
        return self.channel_of_L, self.part_LT

    def teacher_tokens(self, teacher: str) -> Tensor:
        """Indices (int64, ascending) of the tokens at which some channel needs `teacher`'s distribution."""
        needed_T = torch.zeros(self.weight_CT.shape[1], dtype=torch.bool, device=self.weight_CT.device)
        for channel, kernel in enumerate(self.kernels):
            if teacher_of(kernel) == teacher:
                needed_T |= self.sequence_tokens(channel) if is_sequence_level(kernel) else self.weight_CT[channel] != 0
        return needed_T.nonzero()[:, 0]

    def sequence_tokens(self, channel: int) -> Tensor:
        """bool [T]: the tokens that the model wrote in the responses in which `channel` has weight."""
        weight_T = self.weight_CT[channel]
        rows = int(self.row_of_T.max()) + 1 if len(self.row_of_T) else 0
        fed_R = torch.zeros(rows, dtype=torch.bool, device=weight_T.device)
        fed_R[self.row_of_T[weight_T != 0]] = True
        fed_T = fed_R[self.row_of_T]
        return fed_T if self.written_T is None else fed_T & (self.written_T > 0)


def teacher_of(kernel: FusedKernel) -> str | None:
    """The teacher whose distribution or log-probs a kernel reads."""
    if isinstance(kernel, DivergenceKernel):
        return kernel.teacher
    if isinstance(kernel, PolicyGradientKernel) and kernel.anchor is not None:
        return kernel.anchor.teacher
    return None


def is_sequence_level(kernel: FusedKernel) -> bool:
    """Whether a kernel's ratio is a whole response's."""
    return isinstance(kernel, PolicyGradientKernel) and kernel.level is RatioLevel.SEQUENCE


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Only a copy from pinned memory runs beside the host."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
