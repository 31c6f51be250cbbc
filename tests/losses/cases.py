"""Random inputs of the routed loss, small enough for the dense oracle.

Legend: T tokens, V padded vocabulary, H hidden, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_bridge.losses import RoutedLoss, TeacherHidden, TeacherLogits, routed_linear_loss, routed_logits_loss
from tests.losses.oracle import OracleLoss, loss_error, oracle_loss, relative_error
from trace_dsl.lowering.fused import (
    CispoKernel,
    DivergenceKernel,
    EntropyKernel,
    FusedKernel,
    FusedRouting,
    K3Kernel,
    NllKernel,
    PolicyGradientKernel,
)
from trace_dsl.model import DivergenceKind, MixAnchor, RatioLevel, SupportOf, Tail, TopK

GRPO = PolicyGradientKernel(0.2, 0.28)
FKL = DivergenceKernel(DivergenceKind.FKL, "large")
RKL = DivergenceKernel(DivergenceKind.RKL, "large")

GSPO = PolicyGradientKernel(0.02, 0.03, level=RatioLevel.SEQUENCE)
MIX = MixAnchor("large", 0.3)
DIVERGENCES: dict[str, DivergenceKernel] = {
    "fkl": FKL,
    "rkl": RKL,
    "jsd 0.5": DivergenceKernel(DivergenceKind.JSD, "large", 0.5),
    "skl": DivergenceKernel(DivergenceKind.SKL, "large", 0.1),
    "srkl": DivergenceKernel(DivergenceKind.SRKL, "large", 0.1),
}

SINGLE_KERNELS: dict[str, FusedKernel] = {
    "policy gradient": GRPO,
    "dual clip": PolicyGradientKernel(0.2, 0.2, dual=1.4),
    "cispo": CispoKernel(0.1),
    "fkl": FKL,
    "rkl": RKL,
    "jsd 0.5": DivergenceKernel(DivergenceKind.JSD, "large", 0.5),
    "jsd 0.1": DivergenceKernel(DivergenceKind.JSD, "large", 0.1),
    "jsd 0.9": DivergenceKernel(DivergenceKind.JSD, "large", 0.9),
    "skl": DivergenceKernel(DivergenceKind.SKL, "large", 0.1),
    "srkl": DivergenceKernel(DivergenceKind.SRKL, "large", 0.1),
    "nll": NllKernel(),
    "entropy": EntropyKernel(),
    "tis": PolicyGradientKernel(0.2, 0.28, tis=1.1),
    "mixed anchor": PolicyGradientKernel(0.2, 0.28, anchor=MIX),
    "mixed anchor, dual, tis": PolicyGradientKernel(0.2, 0.28, dual=1.5, anchor=MIX, tis=0.9),
    "sequence": GSPO,
    "sequence, mixed anchor, tis": replace(GSPO, clip_low=0.2, clip_high=0.2, anchor=MIX, tis=1.2),
    "k3 ref": K3Kernel("ref"),
    "k3 old": K3Kernel("old"),
    **{f"{name}, temperature": replace(kernel, temperature=1.7) for name, kernel in DIVERGENCES.items()},
    **{f"{name}, clipped": replace(kernel, pclip=1e-3) for name, kernel in DIVERGENCES.items()},
    **{
        f"{name}, top 20 of {of.value}, {tail.value}": replace(kernel, top_k=TopK(k=20, of=of, tail=tail))
        for name, kernel in DIVERGENCES.items()
        for of, tail in (
            (SupportOf.TEACHER, Tail.BUCKET),
            (SupportOf.STUDENT, Tail.BUCKET),
            (SupportOf.TEACHER, Tail.RENORM),
            (SupportOf.STUDENT, Tail.DROP),
        )
    },
    "fkl, top 1000": replace(FKL, top_k=TopK(k=1000, tail=Tail.BUCKET)),
    "jsd, top 12, clipped, temperature": replace(
        DIVERGENCES["jsd 0.5"], top_k=TopK(k=12, of=SupportOf.STUDENT, tail=Tail.BUCKET), pclip=0.01, temperature=0.7
    ),
}

MIXTURES: dict[str, tuple[FusedKernel, ...]] = {
    "fkl + grpo": (FKL, GRPO),
    "two teachers": (FKL, DivergenceKernel(DivergenceKind.RKL, "self"), GRPO),
    "both directions of one teacher": (FKL, RKL),
    "two policy gradients": (GRPO, PolicyGradientKernel(0.1, 0.1, index=1), NllKernel()),
    "everything": (
        GRPO,
        FKL,
        DivergenceKernel(DivergenceKind.RKL, "self"),
        DivergenceKernel(DivergenceKind.JSD, "large", 0.3),
        DivergenceKernel(DivergenceKind.SRKL, "self", 0.2),
        NllKernel(),
        EntropyKernel(),
    ),
    "every option": (
        GSPO,
        PolicyGradientKernel(0.2, 0.2, anchor=MixAnchor("self", 0.6)),
        replace(FKL, top_k=TopK(k=9, tail=Tail.BUCKET)),
        replace(RKL, top_k=TopK(k=9, of=SupportOf.STUDENT, tail=Tail.RENORM), temperature=1.4),
        replace(RKL, temperature=1.4),
        replace(DIVERGENCES["jsd 0.5"], teacher="self", pclip=2e-3),
        K3Kernel("ref"),
        EntropyKernel(),
    ),
}

ALL_KERNELS: dict[str, tuple[FusedKernel, ...]] = {
    **{name: (kernel,) for name, kernel in SINGLE_KERNELS.items()},
    **MIXTURES,
}

# divergences whose gradient is zero where the teacher is the student: all but those that drop a tail
AGREEING = tuple(
    name
    for name, kernel in SINGLE_KERNELS.items()
    if isinstance(kernel, DivergenceKernel) and (kernel.top_k is None or kernel.top_k.tail is not Tail.DROP)
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """Dense inputs: every teacher has a hidden row at every token, of which `evaluate` passes on those
    needed."""

    hidden_TH: Tensor
    weight_VH: Tensor
    target_T: Tensor
    old_logp_T: Tensor
    proximal_logp_T: Tensor
    reference_logp: dict[str, Tensor]
    routing: FusedRouting
    teachers: dict[str, tuple[Tensor, Tensor]]
    temperature: float
    vocab_size: int | None

    def oracle(self, *, rounded: bool = False) -> OracleLoss:
        return oracle_loss(
            self.hidden_TH,
            self.weight_VH,
            target_T=self.target_T,
            old_logp_T=self.old_logp_T,
            proximal_logp_T=self.proximal_logp_T,
            reference_logp=self.reference_logp,
            routing=self.routing,
            teachers=self.teachers,
            temperature=self.temperature,
            vocab_size=self.vocab_size,
            rounded=rounded,
        )

    def tolerance(self, expected: OracleLoss, bar: float) -> float:
        """`bar`, or four times the error that rounding logits and log-probs to float32 alone makes, where that is more.

        The roundings of that one draw and those of a processor's own products differ: one is the scale of the other.
        """
        rounded = self.oracle(rounded=True)
        pairs = (
            (rounded.hidden_gradient_TH, expected.hidden_gradient_TH),
            (rounded.weight_gradient_VH, expected.weight_gradient_VH),
        )
        alone = (loss_error(rounded.loss_C, expected), *(relative_error(*pair) for pair in pairs))
        return max(bar, 4 * max(alone))

    def take(self, tokens: Tensor) -> Case:
        """The micro-batch of these tokens."""
        return replace(
            self,
            hidden_TH=self.hidden_TH[tokens],
            target_T=self.target_T[tokens],
            old_logp_T=self.old_logp_T[tokens],
            proximal_logp_T=self.proximal_logp_T[tokens],
            reference_logp={name: logp_T[tokens] for name, logp_T in self.reference_logp.items()},
            routing=self.routing.take(tokens),
            teachers={name: (rows[tokens], table) for name, (rows, table) in self.teachers.items()},
        )


def double_loss(case: Case, hidden_TH: Tensor, weight_VH: Tensor) -> Tensor:
    """The loss in float64 of other hidden rows and weight than the case's, for finite differences."""
    teachers = {
        name: TeacherHidden(
            rows_T=(needed := case.routing.teacher_tokens(name)),
            hidden_RH=rows_TH[needed].double(),
            output_weight_vH=table_VH.double(),
        )
        for name, (rows_TH, table_VH) in case.teachers.items()
    }
    return routed_linear_loss(
        hidden_TH,
        weight_VH,
        target_T=case.target_T,
        old_logp_T=case.old_logp_T.double(),
        proximal_logp_T=case.proximal_logp_T.double(),
        reference_logp={name: logp_T.double() for name, logp_T in case.reference_logp.items()},
        routing=case.routing,
        teacher_hidden=teachers,
        temperature=case.temperature,
        vocab_size=case.vocab_size,
        chunk_rows=3,
    ).loss


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluated:
    result: RoutedLoss
    hidden_gradient_TH: Tensor
    weight_gradient_vH: Tensor


