"""The fused form of an objective: what `lower` gives and the loss consumes.

The whole objective of a step is  sum_c sum_t weight[c, t] * kernel_c[t],  with the global denominators already inside
`weight`, so any cut of the batch into micro-batches or ranks adds up to the same loss and gradient.

Legend: C channels (distinct kernels), P rows of losses, each of one channel, T response tokens of the batch, rollout
after rollout.
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
class Parts:
    """The losses of a `FusedRouting`, as its fields of the same names."""

    losses: int
    channel_of_P: tuple[int, ...]
    loss_PT: Tensor
    part_PT: Tensor

    def by_loss(self, value_PT: Tensor) -> Tensor:
        """[L, P T]: every loss's own of the values, 0 elsewhere."""
        number_L = torch.arange(self.losses, dtype=torch.int16, device=value_PT.device)
        return torch.where(self.loss_PT.flatten() == number_L[:, None], value_PT.flatten(), 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FusedRouting:
    """Weights of every channel at every response token.

    kernels: C distinct kernels, in the plan's order; weight_CT: float32, 0 where not routed, denominators folded in;
    advantage_CT: float32, 0 for channels without one; row_of_T: int64, which rollout a token belongs to; written_T:
    int64, how many tokens of its whole response the model wrote, 0 at a token that it did not write (tool output).
    None: the model wrote all of them, and how many a response has is not known.

    losses: how many a spec has; some may share a kernel, and only metrics tell them apart. channel_of_P, loss_PT,
    part_PT: at a token, row p has loss `loss_PT` (int16, -1 for none) with its part (float32) of that channel's weight.
    Losses of one channel that meet at no token share a row.
    """

    kernels: tuple[FusedKernel, ...]
    weight_CT: Tensor
    advantage_CT: Tensor
    row_of_T: Tensor
    written_T: Tensor | None = None
    losses: int = 0
    channel_of_P: tuple[int, ...] = ()
    loss_PT: Tensor | None = None
    part_PT: Tensor | None = None

    @classmethod
    def empty(cls, tokens: int) -> FusedRouting:
        """A routing of `tokens` tokens to no channel."""
        nothing_CT = torch.zeros(0, tokens)
        return cls(kernels=(), weight_CT=nothing_CT, advantage_CT=nothing_CT, row_of_T=torch.zeros(tokens).long())

    def take(self, tokens: Tensor) -> FusedRouting:
        """The same routing restricted to `tokens` (int64 indices), in their order."""
        return replace(
            self,
            weight_CT=self.weight_CT[:, tokens],
            advantage_CT=self.advantage_CT[:, tokens],
            row_of_T=self.row_of_T[tokens],
            written_T=None if self.written_T is None else self.written_T[tokens],
            loss_PT=None if self.loss_PT is None else self.loss_PT[:, tokens],
            part_PT=None if self.part_PT is None else self.part_PT[:, tokens],
        )

    def to(self, device: torch.device) -> FusedRouting:
        """The same routing on another device; the host does not wait for a GPU to have it."""
        return replace(
            self,
            weight_CT=_moved(self.weight_CT, device),
            advantage_CT=_moved(self.advantage_CT, device),
            row_of_T=_moved(self.row_of_T, device),
            written_T=None if self.written_T is None else _moved(self.written_T, device),
            loss_PT=None if self.loss_PT is None else _moved(self.loss_PT, device),
            part_PT=None if self.part_PT is None else _moved(self.part_PT, device),
        )

    @property
    def parts(self) -> Parts:
        """The losses told apart; where none are, every channel is one."""
        if self.loss_PT is None or self.part_PT is None:
            channels = len(self.kernels)
            number_C = torch.arange(channels, dtype=torch.int16, device=self.weight_CT.device)
            return Parts(
                losses=channels,
                channel_of_P=tuple(range(channels)),
                loss_PT=number_C[:, None].expand_as(self.weight_CT),
                part_PT=self.weight_CT,
            )
        return Parts(losses=self.losses, channel_of_P=self.channel_of_P, loss_PT=self.loss_PT, part_PT=self.part_PT)

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
