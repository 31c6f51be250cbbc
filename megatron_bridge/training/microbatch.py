"""Cutting the global batch of a step into this rank's micro-batches.

Legend: b sequences, s places of a sequence on this rank, T response tokens of the micro-batch, t those of them that are
meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor

from megatron_bridge.model.attention import places_of_rank
from megatron_bridge.rollout.align import token_spans
from megatron_bridge.training.collect import Rollout, share
from trace_dsl.lowering import FusedRouting


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sequences:
    """Prompts with responses, right-padded or packed; the part of them that this rank holds, and the response tokens it
    predicts.

    ids_bs: int64 token ids at places_s, the same places of every sequence (all of them without context parallelism).
    here_t: int64, which of the T response tokens are predicted on this rank; at_t, row_t: the hidden state at
    ids_bs[row_t, at_t] predicts token here_t.
    packed: where the sequences stand one behind the other in a single row (b 1): their lengths, as Megatron tells its
    attention; places_s then begins again at each of them.
    """

    ids_bs: Tensor
    places_s: Tensor
    here_t: Tensor
    at_t: Tensor
    row_t: Tensor
    packed: PackedSeqParams | None = None

    @property
    def positions_bs(self) -> Tensor:
        return self.places_s.expand_as(self.ids_bs)

    def only(self, token_R: Tensor) -> Sequences:
        """The same with only those of the predicted tokens that are among `token_R`."""
        kept_t = torch.isin(self.here_t, token_R)
        return replace(self, here_t=self.here_t[kept_t], at_t=self.at_t[kept_t], row_t=self.row_t[kept_t])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MicroBatch:
    """What one forward and backward pass reads.

    rollouts: its sequences in order; place_T: int64 (CPU), where each token stands in the global batch; row_T: int64,
    the sequence of each token; proximal_logp_T: log-probs before the iteration's updates, None when no loss reads them;
    fresh_T: bool, drawn with the weights of now; annotated_T: bool, in a span of the annotator's.
    """

    rollouts: tuple[Rollout, ...]
    place_T: Tensor
    sequences: Sequences
    row_T: Tensor
    target_T: Tensor
    old_logp_T: Tensor
    proximal_logp_T: Tensor | None
    fresh_T: Tensor
    annotated_T: Tensor
    routing: FusedRouting

    def take(self, token_t: Tensor) -> MicroBatch:
        """The same micro-batch with only the tokens `token_t`; the sequences stay."""
        return replace(
            self,
            place_T=self.place_T[token_t.cpu()],
            row_T=self.row_T[token_t],
            target_T=self.target_T[token_t],
            old_logp_T=self.old_logp_T[token_t],
            proximal_logp_T=None if self.proximal_logp_T is None else self.proximal_logp_T[token_t],
            fresh_T=self.fresh_T[token_t],
            annotated_T=self.annotated_T[token_t],
            routing=self.routing.take(token_t),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """This rank's part in training: data-parallel rank of so many, context-parallel rank of so many.

    multiple: what the padded length of sequences is a multiple of.
    pack_tokens: micro-batches are packed, with at most so many tokens; None: they are padded.
    fewest: how many packed micro-batches there are at least, given so many sequences.
    """

    dp_rank: int = 0
    dp: int = 1
    cp_rank: int = 0
    cp: int = 1
    multiple: int = 1
    pack_tokens: int | None = None
    fewest: int = 1

    def padded(self, length: int) -> int:
        """The places that a sequence of `length` tokens is given."""
        return -(-length // self.multiple) * self.multiple


def join(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device, share: Share
) -> Sequences:
    """Join each prompt with its response. The first response token is predicted at the prompt's last place."""
    if share.pack_tokens is None:
        return _padded(prompts, responses, device, share)
    return _packed(prompts, responses, device, share)


