"""Weights between Hugging Face's names and megatron-core's, for any tensor parallel size.

The mapping is a table of `Entry`; `hf_to_megatron` and `megatron_to_hf` read it in the two directions and are
exact inverses of one another, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

import torch

from megatron_bridge.model.shape import Family, ModelShape

Tensors = Mapping[str, torch.Tensor]


class Kind(Enum):
    """How Hugging Face tensors become one tensor parallel parameter."""

    WHOLE = "the same on every tp rank"
    VOCABULARY = "rows, padded with zeros to the padded vocabulary, then split"
    COLUMNS = "split by columns"
    QKV = "per key/value group its queries, key and value; then split by rows"
    GATE_UP = "gate and up split by rows each, then joined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One megatron parameter, the Hugging Face tensors it is made of, and how."""

    megatron: str
    hf: tuple[str, ...]
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One pipeline stage: its layers by global number, and whether it is the first and the last stage."""

    layers: range
    first: bool = True
    last: bool = True

    @classmethod
    def whole(cls, shape: ModelShape) -> Stage:
        """The only stage of a model without pipeline parallelism."""
        return cls(layers=range(shape.layers))


def entries(shape: ModelShape, stage: Stage, *, fused_norms: bool = False) -> Iterator[Entry]:
    """The parameters of one stage, in order; `fused_norms` gives transformer-engine's names of the layer
    norms.

    A tied model has one embedding; with pp > 1 the last stage holds a copy of it as its output layer.
    """
    embedding = "model.embed_tokens.weight"
    if stage.first:
        yield Entry(megatron="embedding.word_embeddings.weight", hf=(embedding,), kind=Kind.VOCABULARY)
    for number in stage.layers:
        yield from _layer(
            f"decoder.layers.{number - stage.layers.start}.", f"model.layers.{number}.", shape.family, fused_norms
        )
    if stage.last:
        yield Entry(megatron="decoder.final_layernorm.weight", hf=("model.norm.weight",), kind=Kind.WHOLE)
        if not (shape.tied and stage.first):
            output = embedding if shape.tied else "lm_head.weight"
            yield Entry(megatron="output_layer.weight", hf=(output,), kind=Kind.VOCABULARY)


def _layer(m: str, h: str, family: Family, fused_norms: bool) -> Iterator[Entry]:
    norm_1, norm_2 = "input_layernorm.weight", "pre_mlp_layernorm.weight"
    if fused_norms:
        norm_1, norm_2 = "self_attention.linear_qkv.layer_norm_weight", "mlp.linear_fc1.layer_norm_weight"
    attention, mlp = h + "self_attn.", h + "mlp."
    biases = (("self_attention.linear_qkv.bias", tuple(f"{attention}{x}_proj.bias" for x in "qkv"), Kind.QKV),)
    norms = tuple((f"self_attention.{x}_layernorm.weight", (f"{attention}{x}_norm.weight",), Kind.WHOLE) for x in "qk")
    for name, sources, kind in (
        (norm_1, (h + "input_layernorm.weight",), Kind.WHOLE),
        ("self_attention.linear_qkv.weight", tuple(f"{attention}{x}_proj.weight" for x in "qkv"), Kind.QKV),
        *(biases if family.qkv_bias else ()),
        *(norms if family.qk_norm else ()),
        ("self_attention.linear_proj.weight", (attention + "o_proj.weight",), Kind.COLUMNS),
        (norm_2, (h + "post_attention_layernorm.weight",), Kind.WHOLE),
        ("mlp.linear_fc1.weight", (mlp + "gate_proj.weight", mlp + "up_proj.weight"), Kind.GATE_UP),
        ("mlp.linear_fc2.weight", (mlp + "down_proj.weight",), Kind.COLUMNS),
    ):
        yield Entry(megatron=m + name, hf=sources, kind=kind)


def shard(
    kind: Kind,
    tensors: Sequence[torch.Tensor],
    shape: ModelShape,
    *,
    tp_rank: int,
    tp_size: int,
    padded_vocab: int,
) -> torch.Tensor:
    """The part of tp rank `tp_rank` of the parameter that the Hugging Face `tensors` make."""

    def rows(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.chunk(tp_size, 0)[tp_rank]

    match kind:
        case Kind.WHOLE:
            return tensors[0]
        case Kind.VOCABULARY:
            missing = padded_vocab - tensors[0].shape[0]
            return rows(torch.nn.functional.pad(tensors[0], (0, 0, 0, missing))).contiguous()
        case Kind.COLUMNS:
            return tensors[0].chunk(tp_size, 1)[tp_rank].contiguous()
        case Kind.QKV:
            groups = [tensor.unflatten(0, (shape.kv_heads, -1)) for tensor in tensors]
            return rows(torch.cat(groups, 1).flatten(0, 1)).contiguous()
        case Kind.GATE_UP:
            return torch.cat([rows(tensor) for tensor in tensors])
    assert_never(kind)


def unshard(kind: Kind, shards: Sequence[torch.Tensor], shape: ModelShape) -> tuple[torch.Tensor, ...]:
    """The Hugging Face tensors from the parts of all tp ranks, in rank order: the inverse of `shard`."""
    match kind:
        case Kind.WHOLE:
            return (shards[0],)
        case Kind.VOCABULARY:
            return (torch.cat(list(shards))[: shape.vocab_size].contiguous(),)
        case Kind.COLUMNS:
            return (torch.cat(list(shards), 1),)
        case Kind.QKV:
            groups = torch.cat(list(shards)).unflatten(0, (shape.kv_heads, -1, shape.head_dim))
            queries = shape.heads // shape.kv_heads
            parts = (groups[:, :queries], groups[:, queries : queries + 1], groups[:, queries + 1 :])
            return tuple(part.flatten(0, 2).contiguous() for part in parts)
        case Kind.GATE_UP:
            halves = [part.chunk(2) for part in shards]
            return (torch.cat([gate for gate, _ in halves]), torch.cat([up for _, up in halves]))
    assert_never(kind)


def hf_to_megatron(
    state_dict: Tensors,
    shape: ModelShape,
    tp_rank: int,
    tp_size: int,
    padded_vocab: int,
    *,
    stage: Stage | None = None,
    fused_norms: bool = False,
) -> dict[str, torch.Tensor]:
    """One rank's parameters from a whole Hugging Face state dict; KeyError for a missing tensor."""
    return {
        entry.megatron: shard(
            entry.kind,
            [state_dict[name] for name in entry.hf],
            shape,
            tp_rank=tp_rank,
            tp_size=tp_size,
            padded_vocab=padded_vocab,
        )
        for entry in entries(shape, stage or Stage.whole(shape), fused_norms=fused_norms)
    }


def megatron_to_hf(
    shards: Sequence[Tensors], shape: ModelShape, *, stage: Stage | None = None, fused_norms: bool = False
) -> dict[str, torch.Tensor]:
    """One stage's Hugging Face tensors from the parameters of its tp ranks, in rank order."""
    result = {}
    for entry in entries(shape, stage or Stage.whole(shape), fused_norms=fused_norms):
        parts = unshard(entry.kind, [rank[entry.megatron] for rank in shards], shape)
        result.update(zip(entry.hf, parts, strict=True))
    return result