def make_case(
    kernels: tuple[FusedKernel, ...],
    *,
    tokens: int = 61,
    hidden: int = 24,
    vocabulary: int = 307,
    padding: int = 0,
    sharpness: float = 1.0,
    distance: float = 0.5,
    ratio_noise: float = 0.3,
    routed: float = 0.5,
    temperature: float = 1.0,
    seed: int = 0,
) -> Case:
    """Teacher "self" shares the student's output weight, "large" has its own and another hidden size.

    About a `routed` share of the tokens feeds each channel; the logits spread like `sharpness` times a
    normal.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    padded = vocabulary + padding
    hidden_TH, weight_VH = normal(tokens, hidden), normal(padded, hidden) * (sharpness * 2 / hidden**0.5)
    lift_HH = torch.cat((torch.eye(hidden), torch.zeros(hidden, 8)), dim=1)
    large_TH = hidden_TH @ lift_HH + distance * normal(tokens, hidden + 8)
    large_VH = weight_VH @ lift_HH + 0.2 * sharpness / hidden**0.5 * normal(padded, hidden + 8)
    target_T = torch.randint(0, vocabulary, (tokens,), generator=generator)
    logp_TV = torch.log_softmax(hidden_TH @ weight_VH[:vocabulary].T / temperature, dim=-1)
    weight_CT = torch.rand(len(kernels), tokens, generator=generator) / tokens
    weight_CT *= torch.rand(len(kernels), tokens, generator=generator) < routed
    logp_T = logp_TV.gather(1, target_T[:, None])[:, 0]
    old_logp_T, advantage_CT = logp_T + ratio_noise * normal(tokens), normal(len(kernels), tokens)
    teachers = {
        "self": (hidden_TH + distance * normal(tokens, hidden), weight_VH),
        "large": (large_TH, large_VH),
    }
    row_of_T = torch.arange(tokens) // 7
    from_model_T = torch.arange(tokens) % 5 != 3  # the others are tool output
    written_R = torch.zeros(tokens, dtype=torch.int64).index_add(0, row_of_T, from_model_T.long())
    return Case(
        hidden_TH=hidden_TH,
        weight_VH=weight_VH,
        target_T=target_T,
        old_logp_T=old_logp_T,
        proximal_logp_T=logp_T + ratio_noise * normal(tokens),
        reference_logp={"ref": logp_T + ratio_noise * normal(tokens)},
        routing=FusedRouting(
            kernels=kernels,
            weight_CT=weight_CT,
            advantage_CT=advantage_CT,
            row_of_T=row_of_T,
            written_T=torch.where(from_model_T, written_R[row_of_T], 0),
        ),
        teachers=teachers,
        temperature=temperature,
        vocab_size=vocabulary if padding else None,
    )


def tied_case(*, of: SupportOf) -> Case:
    """Logits that are small whole numbers, exact in float32, so that most of a row are tied at the edge of its top
    7."""
    case = make_case((replace(FKL, top_k=TopK(k=7, of=of, tail=Tail.BUCKET)),), hidden=3, vocabulary=40, routed=1.0)

    def whole(table: Tensor) -> Tensor:
        return table.round().clamp(-1, 1)

    return replace(
        case,
        hidden_TH=whole(case.hidden_TH),
        weight_VH=whole(case.weight_VH),
        teachers={name: (whole(rows), whole(table)) for name, (rows, table) in case.teachers.items()},
    )


def evaluate(
    case: Case,
    *,
    tp_group: dist.ProcessGroup | None = None,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Evaluated:
    """The code under test on this rank's shard of the vocabulary; gradients of `scale` times the loss."""
    world, rank = (1, 0) if tp_group is None else (tp_group.size(), tp_group.rank())

    def shard(table_VH: Tensor) -> Tensor:
        return table_VH.tensor_split(world)[rank].clone()

    hidden_TH = case.hidden_TH.to(dtype, copy=True).requires_grad_()
    weight_vH = shard(case.weight_VH).to(dtype).requires_grad_()
    teacher_hidden = {}
    for name, (rows_TH, table_VH) in case.teachers.items():
        needed = case.routing.teacher_tokens(name)
        teacher_hidden[name] = TeacherHidden(
            rows_T=needed, hidden_RH=rows_TH[needed].to(dtype), output_weight_vH=shard(table_VH).to(dtype)
        )
    result = routed_linear_loss(
        hidden_TH,
        weight_vH,
        target_T=case.target_T,
        old_logp_T=case.old_logp_T,
        proximal_logp_T=case.proximal_logp_T,
        reference_logp=case.reference_logp,
        routing=case.routing,
        teacher_hidden=teacher_hidden,
        temperature=case.temperature,
        vocab_size=case.vocab_size,
        tp_group=tp_group,
        **options,
    )
    (result.loss * scale).backward()
    assert hidden_TH.grad is not None
    assert weight_vH.grad is not None
    return Evaluated(result=result, hidden_gradient_TH=hidden_TH.grad, weight_gradient_vH=weight_vH.grad)