def _padded(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device, share: Share
) -> Sequences:
    """Side by side, each as long as the longest."""
    lengths = [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
    padded = share.padded(max(lengths))
    ids_bs = torch.zeros(len(prompts), padded, dtype=torch.int64)
    place, row = [], []
    for b, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids_bs[b, : lengths[b]] = torch.tensor([*prompt, *response], dtype=torch.int64)
        place.append(torch.arange(len(response)) + len(prompt) - 1)
        row.append(torch.full((len(response),), b))
    places_s = places_of_rank(padded, share.cp_rank, share.cp)
    at_place = torch.full((padded,), -1)
    at_place[places_s] = torch.arange(len(places_s))
    at_T = at_place[torch.cat(place)]
    here_t = (at_T >= 0).nonzero()[:, 0]
    return Sequences(
        ids_bs=ids_bs[:, places_s].to(device),
        places_s=places_s.to(device),
        here_t=here_t.to(device),
        at_t=at_T[here_t].to(device),
        row_t=torch.cat(row)[here_t].to(device),
    )


def _packed(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device, share: Share
) -> Sequences:
    """One behind the other; each is padded by itself to what the layout can cut."""
    ids, places, at, lengths, held = [], [], [], [], 0
    for prompt, response in zip(prompts, responses, strict=True):
        tokens = torch.tensor([*prompt, *response], dtype=torch.int64)
        length = share.padded(len(tokens))
        places_s = places_of_rank(length, share.cp_rank, share.cp)
        ids.append(torch.nn.functional.pad(tokens, (0, length - len(tokens)))[places_s])
        at_place = torch.full((length,), -1)
        at_place[places_s] = held + torch.arange(len(places_s))
        at.append(at_place[torch.arange(len(response)) + len(prompt) - 1])
        places.append(places_s)
        lengths.append(length)
        held += len(places_s)
    at_T = torch.cat(at)
    here_t = (at_T >= 0).nonzero()[:, 0]
    begins = torch.tensor([0, *lengths]).cumsum(0).to(device=device, dtype=torch.int32)
    return Sequences(
        ids_bs=torch.cat(ids)[None].to(device),
        places_s=torch.cat(places).to(device),
        here_t=here_t.to(device),
        at_t=at_T[here_t].to(device),
        row_t=torch.zeros_like(here_t, device=device),
        packed=PackedSeqParams(
            qkv_format="thd",
            cu_seqlens_q=begins,
            cu_seqlens_kv=begins,
            max_seqlen_q=max(lengths),
            max_seqlen_kv=max(lengths),
        ),
    )


def cut(
    rollouts: Sequence[Rollout],
    routing: FusedRouting,
    proximal_logp_T: Tensor | None = None,
    *,
    micro_batch: int,
    part: Share,
    device: torch.device,
    version: int | None = None,
) -> list[MicroBatch]:
    """This data-parallel rank's micro-batches: `micro_batch` sequences each, like lengths together to pad little, or,
    where `part.pack_tokens` is given, as many as that holds.

    `routing` and `proximal_logp_T` cover the response tokens of all `rollouts`, in order. The weights hold the global
    denominators already, so any cut adds up to the same loss and gradient. Micro-batches hold whole responses; their
    `sequences` are what this context-parallel rank has of them.
    `version` names the weights of now, where they are to be compared with those that drew a token.
    """
    starts, total = [], 0
    for rollout in rollouts:
        starts.append(total)
        total += len(rollout.token_ids)
    lengths = {
        row: len(rollouts[row].prompt_ids) + len(rollouts[row].token_ids)
        for row in share(len(rollouts), part.dp_rank, part.dp)
    }
    batches = []
    for chosen in _of_equal_count(lengths, micro_batch) if part.pack_tokens is None else _of_few_tokens(lengths, part):
        members = tuple(rollouts[r] for r in chosen)
        tokens = torch.cat([torch.arange(len(rollouts[r].token_ids)) + starts[r] for r in chosen])
        target = [token for m in members for token in m.token_ids]
        fresh = [drawn_by == version for m in members for drawn_by in m.weight_versions]
        old_logp = [logprob for m in members for logprob in m.logprobs]
        batches.append(
            MicroBatch(
                rollouts=members,
                place_T=tokens,
                sequences=join([m.prompt_ids for m in members], [m.token_ids for m in members], device, part),
                row_T=torch.tensor(
                    [row for row, m in enumerate(members) for _ in m.token_ids], dtype=torch.int64, device=device
                ),
                target_T=torch.tensor(target, dtype=torch.int64, device=device),
                old_logp_T=torch.tensor(old_logp, dtype=torch.float32, device=device),
                proximal_logp_T=None if proximal_logp_T is None else proximal_logp_T[tokens].to(device),
                fresh_T=torch.tensor(fresh, dtype=torch.bool, device=device),
                annotated_T=torch.cat([_annotated(m) for m in members]).to(device),
                routing=routing.take(tokens).to(device),
            )
        )
    return batches


def _annotated(rollout: Rollout) -> Tensor:
    """bool, of each response token: whether a span of the annotator's, of whatever label, holds it."""
    inside = torch.zeros(len(rollout.token_ids), dtype=torch.bool)
    for span in token_spans(0, rollout.aligned, rollout.annotation.spans):
        inside[span.start : span.end] = True
    return inside


def _of_equal_count(lengths: Mapping[int, int], count: int) -> list[list[int]]:
    """The rows, `count` at a time, short ones first."""
    rows = sorted(lengths, key=lengths.__getitem__)
    return [rows[begin : begin + count] for begin in range(0, len(rows), count)]


def _of_few_tokens(lengths: Mapping[int, int], part: Share) -> list[list[int]]:
    """The rows in packs of at most `part.pack_tokens` tokens: the longest first, each into the first pack with room for
    it. A row that is longer than that is a pack by itself. Where there are fewer packs than `part.fewest`, those with
    the most rows are halved."""
    assert part.pack_tokens is not None
    packs: list[list[int]] = []
    room: list[int] = []
    for row in sorted(lengths, key=lengths.__getitem__, reverse=True):
        length = part.padded(lengths[row])
        pack = next((number for number, left in enumerate(room) if left >= length), None)
        if pack is None:
            packs.append([row])
            room.append(part.pack_tokens - length)
        else:
            packs[pack].append(row)
            room[pack] -= length
    while len(packs) < part.fewest:
        fullest = max(packs, key=len)
        packs.remove(fullest)
        packs += [fullest[::2], fullest[1::2]]
    return packs
