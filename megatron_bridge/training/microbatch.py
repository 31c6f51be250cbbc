"""Cutting the global batch of a step into this rank's micro-batches.

Legend: b sequences, s padded sequence length, T response tokens of the micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_bridge.training.collect import Rollout, share
from trace_dsl.lowering import FusedRouting


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sequences:
    """Prompts with responses, right-padded, and where each response token is predicted.

    ids_bs: int64 token ids; at_T, row_T: int64, the hidden state at sequence place at_T of sequence row_T predicts
    response token T.
    """

    ids_bs: Tensor
    at_T: Tensor
    row_T: Tensor

    @property
    def positions_bs(self) -> Tensor:
        return torch.arange(self.ids_bs.shape[1], device=self.ids_bs.device).expand_as(self.ids_bs)

    def predictors(self, hidden_sbH: Tensor) -> Tensor:
        """[T, H]: the hidden state that predicts each response token."""
        return hidden_sbH[self.at_T, self.row_T]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MicroBatch:
    """What one forward and backward pass reads.

    rollouts: its sequences in order; place_T: int64 (CPU), where each token stands in the global batch;
    proximal_logp_T: log-probs before the iteration's updates, None when no loss reads them; fresh_T: bool, drawn with
    the weights of now.
    """

    rollouts: tuple[Rollout, ...]
    place_T: Tensor
    sequences: Sequences
    target_T: Tensor
    old_logp_T: Tensor
    proximal_logp_T: Tensor | None
    fresh_T: Tensor
    routing: FusedRouting


def pack(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device) -> Sequences:
    """Join each prompt with its response. The first response token is predicted at the prompt's last place."""
    lengths = [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
    ids_bs = torch.zeros(len(prompts), max(lengths), dtype=torch.int64)
    at, row = [], []
    for b, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids_bs[b, : lengths[b]] = torch.tensor([*prompt, *response], dtype=torch.int64)
        at.append(torch.arange(len(response)) + len(prompt) - 1)
        row.append(torch.full((len(response),), b))
    return Sequences(ids_bs=ids_bs.to(device), at_T=torch.cat(at).to(device), row_T=torch.cat(row).to(device))


def cut(
    rollouts: Sequence[Rollout],
    routing: FusedRouting,
    proximal_logp_T: Tensor | None = None,
    *,
    micro_batch: int,
    dp_rank: int,
    dp: int,
    device: torch.device,
    version: int | None = None,
) -> list[MicroBatch]:
    """This data-parallel rank's micro-batches of `micro_batch` sequences, like lengths together to pad little.

    `routing` and `proximal_logp_T` cover the response tokens of all `rollouts`, in order. The weights hold the global
    denominators already, so any cut adds up to the same loss and gradient. No response is cut.
    `version` names the weights of now, where they are to be compared with those that drew a token.
    """
    starts, total = [], 0
    for rollout in rollouts:
        starts.append(total)
        total += len(rollout.token_ids)
    rows = sorted(
        share(len(rollouts), dp_rank, dp),
        key=lambda r: len(rollouts[r].prompt_ids) + len(rollouts[r].token_ids),
    )
    batches = []
    for begin in range(0, len(rows), micro_batch):
        chosen = rows[begin : begin + micro_batch]
        members = tuple(rollouts[r] for r in chosen)
        tokens = torch.cat([torch.arange(len(rollouts[r].token_ids)) + starts[r] for r in chosen])
        target = [token for m in members for token in m.token_ids]
        fresh = [drawn_by == version for m in members for drawn_by in m.weight_versions]
        old_logp = [logprob for m in members for logprob in m.logprobs]
        batches.append(
            MicroBatch(
                rollouts=members,
                place_T=tokens,
                sequences=pack([m.prompt_ids for m in members], [m.token_ids for m in members], device),
                target_T=torch.tensor(target, dtype=torch.int64, device=device),
                old_logp_T=torch.tensor(old_logp, dtype=torch.float32, device=device),
                proximal_logp_T=None if proximal_logp_T is None else proximal_logp_T[tokens].to(device),
                fresh_T=torch.tensor(fresh, dtype=torch.bool, device=device),
                routing=routing.take(tokens).to(device),
            )
        )
    return batches
