"""The same routed loss written the ways the field writes it, for `bench_loss.py` to compare.

Every token is routed: `kl_fraction` of them to a divergence from a teacher that shares the output weight, the others
to a clipped policy gradient; all have weight 1 / N, so the loss is a mean over tokens.

Legend: N tokens, H hidden, V vocabulary, K tokens of the divergence, P tokens of the policy gradient.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from megatron_bridge.losses import TeacherHidden, routed_linear_loss
from trace_dsl.lowering.fused import DivergenceKernel, FusedRouting, PolicyGradientKernel
from trace_dsl.model import DivergenceKind

CLIP = 0.2
SHARE = {"jsd": 0.5, "fkl": 0.0, "rkl": 1.0}  # Liger's beta
PEER_CHUNK = 1024  # rows of a chunk of the chunked peers: Liger's default


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """N tokens, H hidden, V vocabulary."""

    tokens: int
    hidden: int
    vocabulary: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """ "2048,512,32768" as tokens, hidden, vocabulary. Raises ValueError on anything else."""
        tokens, hidden, vocabulary = (int(part) for part in text.split(","))
        return cls(tokens=tokens, hidden=hidden, vocabulary=vocabulary)

    def __str__(self) -> str:
        return f"{self.tokens} x {self.hidden} x {self.vocabulary}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """Inputs of one comparison; hidden_NH and weight_VH require gradients."""

    size: Size
    kl_fraction: float
    divergence: str
    hidden_NH: Tensor
    weight_VH: Tensor
    teacher_NH: Tensor
    target_N: Tensor
    old_logp_N: Tensor
    advantage_N: Tensor
    divergence_K: Tensor  # which tokens
    policy_P: Tensor  # the others
    chunk_rows: int | None = None
    kept: dict[str, object] = field(default_factory=dict)  # compiled functions, by peer

    @classmethod
    def make(
        cls,
        size: Size,
        *,
        kl_fraction: float,
        divergence: str = "jsd",
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        chunk_rows: int | None = None,
        seed: int = 0,
    ) -> Case:
        """Ratios stay 0.02 away from the ends of the clip, so that rounding moves no token across one."""
        generator = torch.Generator().manual_seed(seed)
        tokens, hidden, vocabulary = size.tokens, size.hidden, size.vocabulary

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        hidden_NH, weight_VH = normal(tokens, hidden), normal(vocabulary, hidden) * (2 / hidden**0.5)
        order_N = torch.randperm(tokens, generator=generator)
        cut = round(kl_fraction * tokens)
        near_N = torch.rand(tokens, generator=generator) < 0.8
        noise_N = torch.where(near_N, 0.15, 0.5) * (2 * torch.rand(tokens, generator=generator) - 1)
        noise_N = torch.where(near_N, noise_N, noise_N.sign() * (0.3 + noise_N.abs()))
        target_N = torch.randint(0, vocabulary, (tokens,), generator=generator)
        inputs = {
            "hidden_NH": hidden_NH.to(device, dtype),
            "weight_VH": weight_VH.to(device, dtype),
            "teacher_NH": (hidden_NH + 0.3 * normal(tokens, hidden)).to(device, dtype),
            "target_N": target_N.to(device),
            "advantage_N": normal(tokens).to(device),
            "divergence_K": order_N[:cut].sort().values.to(device),
            "policy_P": order_N[cut:].sort().values.to(device),
        }
        logp_N = torch.cat(
            [
                (rows_H.float() @ inputs["weight_VH"].float().T).log_softmax(-1).gather(1, target[:, None])[:, 0]
                for rows_H, target in zip(inputs["hidden_NH"].split(256), inputs["target_N"].split(256), strict=True)
            ]
        )
        inputs["hidden_NH"].requires_grad_()
        inputs["weight_VH"].requires_grad_()
        return cls(
            size=size,
            kl_fraction=kl_fraction,
            divergence=divergence,
            old_logp_N=logp_N - noise_N.to(device),
            chunk_rows=chunk_rows,
            **inputs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """loss(case) has the gradient; `wide` says how many [rows, V] tensors it holds at once, about.

    package: what has to be installed. slow_start: compiles first. skips(case): why it does not apply, or None.
    """

    name: str
    says: str
    loss: Callable[[Case], Tensor]
    wide: Callable[[Case], float]
    package: str | None = None
    slow_start: bool = False
    skips: Callable[[Case], str | None] = lambda case: None

    def missing(self) -> str | None:
        """What to install, or None."""
        if self.package is None or importlib.util.find_spec(self.package.split("==")[0].replace("-", "_")) is not None:
            return None
        return f"not installed: pip install {self.package}"


def _routing(case: Case) -> FusedRouting:
    parameter = 0.5 if case.divergence == "jsd" else None
    kernels = (
        PolicyGradientKernel(CLIP, CLIP),
        DivergenceKernel(DivergenceKind(case.divergence), "teacher", parameter),
    )
    weight_CT = torch.zeros(2, case.size.tokens, device=case.hidden_NH.device)
    weight_CT[0, case.policy_P] = weight_CT[1, case.divergence_K] = 1 / case.size.tokens
    return FusedRouting(
        kernels=kernels,
        weight_CT=weight_CT,
        advantage_CT=torch.stack((case.advantage_N, torch.zeros_like(case.advantage_N))),
        row_of_T=torch.zeros_like(case.target_N),
    )


def _ours(case: Case) -> Tensor:
    teacher = TeacherHidden(
        rows_T=case.divergence_K,
        hidden_RH=case.teacher_NH[case.divergence_K],
        output_weight_vH=case.weight_VH.detach(),
    )
    return routed_linear_loss(
        case.hidden_NH,
        case.weight_VH,
        target_T=case.target_N,
        old_logp_T=case.old_logp_N,
        routing=_routing(case),
        teacher_hidden={"teacher": teacher},
        chunk_rows=case.chunk_rows,
    ).loss


def surrogate(logp: Tensor, old_logp: Tensor, advantage: Tensor) -> Tensor:
    """Minus the clipped surrogate of PPO, a token."""
    ratio = (logp - old_logp).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)


def divergence(name: str, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """The divergence of each row as textbooks write it."""
    student, teacher = F.log_softmax(student_logits.float(), -1), F.log_softmax(teacher_logits.float(), -1)
    match name:
        case "fkl":
            return F.kl_div(student, teacher, log_target=True, reduction="none").sum(-1)
        case "rkl":
            return F.kl_div(teacher, student, log_target=True, reduction="none").sum(-1)
    mix = torch.logaddexp(teacher, student) - math.log(2)
    parts = (F.kl_div(mix, side, log_target=True, reduction="none").sum(-1) for side in (teacher, student))
    return 0.5 * sum(parts)


def policy_rows(weight_VH: Tensor, hidden: Tensor, target: Tensor, old_logp: Tensor, advantage: Tensor) -> Tensor:
    """Sum of the surrogate over rows, through their logits."""
    logits = hidden @ weight_VH.t()
    logp = F.log_softmax(logits.float(), -1).gather(1, target[:, None])[:, 0]
    return surrogate(logp, old_logp, advantage).sum()


def divergence_rows(weight_VH: Tensor, name: str, hidden: Tensor, teacher: Tensor) -> Tensor:
    """Sum of a divergence over rows, through both sides' logits."""
    with torch.no_grad():
        teacher_logits = teacher @ weight_VH.t()
    return divergence(name, hidden @ weight_VH.t(), teacher_logits).sum()


