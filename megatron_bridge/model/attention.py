"""Attention for the local layer specification, and a key/value cache whose rows have lengths of their own.

Suffixes: s sequence (S over all context parallel ranks, or cache slots), b batch, n heads / tp, g key/value groups
/ tp, r = n / g, d head dimension.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.inference.contexts import StaticInferenceContext
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig


class SdpaAttention(MegatronModule):
    """Causal `core_attention` by torch's scaled dot-product attention: no dropout, no bias.

    Under context parallelism a rank has two pieces of each sequence, as megatron-core cuts it
    (`places_of_rank`); the keys and values of all ranks are gathered and the mask goes by place.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        softmax_scale: float | None = None,
        pg_collection: Any = None,
        **_kwargs: Any,
    ) -> None:
        super().__init__(config=config)
        self.softmax_scale = softmax_scale
        self.cp_group = None if pg_collection is None else pg_collection.cp
        assert config.context_parallel_size == 1 or self.cp_group is not None

    def forward(
        self,
        query_sbnd: torch.Tensor,
        key_sbgd: torch.Tensor,
        value_sbgd: torch.Tensor,
        attention_mask: torch.Tensor | None,
        packed_seq_params: PackedSeqParams | None = None,
        **_kwargs: Any,
    ) -> torch.Tensor:
        """[s, b, n * d]; packed sequences come, as Megatron hands them over, without b, and each sees itself alone.

        Raises ValueError for an explicit mask: the mask is always causal. Collectives: two all-gathers over cp.
        """
        if attention_mask is not None:
            raise ValueError("attention_mask is given, but the mask is always causal: pass None")
        if packed_seq_params is None:
            return self._attend(query_sbnd, *self._of_all_ranks(key_sbgd, value_sbgd))
        query_sbnd = query_sbnd[:, None]
        keys, values = self._of_all_ranks(key_sbgd[:, None], value_sbgd[:, None])
        lengths = (packed_seq_params.cu_seqlens_q.diff() // len(keys)).tolist()
        parts = zip(query_sbnd.split(lengths), keys.split(lengths, dim=1), values.split(lengths, dim=1), strict=True)
        return torch.cat([self._attend(*part) for part in parts])

    def _of_all_ranks(self, *mine: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Each [s, b, g, d] as [cp, s, b, g, d]."""
        if self.config.context_parallel_size == 1:
            return tuple(x[None] for x in mine)
        group = self.cp_group
        return tuple(
            gather_from_sequence_parallel_region(x, group=group).unflatten(0, (group.size(), -1)) for x in mine
        )

    def _attend(self, query_sbnd: torch.Tensor, key_csbgd: torch.Tensor, value_csbgd: torch.Tensor) -> torch.Tensor:
        """This rank's places of sequences to those of all ranks c."""
        ranks, mask_sS = len(key_csbgd), None
        keys, values = key_csbgd.flatten(0, 1), value_csbgd.flatten(0, 1)
        if ranks > 1:
            places = [places_of_rank(len(keys), rank, ranks) for rank in range(ranks)]
            mask_sS = (places[self.cp_group.rank()][:, None] >= torch.cat(places)[None]).to(keys.device)
        return causal_attention(query_sbnd, keys, values, scale=self.softmax_scale, mask_sS=mask_sS)


def places_of_rank(length: int, rank: int, cp: int) -> torch.Tensor:
    """The places of a sequence of `length` that context parallel rank `rank` holds, in its order, int64.

    A sequence is cut into 2 cp equal pieces; a rank has one from the front and its mirror image from the back, so that
    causal attention costs every rank the same. Raises ValueError for a length that cannot be cut so.
    """
    if cp == 1:
        return torch.arange(length)
    if length % (2 * cp):
        raise ValueError(f"{length} places cannot be cut into {2 * cp} equal pieces: pad to a multiple of {2 * cp}")
    pieces = torch.arange(length).chunk(2 * cp)
    return torch.cat((pieces[rank], pieces[2 * cp - 1 - rank]))


def causal_attention(
    query_sbnd: torch.Tensor,
    key_Sbgd: torch.Tensor,
    value_Sbgd: torch.Tensor,
    *,
    scale: float | None = None,
    mask_sS: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(scale q k^T + mask) v with grouped keys, [s, b, n * d]; scale None is 1/sqrt(d), mask None is causal.

    mask_sS: bool, true where a query sees a key.
    """
    out_bnsd = F.scaled_dot_product_attention(
        query_sbnd.permute(1, 2, 0, 3),
        key_Sbgd.permute(1, 2, 0, 3),
        value_Sbgd.permute(1, 2, 0, 3),
        attn_mask=mask_sS,
        is_causal=mask_sS is None,
        scale=scale,
        enable_gqa=query_sbnd.shape[2] != key_Sbgd.shape[2],
    )
    return out_bnsd.permute(2, 0, 1, 3).flatten(2)


class RaggedCache(StaticInferenceContext):
    """A key/value cache for prompts of different lengths: no padding between a prompt and its continuation.

    Rotated keys and values lie as [b, g, S, d], slot = position. First the prompts are written side by side
    (`prefill`), then each forward adds one token to each row at the row's own position (`advance`).
    """

    def __init__(self, *, cos_Sd: torch.Tensor, sin_Sd: torch.Tensor) -> None:
        """`cos_Sd`, `sin_Sd`: rotary cosines and sines [S, d / 2]; S is the capacity in tokens."""
        super().__init__(max_batch_size=0, max_sequence_length=cos_Sd.shape[0])
        self.cos_Sd, self.sin_Sd = cos_Sd, sin_Sd
        self.positions_b: torch.Tensor | None = None
        self.rows: torch.Tensor | None = None
        self.mask: torch.Tensor | None = None
        self.longest = 0

    def prefill(self, length: int) -> None:
        """Announce a forward of prompts padded on the right to `length`."""
        self.longest = length
        self.cos, self.sin = self.cos_Sd[:length, None, None], self.sin_Sd[:length, None, None]

    def advance(self, positions_b: torch.Tensor, longest: int) -> None:
        """Announce a forward of one token a row at `positions_b`; `longest` is their maximum plus one."""
        self.positions_b, self.longest = positions_b, longest
        self.rows = torch.arange(len(positions_b), device=positions_b.device)
        slots_S = torch.arange(longest, device=positions_b.device)
        self.mask = (slots_S <= positions_b[:, None])[:, None, None]  # [b, 1, 1, S]
        self.cos, self.sin = self.cos_Sd[positions_b][None, :, None], self.sin_Sd[positions_b][None, :, None]

    def select(self, rows: torch.Tensor) -> None:
        """Keep the cached rows `rows`, in that order; a row may come several times or not at all."""
        for layer, (keys, values) in self.key_value_memory_dict.items():
            self.key_value_memory_dict[layer] = (keys[rows], values[rows])

    def rotate(self, x_sbnd: torch.Tensor) -> torch.Tensor:
        """Rotary embedding at this forward's positions: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin)."""
        first, second = x_sbnd.float().chunk(2, -1)
        rotated = torch.cat((first * self.cos - second * self.sin, second * self.cos + first * self.sin), -1)
        return rotated.to(x_sbnd.dtype)

    def attend(
        self, layer: int, query_sbnd: torch.Tensor, key_sbgd: torch.Tensor, value_sbgd: torch.Tensor
    ) -> torch.Tensor:
        """Cache this forward's keys and values of `layer` and attend to each row so far: [s, b, n * d]."""
        query_sbnd, key_sbgd = self.rotate(query_sbnd), self.rotate(key_sbgd)
        if self.positions_b is None:
            _, batch, groups, dim = key_sbgd.shape
            keys, values = (key_sbgd.new_zeros(batch, groups, self.max_sequence_length, dim) for _ in range(2))
            keys[:, :, : self.longest] = key_sbgd.permute(1, 2, 0, 3)
            values[:, :, : self.longest] = value_sbgd.permute(1, 2, 0, 3)
            self.key_value_memory_dict[layer] = (keys, values)
            return causal_attention(query_sbnd, key_sbgd, value_sbgd)
        keys, values = self.key_value_memory_dict[layer]
        keys[self.rows, :, self.positions_b] = key_sbgd[0]
        values[self.rows, :, self.positions_b] = value_sbgd[0]
        batch, groups, _, dim = keys.shape
        out_bgrd = F.scaled_dot_product_attention(
            query_sbnd.view(batch, groups, -1, dim),  # the r heads of a group share its keys
            keys[:, :, : self.longest],
            values[:, :, : self.longest],
            attn_mask=self.mask,
        )
        return out_bgrd.reshape(1, batch, -1)


class CachedSelfAttention(SelfAttention):
    """megatron-core's self-attention; with a `RaggedCache` it keeps rotated keys and attends row by row."""

    def forward(
        self, hidden_states: torch.Tensor, *args: Any, inference_context: Any = None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Output [s, b, h] and its bias, as `SelfAttention.forward`."""
        if not isinstance(inference_context, RaggedCache):
            return super().forward(hidden_states, *args, inference_context=inference_context, **kwargs)
        query, key, value = self.get_query_key_value_tensors(hidden_states)
        return self.linear_proj(inference_context.attend(self.layer_number, query, key, value))
