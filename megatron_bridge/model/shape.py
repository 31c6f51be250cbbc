"""What a Hugging Face configuration says of a model, and whether a parallel layout can hold it.

Standard library only: a layout is checked before any process starts and before torch is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ACTIVATIONS = ("silu",)
# Of parameters and activations. bf16 keeps main weights and optimizer state in float32 and adds gradients up in it.
Precision = Literal["fp32", "bf16"]
# What layers are made of, as Megatron's --transformer-impl: torch, or NVIDIA's transformer-engine.
TransformerImpl = Literal["local", "transformer_engine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What sets one model type apart from the others.

    qk_norm: queries and keys go through an RMS norm each; qkv_bias: their projections, and that of the values, have a
    bias; only: settings that change the function computed, with the one value that is implemented.
    """

    name: str
    qk_norm: bool
    qkv_bias: bool
    only: Mapping[str, Any]


_NO_DROPOUT = {"attention_dropout": 0.0}
_FAMILIES = {
    "qwen3": Family(
        name="Qwen3",
        qk_norm=True,
        qkv_bias=False,
        only={**_NO_DROPOUT, "attention_bias": False, "use_sliding_window": False},
    ),
    "qwen2": Family(name="Qwen2", qk_norm=False, qkv_bias=True, only={**_NO_DROPOUT, "use_sliding_window": False}),
    "llama": Family(
        name="Llama",
        qk_norm=False,
        qkv_bias=False,
        only={**_NO_DROPOUT, "attention_bias": False, "mlp_bias": False, "pretraining_tp": 1},
    ),
}
MODEL_TYPES = tuple(_FAMILIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How ranks are split: `tp` tensor parallel, `pp` pipeline parallel, `cp` context parallel, `dp` data parallel.

    With `sp`, sequence parallelism, the tp ranks share the places of a sequence between their matrix products. With
    `vpp` above 1 each pipeline stage holds so many chunks of layers, which take turns (interleaved pipeline).
    """

    tp: int = 1
    pp: int = 1
    cp: int = 1
    dp: int = 1
    sp: bool = False
    vpp: int = 1

    def __post_init__(self) -> None:
        sizes = (("tp", self.tp), ("pp", self.pp), ("cp", self.cp), ("dp", self.dp), ("vpp", self.vpp))
        for name, value in sizes:
            if value < 1:
                raise ValueError(f"layout {name} = {value}: a parallel size is at least 1")
        if self.sp and self.tp == 1:
            raise ValueError(
                "layout sp splits sequences over the tensor parallel ranks: set tp to 2 or more, or drop sp"
            )
        if self.vpp > 1 and self.pp == 1:
            raise ValueError(f"layout vpp {self.vpp} interleaves pipeline stages: set pp to 2 or more, or vpp to 1")

    @property
    def world(self) -> int:
        """How many ranks the layout needs."""
        return self.tp * self.pp * self.cp * self.dp

    @property
    def sequence_multiple(self) -> int:
        """What the padded length of sequences, in tokens, is a multiple of.

        Context parallelism gives each rank two pieces of a sequence, sequence parallelism cuts a rank's part again.
        """
        return (2 * self.cp if self.cp > 1 else 1) * (self.tp if self.sp else 1)

    @property
    def fewest_micro_batches(self) -> int:
        """The fewest micro-batches that its pipeline schedule runs: interleaved, one for each stage."""
        return self.pp if self.vpp > 1 else 1

    @classmethod
    def fit(cls, *, world: int, tp: int = 1, pp: int = 1) -> Layout:
        """The layout of `world` ranks whose data parallel size is what `tp` and `pp` leave.

        Raises ValueError where `world` is no multiple of tp x pp.
        """
        model = cls(tp=tp, pp=pp).world
        if world < 1 or world % model:
            raise ValueError(
                f"{world} ranks cannot be split by tp {tp} x pp {pp} = {model}: "
                f"start a multiple of {model} processes, or lower tp or pp"
            )
        return cls(tp=tp, pp=pp, dp=world // model)


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """The rotary frequencies of Llama 3.1 and later, stretched for long contexts (`rope_type` llama3).

    Wavelengths above `original_max_position` / `low_freq_factor` are multiplied by `factor`, those below
    `original_max_position` / `high_freq_factor` stay, and those between are interpolated. Wavelengths in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The sizes of a decoder-only transformer with grouped-query attention and a gated MLP.

    `model_type` is one of MODEL_TYPES, `rope_base` the rotary base (theta), `norm_eps` the epsilon of every RMS norm,
    `tied` whether the output layer is the token embedding, `max_position` the longest sequence in tokens.
    """

    model_type: str

    vocab_size: int
    hidden_size: int
    ffn_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_position: int
    rope_base: float
    norm_eps: float
    tied: bool
    rope_scaling: RopeScaling | None = None

    @property
    def family(self) -> Family:
        return _FAMILIES[self.model_type]


def padded_vocab(vocab_size: int, tp: int) -> int:
    """The rows of the embedding over all tp ranks: the least multiple of `tp` not below `vocab_size`."""
    return -(-vocab_size // tp) * tp


def read_shape(directory: str | Path) -> ModelShape:
    """Read `config.json` of a Hugging Face model directory.

    Raises FileNotFoundError where it is missing and ValueError where it asks for what is not implemented.
    """
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: a model directory holds config.json and model.safetensors")
    return shape_from_config(json.loads(path.read_text(encoding="utf-8")), source=str(path))


def shape_from_config(config: Mapping[str, Any], *, source: str = "config.json") -> ModelShape:
    """Turn the parsed `config.json` of a model into a `ModelShape`; `source` names it in messages.

    The rotary base stands in `rope_parameters` (transformers 5) or `rope_theta` (before). Raises ValueError for another
    model type or activation, and for settings that its family does not implement.
    """
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ValueError(f"{source}: model_type {model_type!r} is not implemented; use one of {', '.join(MODEL_TYPES)}")
    missing = [name for name in _REQUIRED if name not in config]
    if missing:
        raise ValueError(f"{source}: missing {', '.join(missing)}; write the configuration with save_pretrained")
    activation = config.get("hidden_act", "silu")
    if activation not in ACTIVATIONS:
        raise ValueError(f"{source}: hidden_act {activation!r} is not implemented; use one of {', '.join(ACTIVATIONS)}")
    for name, only in _FAMILIES[model_type].only.items():
        if config.get(name, only) != only:
            raise ValueError(f"{source}: {name} {config[name]!r} is not implemented; it must be {only!r}")
    heads = config["num_attention_heads"]
    return ModelShape(
        model_type=model_type,
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        ffn_size=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        max_position=config["max_position_embeddings"],
        rope_base=_rope_base(config, source),
        rope_scaling=_rope_scaling(config, source),
        norm_eps=config["rms_norm_eps"],
        tied=bool(config.get("tie_word_embeddings", False)),
    )


_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "rms_norm_eps",
)


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found


def _rope_base(config: Mapping[str, Any], source: str) -> float:
    base = _rope(config).get("rope_theta", config.get("rope_theta"))
    if base is None:
        raise ValueError(f"{source}: no rotary base; set rope_parameters.rope_theta (or rope_theta)")
    return float(base)


def _rope_scaling(config: Mapping[str, Any], source: str) -> RopeScaling | None:
    rope = _rope(config)
    match rope.get("rope_type", rope.get("type", "default")):
        case "default":
            return None
        case "llama3":
            needed = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
            if missing := [name for name in needed if name not in rope]:
                raise ValueError(f"{source}: rope_type 'llama3' needs {', '.join(missing)}")
            return RopeScaling(
                factor=float(rope["factor"]),
                low_freq_factor=float(rope["low_freq_factor"]),
                high_freq_factor=float(rope["high_freq_factor"]),
                original_max_position=rope["original_max_position_embeddings"],
            )
        case kind:
            raise ValueError(f"{source}: rope_type {kind!r} is not implemented; use 'default' (no scaling) or 'llama3'")


def layout_problems(shape: ModelShape, layout: Layout) -> list[str]:
    """Say, one message each, why `layout` cannot hold a model of `shape`; an empty list where it can."""
    problems = []
    for name, size, hf_name in (
        ("attention heads", shape.heads, "num_attention_heads"),
        ("key/value heads", shape.kv_heads, "num_key_value_heads"),
        ("feed-forward channels", shape.ffn_size, "intermediate_size"),
        ("vocabulary rows after padding", padded_vocab(shape.vocab_size, layout.tp), "vocab_size"),
    ):
        if size % layout.tp:
            problems.append(
                f"{size} {name} ({hf_name}) cannot be split over tp {layout.tp}: "
                f"choose tp from {_divisors(size)}, or another model"
            )
    if shape.heads % shape.kv_heads:
        problems.append(
            f"{shape.heads} attention heads are no multiple of {shape.kv_heads} key/value heads: correct config.json"
        )
    if shape.layers % layout.pp:
        problems.append(
            f"{shape.layers} layers (num_hidden_layers) cannot be split over pp {layout.pp}: "
            f"choose pp from {_divisors(shape.layers)}"
        )
    elif shape.layers % (layout.pp * layout.vpp):
        each = shape.layers // layout.pp
        problems.append(
            f"the {each} layers of a pipeline stage ({shape.layers} layers over pp {layout.pp}) cannot be split into "
            f"vpp {layout.vpp} chunks: choose vpp from {_divisors(each)}"
        )
    return problems


def micro_batch_group(count: int, pp: int) -> int:
    """Of `count` micro-batches in an interleaved pipeline, how many a chunk takes before the next chunk has its turn.

    megatron-core wants at least `pp` of them, also in the last group: the smallest group that leaves so many or none,
    since each one more is kept in memory for longer. Raises ValueError for a count below `pp`.
    """
    if count < pp:
        raise ValueError(f"{count} micro-batches: an interleaved pipeline of pp {pp} stages needs {pp} or more")
    return next(size for size in range(pp, count + 1) if not 0 < count % size < pp)


def _divisors(size: int) -> str:
    return ", ".join(str(d) for d in range(1, min(size, 64) + 1) if size % d == 0)