def _policy_inputs(case: Case) -> tuple[Tensor, ...]:
    rows = case.policy_P
    return case.hidden_NH[rows], case.target_N[rows], case.old_logp_N[rows], case.advantage_N[rows]


def _naive_gathered(case: Case) -> Tensor:
    total = case.hidden_NH.new_zeros((), dtype=torch.float32)
    if case.policy_P.numel():
        total = total + policy_rows(case.weight_VH, *_policy_inputs(case))
    if case.divergence_K.numel():
        rows = case.divergence_K
        total = total + divergence_rows(case.weight_VH, case.divergence, case.hidden_NH[rows], case.teacher_NH[rows])
    return total / case.size.tokens


def _naive_dense(case: Case) -> Tensor:
    """Every term at every row, masked by weights."""
    logits = case.hidden_NH @ case.weight_VH.t()
    logp = F.log_softmax(logits.float(), -1).gather(1, case.target_N[:, None])[:, 0]
    mask_N = torch.zeros_like(logp).index_fill_(0, case.policy_P, 1.0)
    total = (mask_N * surrogate(logp, case.old_logp_N, case.advantage_N)).sum()
    if case.divergence_K.numel():
        with torch.no_grad():
            teacher_logits = case.teacher_NH @ case.weight_VH.t()
        total = total + ((1 - mask_N) * divergence(case.divergence, logits, teacher_logits)).sum()
    return total / case.size.tokens


