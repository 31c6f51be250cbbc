"""Signals that need a forward pass before the batch can be lowered: log-probs and entropies of policy and teachers.

Nothing here carries a gradient. A spec whose weights and predicates read none of them costs no pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from megatron_bridge.losses import TokenStatistics, routed_linear_loss
from megatron_bridge.model.gpt import bare
from megatron_bridge.training.forward import hidden_rows
from megatron_bridge.training.microbatch import MicroBatch, Share
from megatron_bridge.training.teacher import TeacherModel
from trace_dsl.terms import Signal


@torch.no_grad()
def measure(
    signals: frozenset[Signal],
    policy: torch.nn.ModuleList,
    teachers: Sequence[TeacherModel],
    micro_batches: Sequence[MicroBatch],
    part: Share,
    *,
    tokens: int,
    temperature: float,
    vocab_size: int,
) -> tuple[tuple[Signal, Tensor], ...]:
    """float32 [tokens] (CPU) for each of `signals`, over the global batch; NaN where a teacher has no context.

    `micro_batches` are this data-parallel rank's, `tokens` the response tokens of the global batch. Collectives: those
    of the layers and of `routed_linear_loss` (tp), of the teachers, from stage to stage (pp), and a gather of the
    values (dp, cp). Raises RuntimeError when a teacher that is read is not among `teachers`.
    """
    mine: dict[Signal, list[tuple[Tensor, Tensor]]] = {signal: [] for signal in signals}
    read = {signal.teacher for signal in signals if signal.teacher is not None}
    missing = read - {teacher.teacher.name for teacher in teachers}
    if missing:
        raise RuntimeError(f"{', '.join(sorted(missing))}: read at this step, and not held any more")

    def note(teacher: str | None, batch: MicroBatch, hidden_tH: Tensor, weight_vH: Tensor) -> None:
        stats = _statistics(hidden_tH, weight_vH, batch, temperature, vocab_size)
        for signal in signals:
            if signal.teacher == teacher:
                mine[signal].append((batch.place_T, _value(signal, stats)))

    if any(signal.teacher is None for signal in signals):
        rows = hidden_rows(policy, [batch.sequences for batch in micro_batches])
        for batch, hidden_tH in zip(micro_batches, rows, strict=False):
            note(None, batch.take(batch.sequences.here_t), hidden_tH, bare(policy[-1]).output_weight())
    for teacher in teachers:
        if teacher.teacher.name not in read:
            continue
        wanted = [_with_context(teacher, batch) for batch in micro_batches]
        for batch, found in zip(micro_batches, teacher.hidden_rows(micro_batches, wanted, part), strict=True):
            if found is not None:
                there = found.for_loss()
                here = batch.take(batch.sequences.here_t[there.rows_T])
                note(teacher.teacher.name, here, there.hidden_RH, there.output_weight_vH)
    return _gathered(mine, tokens)


def _with_context(teacher: TeacherModel, batch: MicroBatch) -> Tensor:
    """The tokens of the rollouts that have what the teacher is shown."""
    has_r = torch.tensor([r.has(teacher.teacher.sees) for r in batch.rollouts], device=batch.row_T.device)
    return has_r[batch.row_T].nonzero()[:, 0]


def _statistics(
    hidden_tH: Tensor, weight_vH: Tensor, batch: MicroBatch, temperature: float, vocab_size: int
) -> TokenStatistics:
    """Log-prob and entropy at the tokens of a micro-batch; the routing is empty, so nothing else is computed."""
    return routed_linear_loss(
        hidden_tH,
        weight_vH,
        target_T=batch.target_T,
        old_logp_T=None,
        routing=batch.routing,
        temperature=temperature,
        vocab_size=vocab_size,
        tp_group=parallel_state.get_tensor_model_parallel_group(),
        evaluate_all=True,
    ).stats


def _value(signal: Signal, stats: TokenStatistics) -> Tensor:
    return (stats.logp_T if signal.name.endswith("logp") else stats.entropy_T).float().cpu()


def _gathered(mine: dict[Signal, list[tuple[Tensor, Tensor]]], tokens: int) -> tuple[tuple[Signal, Tensor], ...]:
    """Every rank's values at their places in the global batch."""
    group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    parts = [mine]
    if group.size() > 1:
        parts = [mine] * group.size()
        dist.all_gather_object(parts, mine, group=group)
    stages = parallel_state.get_pipeline_model_parallel_group()
    if stages.size() > 1:  # the last one knows
        dist.broadcast_object_list(parts, group=stages, group_src=stages.size() - 1)
    result = []
    for signal in sorted(mine, key=lambda s: (s.name, s.teacher or "")):
        value_T = torch.full((tokens,), torch.nan)
        for part in parts:
            for place_t, value_t in part[signal]:
                value_T[place_t] = value_t
        result.append((signal, value_T))
    return tuple(result)
