"""Operations of a training step, and what a device could do: model FLOPs utilisation (arXiv 2204.02311, appendix B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from megatron_bridge.model.shape import ModelShape
from megatron_bridge.run_file import LoadedRun
from megatron_bridge.training.collect import Rollout

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """The devices of a run: how many, and what one can do, in TFLOP/s; None where that is not known."""

    shape: ModelShape
    devices: int
    peak_tflops: float | None

    @classmethod
    def here(cls, loaded: LoadedRun) -> Compute:
        """This run's; every rank has a device like this one's."""
        peak = loaded.file.logging.peak_tflops
        if peak is None and torch.cuda.is_available() and loaded.file.precision == "bf16":
            peak = peak_tflops(torch.cuda.get_device_name())
        return cls(shape=loaded.shape, devices=loaded.file.layout.layout.world, peak_tflops=peak)

    def metrics(self, rollouts: Sequence[Rollout], seconds: float) -> dict[str, float | int | None]:
        """The rate at which a step's `rollouts` were trained on in `seconds`, a device, and its share of the peak."""
        flops = training_flops(self.shape, [len(r.prompt_ids) for r in rollouts], [len(r.token_ids) for r in rollouts])
        tflops = flops / seconds / self.devices / 1e12
        return {
            "perf/model_tflops": tflops,
            "perf/mfu": None if self.peak_tflops is None else tflops / self.peak_tflops,
        }


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
