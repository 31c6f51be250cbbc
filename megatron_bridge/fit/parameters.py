"""How many parameters a rank holds.

Legend, here and in the modules beside: H hidden, A = heads x head dimension / tp, G = key/value heads x head dimension
/ tp, F = feed-forward channels / tp, v = padded vocabulary / tp.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron_bridge.model.shape import Layout, ModelShape, padded_vocab


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """What of each width a tensor parallel rank has."""

    hidden: int
    attention: int
    groups: int
    ffn: int
    vocabulary: int
    heads: int
    head_dim: int

    @classmethod
    def of(cls, shape: ModelShape, tp: int) -> Widths:
        return cls(
            hidden=shape.hidden_size,
            attention=shape.heads * shape.head_dim // tp,
            groups=shape.kv_heads * shape.head_dim // tp,
            ffn=shape.ffn_size // tp,
            vocabulary=padded_vocab(shape.vocab_size, tp) // tp,
            heads=(shape.heads + shape.kv_heads) // tp,
            head_dim=shape.head_dim,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Of one rank. layer: of one of its `layers`; largest: of its largest parameter; tied: it has the embedding, which
    is its output layer too."""

    layers: int
    layer: int
    embedding: int
    output: int
    final_norm: int
    largest: int
    tied: bool

    @property
    def total(self) -> int:
        return self.layers * self.layer + self.embedding + self.output + self.final_norm


def parameters_of(shape: ModelShape, layout: Layout, stage: int) -> Parameters:
    """The parameters of a rank in pipeline stage `stage`.

    layer = H (A + 2 G) + A H + 3 F H + 2 H, and what the family adds; the first stage holds v H of the embedding, the
    last one v H of the output layer, which for a tied model is the embedding where they are one stage and a copy of it
    where they are not.
    """
    w = Widths.of(shape, layout.tp)
    first, last = stage == 0, stage == layout.pp - 1
    qkv, fc1 = w.hidden * (w.attention + 2 * w.groups), 2 * w.ffn * w.hidden
    family = (2 * shape.head_dim if shape.family.qk_norm else 0) + (
        w.attention + 2 * w.groups if shape.family.qkv_bias else 0
    )
    table = w.vocabulary * w.hidden
    tied = shape.tied and first and last
    return Parameters(
        layers=shape.layers // layout.pp,
        layer=qkv + w.attention * w.hidden + fc1 + w.ffn * w.hidden + 2 * w.hidden + family,
        embedding=table if first else 0,
        output=table if last and not tied else 0,
        final_norm=w.hidden if last else 0,
        largest=max(table if first or last else 0, qkv, fc1),
        tied=tied,
    )
