"""Where the loss runs Triton kernels and where torch: the one place that decides."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from megatron_bridge.losses.kernels import DivergenceTerm, EntropyTerm
from trace_dsl.lowering.fused import DivergenceKernel

_INSTALLED = importlib.util.find_spec("triton") is not None


def runs_in_triton(logits_Nv: Tensor) -> bool:
    """float32 logits on CUDA where triton is installed; on CPU only under TRITON_INTERPRET=1, for tests.

    A shard without a column has nothing to launch.
    """
    if not _INSTALLED or logits_Nv.dtype is not torch.float32 or logits_Nv.numel() == 0:
        return False
    return logits_Nv.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"


def covers_kernels(kernels: Sequence[DivergenceKernel]) -> bool:
    """Whether the mixtures' statistics need nothing but the formulas of `megatron_bridge.losses.kernels`."""
    return all(kernel.top_k is None and kernel.pclip is None for kernel in kernels)


def covers_terms(terms: Sequence[object]) -> bool:
    """Whether every term's gradient is one that the Triton kernel writes; else torch writes them all."""
    return all(isinstance(term, EntropyTerm | DivergenceTerm) for term in terms) and covers_kernels(
        [term.kernel for term in terms if isinstance(term, DivergenceTerm)]
    )
