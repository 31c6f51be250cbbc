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
from megatron_bridge.training.microbatch import MicroBatch
from megatron_bridge.training.teacher import SelfTeacherModel
from trace_dsl.terms import Signal


@torch.no_grad()
def measure(
    signals: frozenset[Signal],
    policy: torch.nn.Module,
    teachers: Sequence[SelfTeacherModel],
    micro_batches: Sequence[MicroBatch],
    *,
    tokens: int,
    temperature: float,
    vocab_size: int,
) -> tuple[tuple[Signal, Tensor], ...]:
    """float32 [tokens] (CPU) for each of `signals`, over the global batch; NaN where a teacher has no context.

    `micro_batches` are this data-parallel rank's, `tokens` the response tokens of the global batch. Collectives: those
    of the layers and of `routed_linear_loss` (tp), and a gather of the values (dp).
    """
    mine: dict[Signal, list[tuple[Tensor, Tensor]]] = {signal: [] for signal in signals}
    read = sorted({signal.teacher for signal in signals if signal.teacher is not None})
    by_name = {teacher.teacher.name: teacher for teacher in teachers}
    for batch in micro_batches:
        if any(signal.teacher is None for signal in signals):
            hidden_sbH = policy(batch.sequences.ids_bs, batch.sequences.positions_bs, None, return_hidden=True)
            hidden_TH = batch.sequences.predictors(hidden_sbH)
            everything = torch.arange(len(batch.target_T), device=batch.target_T.device)
            stats = _statistics(hidden_TH, bare(policy).output_weight(), batch, everything, temperature, vocab_size)
            for signal in signals:
                if signal.teacher is None:
                    mine[signal].append((batch.place_T, _value(signal, stats)))
        for name in read:
            teacher = by_name[name]
            has_r = torch.tensor([r.has(teacher.teacher.sees) for r in batch.rollouts], device=batch.target_T.device)
            token_t = has_r[batch.sequences.row_T].nonzero()[:, 0]
            hidden = teacher.hidden_rows(batch, token_t)
            if hidden is None:
                continue
            stats = _statistics(hidden.hidden_RH, hidden.output_weight_vH, batch, token_t, temperature, vocab_size)
            for signal in signals:
                if signal.teacher == name:
                    mine[signal].append((batch.place_T[token_t.cpu()], _value(signal, stats)))
    return _gathered(mine, tokens)


def _statistics(
    hidden_tH: Tensor, weight_vH: Tensor, batch: MicroBatch, token_t: Tensor, temperature: float, vocab_size: int
) -> TokenStatistics:
    """Log-prob and entropy at `token_t` of a micro-batch; the routing is empty, so nothing else is computed."""
    return routed_linear_loss(
        hidden_tH,
        weight_vH,
        target_T=batch.target_T[token_t],
        old_logp_T=None,
        routing=batch.routing.take(token_t),
        temperature=temperature,
        vocab_size=vocab_size,
        tp_group=parallel_state.get_tensor_model_parallel_group(),
        evaluate_all=True,
    ).stats


def _value(signal: Signal, stats: TokenStatistics) -> Tensor:
    return (stats.logp_T if signal.name.endswith("logp") else stats.entropy_T).float().cpu()


def _gathered(mine: dict[Signal, list[tuple[Tensor, Tensor]]], tokens: int) -> tuple[tuple[Signal, Tensor], ...]:
    """Every rank's values at their places in the global batch."""
    group = parallel_state.get_data_parallel_group()
    parts = [mine]
    if dist.get_world_size(group) > 1:
        parts = [mine] * dist.get_world_size(group)
        dist.all_gather_object(parts, mine, group=group)
    result = []
    for signal in sorted(mine, key=lambda s: (s.name, s.teacher or "")):
        value_T = torch.full((tokens,), torch.nan)
        for part in parts:
            for place_t, value_t in part[signal]:
                value_T[place_t] = value_t
        result.append((signal, value_T))
    return tuple(result)
