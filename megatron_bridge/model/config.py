"""From a model's shape and a layout to megatron-core's `TransformerConfig`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_bridge.model.shape import Layout, ModelShape, Precision, TransformerImpl, layout_problems

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def transformer_config(
    shape: ModelShape,
    layout: Layout,
    *,
    dtype: torch.dtype = torch.float32,
    recompute: bool = False,
    transformer_impl: TransformerImpl = "local",
) -> TransformerConfig:
    """The megatron-core configuration of `shape` under `layout`, with parameters and activations of `dtype`.

    recompute: keep only the input of each layer, and compute the layer again in the backward pass.

    `calculate_per_token_loss` is set: losses are sums, nothing divides by the number of micro-batches or
    ranks, and `finalize_model_grads` divides by the token count that the loss function gives. No fused CUDA
    kernels are asked for. Raises ValueError for a layout that cannot hold the model and for another dtype.
    """
    if problems := layout_problems(shape, layout):
        raise ValueError("; ".join(problems))
    if dtype not in DTYPES.values():
        raise ValueError(f"dtype {dtype}: parameters are {' or '.join(map(str, DTYPES.values()))}")
    return TransformerConfig(
        num_layers=shape.layers,
        hidden_size=shape.hidden_size,
        ffn_hidden_size=shape.ffn_size,
        num_attention_heads=shape.heads,
        num_query_groups=shape.kv_heads,
        kv_channels=shape.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=shape.norm_eps,
        qk_layernorm=shape.family.qk_norm,
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        add_qkv_bias=shape.family.qkv_bias,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=layout.tp,
        pipeline_model_parallel_size=layout.pp,
        virtual_pipeline_model_parallel_size=layout.vpp if layout.vpp > 1 else None,
        # one direction at a time: two stages cannot tell the two apart in one batch of sends
        overlap_p2p_comm=layout.vpp > 1,
        batch_p2p_comm=layout.vpp == 1,
        context_parallel_size=layout.cp,
        sequence_parallel=layout.sp,
        variable_seq_lengths=layout.pp > 1,  # micro-batches are padded to their own longest sequence
        moe_token_dispatcher_type="alltoall",  # no experts here; the default refuses variable lengths
        recompute_granularity="full" if recompute else None,
        recompute_method="uniform" if recompute else None,
        recompute_num_layers=1 if recompute else None,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        transformer_impl=transformer_impl,
        use_cpu_initialization=True,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        gradient_accumulation_fusion=False,
        calculate_per_token_loss=True,
    )