def evaluate_logits(
    case: Case, *, tp_group: dist.ProcessGroup | None = None, scale: float = 1.0, **options: Any
) -> tuple[RoutedLoss, Tensor]:
    """The form over given logits, on this rank's shard; the gradient [T, v] of `scale` times the loss."""
    world, rank = (1, 0) if tp_group is None else (tp_group.size(), tp_group.rank())

    def shard(rows_TH: Tensor, table_VH: Tensor) -> Tensor:
        return (rows_TH @ table_VH.T).tensor_split(world, dim=1)[rank].clone()

    logits_Tv = shard(case.hidden_TH, case.weight_VH).requires_grad_()
    teachers = {}
    for name, (rows_TH, table_VH) in case.teachers.items():
        needed = case.routing.teacher_tokens(name)
        teachers[name] = TeacherLogits(rows_T=needed, logits_Rv=shard(rows_TH[needed], table_VH))
    result = routed_logits_loss(
        logits_Tv,
        target_T=case.target_T,
        old_logp_T=case.old_logp_T,
        proximal_logp_T=case.proximal_logp_T,
        reference_logp=case.reference_logp,
        routing=case.routing,
        teacher_logits=teachers,
        temperature=case.temperature,
        vocab_size=case.vocab_size,
        tp_group=tp_group,
        **options,
    )
    (result.loss * scale).backward()
    assert logits_Tv.grad is not None
    return result, logits_Tv.grad
