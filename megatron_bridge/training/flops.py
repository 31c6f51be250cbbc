"""Operations of a training step, and what a device could do: model FLOPs utilisation (arXiv 2204.02311, appendix B)."""

from __future__ import annotations

from collections.abc import Sequence

from megatron_bridge.model.shape import ModelShape

# Dense bfloat16 tensor-core peaks in TFLOP/s, from NVIDIA's data sheets; the first name that a device's holds is taken.
_PEAKS = (
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.4),
    ("H200", 989.4),
    ("A100", 312.0),
    ("L40S", 362.0),
)


def peak_tflops(device_name: str) -> float | None:
    """The bfloat16 peak of a device by its name, in TFLOP/s; None for one that is not known."""
    return next((peak for name, peak in _PEAKS if name in device_name), None)


def training_flops(shape: ModelShape, prompts: Sequence[int], responses: Sequence[int]) -> float:
    """Floating-point operations of the policy's forward and backward over sequences of so many tokens each.

    Six for each parameter of the layers and each token, and 12 x attention width x length for each layer and token; the
    output layer's six at response tokens alone, since no other token has a loss. Neither embeddings, teachers nor
    layers that are computed again count.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = shape.hidden_size * (2 * queries + 2 * keys + 3 * shape.ffn_size)
    total = 0.0
    for prompt, response in zip(prompts, responses, strict=True):
        length = prompt + response
        total += length * shape.layers * (6 * layer + 12 * queries * length)
        total += response * 6 * shape.hidden_size * shape.vocab_size
    return total
