"""A step that must not be taken: a loss or a gradient that is no finite number, and the batch that gave it on disk.

Legend: C channels, t response tokens of a micro-batch that this rank predicts.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_bridge.atomic import write_bytes
from megatron_bridge.losses import RoutedLoss
from megatron_bridge.training.collect import Rollout
from megatron_bridge.training.microbatch import MicroBatch
from trace_dsl.errors import TraceError
from trace_dsl.lowering import Lowered

_NAMED = 4  # of each kind in a message: one cause may spoil everything
_FORMAT = 2


class NotFiniteError(TraceError, FloatingPointError):
    """A step was stopped before the optimizer changed a weight."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpoiledTokens:
    """Where a kernel's value is not finite: bool [C, t], and the places of the tokens in the global batch (CPU)."""

    spoiled_Ct: Tensor
    place_t: Tensor

    @classmethod
    def of(cls, result: RoutedLoss, batch: MicroBatch) -> SpoiledTokens:
        """Of the tokens that this rank predicts. Nothing waits for a GPU here."""
        live_Ct = batch.routing.weight_CT != 0
        return cls(spoiled_Ct=live_Ct & ~result.stats.value_CT.isfinite(), place_t=batch.place_T)

    def pairs(self) -> list[tuple[int, int]]:
        """(channel, place) of each."""
        channel_n, token_n = self.spoiled_Ct.cpu().nonzero().unbind(1)
        return list(zip(channel_n.tolist(), self.place_t[token_n].tolist(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFinite:
    """What is not finite in a step, the same on every rank.

    tokens: (channel, place in the global batch) where a loss is not, ascending; parameters: those whose gradient is
    not, by the name that some rank has for them.
    """

    loss_C: tuple[float, ...]
    grad_norm: float
    tokens: tuple[tuple[int, int], ...]
    parameters: tuple[str, ...]

    @property
    def channels(self) -> tuple[int, ...]:
        """Those whose loss is not finite, of a token or in sum."""
        summed = {channel for channel, loss in enumerate(self.loss_C) if not math.isfinite(loss)}
        return tuple(sorted(summed | {channel for channel, _ in self.tokens}))


def find_not_finite(
    model: torch.nn.ModuleList, loss_C: Tensor, grad_norm: float, spoiled: Sequence[SpoiledTokens]
) -> NotFinite | None:
    """What is not finite once the gradients of a step are ready, None where all is.

    `loss_C` is global, `spoiled` this rank's. Collectives over all ranks: one all-reduce of a number; where something
    is not finite on any rank, a gather of objects.
    """
    bad = not (math.isfinite(grad_norm) and bool(loss_C.isfinite().all()))
    flag = torch.tensor(float(bad), device=loss_C.device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    if not flag:
        return None
    mine = (
        [pair for part in spoiled for pair in part.pairs()],
        [
            name
            for chunk in model
            for name, parameter in chunk.named_parameters()
            if not parameter.main_grad.isfinite().all()
        ],
        grad_norm,
    )
    told = [mine] * dist.get_world_size()
    dist.all_gather_object(told, mine)
    norms = [norm for _, _, norm in told]
    return NotFinite(
        loss_C=tuple(loss_C.tolist()),
        grad_norm=next((norm for norm in norms if not math.isfinite(norm)), grad_norm),
        tokens=tuple(sorted({pair for pairs, _, _ in told for pair in pairs})),
        parameters=tuple(dict.fromkeys(name for _, names, _ in told for name in names)),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoppedBatch:
    """The global batch of a step that was not taken: its rollouts, what they were lowered to, the log-probs before the
    iteration's updates where a loss reads them, and what is not finite. `microbatch.cut` takes it as it is.
    """

    step: int
    rollouts: tuple[Rollout, ...]
    lowered: Lowered
    proximal_logp_T: Tensor | None
    found: NotFinite


def stop(directory: Path, batch: StoppedBatch, names_C: Sequence[str]) -> NotFiniteError:
    """Write the batch to `directory`/stopped/step_NNNNNN.pt and give the error to raise, the same on every rank.

    `names_C` are the channels' names. Rank 0 writes; where it cannot, the error says so. Collective over all ranks: a
    broadcast of an object, so that no rank ends before the file is whole.
    """
    path = directory / "stopped" / f"step_{batch.step:06d}.pt"
    told = [""]
    if dist.get_rank() == 0:
        try:
            path.parent.mkdir(exist_ok=True)
            _write(path, batch)
            told = [f"Its batch is in {path}, for megatron_bridge.training.stopped.read_stopped_batch."]
        except OSError as error:
            told = [f"Its batch could not be written to {path}: {error.strerror}."]
    dist.broadcast_object_list(told, src=0)
    return NotFiniteError(f"{_describe(batch, names_C)}. {told[0]} {_advice(batch.found)}")


def _write(path: Path, batch: StoppedBatch) -> None:
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "batch": batch}, buffer)
    write_bytes(path, buffer.getvalue())


def read_stopped_batch(path: Path) -> StoppedBatch:
    """The batch of a stopped step. It is a pickle: read those of your own runs only.

    Raises OSError where there is no file, ValueError for one of another format.
    """
    content = torch.load(path, weights_only=False)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path} is no stopped batch of format {_FORMAT}: it was written by another version")
    batch: StoppedBatch = content["batch"]
    return batch


def _describe(batch: StoppedBatch, names_C: Sequence[str]) -> str:
    found = batch.found
    said = [f"step {batch.step} was not taken, no weight was changed"]
    for channel in found.channels[:_NAMED]:
        said.append(f"the loss of {names_C[channel]} is {found.loss_C[channel]}{_where(batch, channel)}")
    if len(found.channels) > _NAMED:
        said.append(f"so are {len(found.channels) - _NAMED} others")
    if found.parameters or not math.isfinite(found.grad_norm):
        whose = f", not finite for {_some(found.parameters)}" if found.parameters else ""
        said.append(f"the norm of the gradient is {found.grad_norm}{whose}")
    if not found.channels:
        said.append("every loss is finite")
    return f"{said[0]}: {'; '.join(said[1:])}"


def _where(batch: StoppedBatch, channel: int) -> str:
    row_of_T = batch.lowered.routing.row_of_T
    rows = dict.fromkeys(int(row_of_T[place]) for c, place in batch.found.tokens if c == channel)
    if not rows:
        return ""
    named = [f"{row} (prompt {batch.rollouts[row].group})" for row in rows]
    return f" at {len(rows)} of {len(batch.rollouts)} rollouts: {_some(named)}"


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest


def _advice(found: NotFinite) -> str:
    if found.channels:
        fix = (
            "dual= or tis= bound a ratio that overflows, a lower optim.lr keeps the policy near the one that drew the "
            "rollouts"
        )
    else:
        fix = "lower the weights of the losses in the spec, or optim.lr where the policy's weights grew too far"
    return f"--resume would repeat the step as it was, so change something first: {fix}."