def _chunked(case: Case) -> Tensor:
    """Chunks of rows, each compiled and recomputed in the backward."""
    if not case.kept:
        case.kept["policy"] = torch.compile(policy_rows)
        case.kept["divergence"] = torch.compile(functools.partial(_divergence_of, case.divergence))
    total = case.hidden_NH.new_zeros((), dtype=torch.float32)
    policy, rows = _policy_inputs(case), case.divergence_K
    wide = (case.hidden_NH[rows], case.teacher_NH[rows])
    for name, inputs in (("policy", policy), ("divergence", wide)):
        for parts in zip(*(tensor.split(PEER_CHUNK) for tensor in inputs), strict=True):
            if parts[0].numel():
                total = total + checkpoint(case.kept[name], case.weight_VH, *parts, use_reentrant=False)
    return total / case.size.tokens


def _divergence_of(name: str, weight_VH: Tensor, hidden: Tensor, teacher: Tensor) -> Tensor:
    return divergence_rows(weight_VH, name, hidden, teacher)


def _liger(case: Case, *, compiled: bool) -> Tensor:
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss, LigerFusedLinearJSDLoss

    total = case.hidden_NH.new_zeros((), dtype=torch.float32)
    if case.policy_P.numel():
        grpo = LigerFusedLinearGRPOLoss(
            beta=0.0, compiled=compiled, use_ref_model=False, loss_type="bnpo", epsilon_low=CLIP, epsilon_high=CLIP
        )
        hidden, target, old_logp, advantage = (tensor[None] for tensor in _policy_inputs(case))
        mask = torch.ones_like(target)
        loss, *_ = grpo(hidden, case.weight_VH, target, mask, advantage, old_per_token_logps=old_logp)
        total = total + loss * (case.policy_P.numel() / case.size.tokens)
    if case.divergence_K.numel():
        rows = case.divergence_K
        jsd = LigerFusedLinearJSDLoss(
            weight_hard_loss=0.0,
            weight_soft_loss=1.0,
            beta=SHARE[case.divergence],
            compiled=compiled,
            chunk_size=PEER_CHUNK,
        )
        loss = jsd(
            case.hidden_NH[rows], case.weight_VH, case.teacher_NH[rows], case.weight_VH.detach(), case.target_N[rows]
        )
        total = total + loss * (rows.numel() / case.size.tokens)
    return total


def _cut_cross_entropy(case: Case) -> Tensor:
    """The log-prob is its negative loss, and the policy gradient goes on from there."""
    from cut_cross_entropy import linear_cross_entropy

    hidden, target, old_logp, advantage = _policy_inputs(case)
    implementation = "cce" if case.hidden_NH.is_cuda else "torch_compile"
    logp = -linear_cross_entropy(hidden, case.weight_VH, target, reduction="none", impl=implementation)
    return surrogate(logp.float(), old_logp, advantage).sum() / case.size.tokens


def _no_divergence(case: Case) -> str | None:
    return "computes no divergence" if case.divergence_K.numel() else None


def _gathered_width(case: Case) -> float:
    return 4 * (1 - case.kl_fraction) + 9 * case.kl_fraction


PEERS = (
    Peer(name="routed_linear_loss", says="this repository", loss=_ours, wide=lambda case: 0.5),
    Peer(
        name="naive_gathered",
        says="dense code on the rows that feed each term",
        loss=_naive_gathered,
        wide=_gathered_width,
    ),
    Peer(
        name="naive_dense",
        says="every term at every row, masked",
        loss=_naive_dense,
        wide=lambda case: 12 if case.divergence_K.numel() else 4,
    ),
    Peer(
        name="liger_gathered",
        says="Liger's chunked GRPO and JSD on gathered rows",
        loss=functools.partial(_liger, compiled=False),
        wide=lambda case: 9 * min(1.0, PEER_CHUNK / case.size.tokens),
        package="liger-kernel==0.8.5",
    ),
    Peer(
        name="liger_gathered_compiled",
        says="the same with compiled=True, its default",
        loss=functools.partial(_liger, compiled=True),
        wide=lambda case: 9 * min(1.0, PEER_CHUNK / case.size.tokens),
        package="liger-kernel==0.8.5",
        slow_start=True,
    ),
    Peer(
        name="compiled_chunks",
        says="torch.compile on checkpointed chunks of gathered rows",
        loss=_chunked,
        wide=lambda case: 9 * min(1.0, PEER_CHUNK / case.size.tokens),
        slow_start=True,
    ),
    Peer(
        name="cut_cross_entropy",
        says="cut-cross-entropy; its torch.compile path on CPU",
        loss=_cut_cross_entropy,
        wide=lambda case: 4,
        package="cut-cross-entropy",
        slow_start=True,
        skips=_no_divergence,
    ),
)
