"""megatron-core's GPTModel, built from a shape, that can stop before the output layer.

The routed loss works on hidden states and the output weight, so that full logits are never held.

Suffixes: s sequence, b batch, h hidden, v = padded vocabulary / tp.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_bridge.device import training_device
from megatron_bridge.model.attention import CachedSelfAttention, SdpaAttention
from megatron_bridge.model.config import transformer_config
from megatron_bridge.model.norm import ShardedRMSNorm
from megatron_bridge.model.rope import stretched
from megatron_bridge.model.shape import Layout, ModelShape, TransformerImpl, padded_vocab
from trace_dsl.errors import LayersError


class RoutedGPTModel(GPTModel):
    """A GPTModel whose forward can return the hidden states in place of logits."""

    _return_hidden = False

    def forward(self, *args: Any, return_hidden: bool = False, **kwargs: Any) -> torch.Tensor:
        """As `GPTModel.forward`; with `return_hidden` the hidden states after the final norm, [s, b, h].

        No logits are formed then, and the result carries its gradient. The keyword passes through Megatron's
        wrappers (DistributedDataParallel, Float16Module) and may be given on every pipeline stage: only the
        last one heeds it. Collectives: those of the layers (tp).
        """
        self._return_hidden = return_hidden
        try:
            return super().forward(*args, **kwargs)
        finally:
            self._return_hidden = False

    def _postprocess(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self._return_hidden:
            return hidden_states
        return super()._postprocess(hidden_states, *args, **kwargs)

    def output_weight(self) -> torch.nn.Parameter:
        """This rank's rows [v, h] of the output layer: for a tied model, the embedding parameter itself.

        Only on a stage with `post_process`. A product with it is this rank's part of the logits: whoever
        multiplies sums the gradient of the hidden states over the tp group, as `local_logits` does.
        """
        if self.share_embeddings_and_output_weights:
            return self.shared_embedding_or_output_weight()
        return self.output_layer.weight

    def local_logits(self, hidden_sbh: torch.Tensor) -> torch.Tensor:
        """This rank's columns of the logits, [s, b, v]. Backward sums the gradient of the input over tp."""
        logits_sbv, _ = self.output_layer(hidden_sbh, weight=self.output_weight())
        return logits_sbv


def chosen_impl(asked: TransformerImpl | None) -> TransformerImpl:
    """What layers are built from: what was asked for, or transformer-engine where it is installed and CUDA is present.

    Raises LayersError where transformer-engine is asked for and cannot run.
    """
    runs = training_device().type == "cuda" and importlib.util.find_spec("transformer_engine") is not None
    if asked == "transformer_engine" and not runs:
        raise LayersError(
            "transformer_impl: 'transformer_engine' needs a CUDA device and the package transformer-engine "
            "(pip install 'trace-dsl[te]'); write local, or leave it out"
        )
    return asked or ("transformer_engine" if runs else "local")


def uses_transformer_engine(model: RoutedGPTModel) -> bool:
    """Whether its layers are transformer-engine's, whose norms are part of the matrix products behind them."""
    return bool(model.config.transformer_impl == "transformer_engine")


def layer_spec(
    shape: ModelShape, config: TransformerConfig, chunk: int | None = None
) -> ModuleSpec | TransformerBlockSubmodules:
    """megatron-core's layer specification, with the attention that can read a ragged key/value cache.

    The local specification takes torch's scaled dot-product attention, which on the CPU is several times faster than
    megatron-core's own and can be context parallel, and a norm that can be sequence parallel.
    """
    qk_norm = shape.family.qk_norm
    if config.transformer_impl == "transformer_engine":
        spec = get_gpt_layer_with_transformer_engine_spec(qk_layernorm=qk_norm)
        spec.submodules.self_attention.module = CachedSelfAttention
        return spec
    spec = get_gpt_layer_local_spec(qk_layernorm=qk_norm, normalization="RMSNorm")
    layer, attention = spec.submodules, spec.submodules.self_attention
    attention.module = CachedSelfAttention
    attention.submodules.core_attention = SdpaAttention
    layer.input_layernorm = layer.pre_mlp_layernorm = ShardedRMSNorm
    if qk_norm:
        attention.submodules.q_layernorm = attention.submodules.k_layernorm = ShardedRMSNorm
    layers = get_num_layers_to_build(config, vp_stage=chunk)
    return TransformerBlockSubmodules(layer_specs=[spec] * layers, layer_norm=ShardedRMSNorm)


def build_model(
    shape: ModelShape,
    layout: Layout,
    *,
    dtype: torch.dtype = torch.float32,
    recompute: bool = False,
    transformer_impl: TransformerImpl | None = None,
) -> torch.nn.ModuleList:
    """This rank's part of a model of `shape`, freshly initialised, on the training device, all parameters of `dtype`:
    its chunks in the order of the layers, `layout.vpp` of them, each a `RoutedGPTModel`.

    Call it inside `megatron_runtime()` after `start_parallel`. Collectives: for a tied model with pp > 1, one
    all-reduce between the first and the last stage. Raises ValueError for a layout that cannot hold the
    shape, LayersError for a `transformer_impl` that cannot run.
    """
    impl = chosen_impl(transformer_impl)
    config = transformer_config(shape, layout, dtype=dtype, recompute=recompute, transformer_impl=impl)
    numbers = range(layout.vpp) if layout.vpp > 1 else [None]
    return torch.nn.ModuleList([_chunk(shape, layout, config, number) for number in numbers])


def _chunk(shape: ModelShape, layout: Layout, config: TransformerConfig, number: int | None) -> RoutedGPTModel:
    """One chunk; without interleaving it has no number."""
    chunk = RoutedGPTModel(
        config=config,
        transformer_layer_spec=layer_spec(shape, config, number),
        vocab_size=padded_vocab(shape.vocab_size, layout.tp),
        max_sequence_length=shape.max_position,
        pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=number),
        post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=number),
        share_embeddings_and_output_weights=shape.tied,
        position_embedding_type="rope",
        rotary_base=shape.rope_base,
        vp_stage=number,
    )
    # the dtype as Float16Module does: torch's norms know no params_dtype
    chunk.to(device=training_device(), dtype=config.params_dtype)
    if shape.rope_scaling is not None:
        chunk.rotary_pos_emb.inv_freq = stretched(chunk.rotary_pos_emb.inv_freq, shape.rope_scaling)
    return chunk


def bare(chunk: torch.nn.Module) -> RoutedGPTModel:
    """The chunk of a model inside Megatron's wrappers (DistributedDataParallel, Float16Module)."""
    while not isinstance(chunk, RoutedGPTModel):
        if not hasattr(chunk, "module"):
            raise TypeError(f"a {type(chunk).__name__} holds no RoutedGPTModel; build models with build_model")
        chunk = chunk.module
    return chunk
