"""What a step sums up over the tokens of its micro-batches, and over the ranks.

Legend: T response tokens that this rank predicts, t some of them, C channels, L losses of the spec, P rows of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from megatron_bridge.device import training_device
from megatron_bridge.losses import RoutedLoss
from megatron_bridge.training.microbatch import MicroBatch
from trace_dsl.lowering import FusedRouting
from trace_dsl.lowering.fused import CispoKernel, PolicyGradientKernel

_SUMS = (
    "evaluated",
    "logp_gap",
    "entropy",
    "ratios",
    "clipped",
    "fresh",
    "mismatch",
    "mismatch_kl",
    "inside",
    "outside",
)
_OF_LOSSES = ("loss_L", "clipped_L", "gradient_L")
# each tensor-parallel rank has those of its columns; everything else is the same on all of them
_OF_COLUMNS = ("gradient_inside", "gradient_outside")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSums:
    """One loss of the spec over the global batch: what it adds to the objective, its tokens at which a clip is at work,
    and the sum over its tokens of |d loss / d logits|, added up over the vocabulary.
    """

    loss: float
    clipped: int
    gradient: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """Where a step's gradient falls: the mean over response tokens in a span of the annotator's, and over all others,
    of |d loss / d logits| added up over the vocabulary and the losses; None where there is no such token.
    """

    inside: float | None
    outside: float | None

    @property
    def concentration(self) -> float | None:
        """inside / outside (arXiv 2605.10194: how a method concentrates credit)."""
        return self.inside / self.outside if self.inside is not None and self.outside else None


def token_sums(result: RoutedLoss, batch: MicroBatch) -> dict[str, Tensor]:
    """Sums over the tokens of a micro-batch that this rank predicts, and one maximum, float64. Nothing waits for a GPU
    here but to count.
    """
    stats, routing = result.stats, batch.routing
    weighted_CT = routing.weight_CT != 0
    routed_T = weighted_CT.any(0)
    ratios = [isinstance(kernel, PolicyGradientKernel | CispoKernel) for kernel in routing.kernels]
    change_T = stats.logp_T - batch.old_logp_T
    norm_CT = result.stats.gradient_norm_CT.double()
    gradient_T = torch.where(weighted_CT, norm_CT, 0.0).sum(0)
    inside_T = batch.annotated_T
    mismatch_t = change_T[routed_T & batch.fresh_T].double()
    return {
        "loss_C": result.loss_C.double(),
        "evaluated": routed_T.double().sum(),
        "logp_gap": change_T[routed_T].abs().double().sum(),
        "entropy": stats.entropy_T[routed_T].double().sum(),
        "ratios": weighted_CT[torch.tensor(ratios, dtype=torch.bool, device=routed_T.device)].any(0).double().sum(),
        "clipped": stats.clipped_CT.any(0)[routed_T].double().sum(),
        "fresh": torch.tensor(float(len(mismatch_t)), dtype=torch.float64, device=mismatch_t.device),
        "mismatch": mismatch_t.abs().sum(),
        "mismatch_kl": (mismatch_t.expm1() - mismatch_t).sum(),
        "mismatch_max": mismatch_t.abs().max() if len(mismatch_t) else mismatch_t.sum(),
        "inside": inside_T.double().sum(),
        "outside": (~inside_T).double().sum(),
        "gradient_inside": gradient_T[inside_T].sum(),
        "gradient_outside": gradient_T[~inside_T].sum(),
        **_sums_of_losses(result, routing),
    }


def _sums_of_losses(result: RoutedLoss, routing: FusedRouting) -> dict[str, Tensor]:
    """[L] each. Losses that share a kernel have their weight's share in it; where their weights cancel, the kernel is
    not evaluated and none of them has any.
    """
    parts, stats = routing.parts, result.stats
    channel_P = torch.tensor(parts.channel_of_P, dtype=torch.int64, device=parts.part_PT.device)
    weight_PT, part_PT = routing.weight_CT[channel_P].double(), parts.part_PT.double()
    trains_PT = (part_PT != 0) & (weight_PT != 0)
    norm_PT = stats.gradient_norm_CT[channel_P].double() * (part_PT / weight_PT).abs()
    values = {
        "loss_L": part_PT * stats.value_CT[channel_P].double(),
        "clipped_L": stats.clipped_CT[channel_P].double(),
        "gradient_L": norm_PT,
    }
    return {name: parts.by_loss(torch.where(trains_PT, value_PT, 0.0)).sum(1) for name, value_PT in values.items()}


def over_ranks(parts: Sequence[Mapping[str, Tensor]], routing: FusedRouting) -> dict[str, Tensor]:
    """Sums (and the largest mismatch) of what the micro-batches of the last stage gave, the same on every rank.

    Collectives: two all-reduces of some numbers over dp x cp, one over tp, and broadcasts over pp.
    """
    names = (*_SUMS, "loss_C", *_OF_LOSSES, *_OF_COLUMNS)
    losses = routing.parts.losses
    sizes = [1] * len(_SUMS) + [len(routing.kernels)] + [losses] * len(_OF_LOSSES) + [1] * len(_OF_COLUMNS)
    packed = torch.zeros(sum(sizes), dtype=torch.float64, device=training_device())
    largest = torch.zeros(1, dtype=torch.float64, device=training_device())
    for one in parts:
        packed += torch.cat([one[name].reshape(size) for name, size in zip(names, sizes, strict=True)])
        largest = torch.maximum(largest, one["mismatch_max"])
    of_columns = losses + len(_OF_COLUMNS)  # gradient_L and what follows it
    dist.all_reduce(packed[len(packed) - of_columns :], group=parallel_state.get_tensor_model_parallel_group())
    data = parallel_state.get_data_parallel_group(with_context_parallel=True)
    dist.all_reduce(packed, group=data)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=data)
    group = parallel_state.get_pipeline_model_parallel_group()
    if group.size() > 1:
        for told in (packed, largest):
            dist.broadcast(told, group=group, group_src=group.size() - 1)
    found = dict(zip(names, packed.split(sizes), strict=True))
    single = (*_SUMS, *_OF_COLUMNS)
    return {name: value[0] if name in single else value for name, value in found.items()} | {"mismatch_max": largest[0]}


def losses_of(sums: Mapping[str, Tensor]) -> tuple[LossSums, ...]:
    """The sums of every loss, out of `over_ranks`."""
    return tuple(
        LossSums(loss=loss, clipped=int(clipped), gradient=gradient)
        for loss, clipped, gradient in zip(*(sums[name].tolist() for name in _OF_LOSSES), strict=True)
    )


def credit_of(sums: Mapping[str, Tensor]) -> Credit:
    """Where the gradient falls, out of `over_ranks`."""
    inside, outside = (
        float(sums[f"gradient_{where}"] / sums[where]) if sums[where] else None for where in ("inside", "outside")
    )
    return Credit(inside=inside, outside=outside)
