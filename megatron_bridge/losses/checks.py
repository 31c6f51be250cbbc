"""What a call of the routed loss must have, checked before anything is computed.

Legend: T tokens, C channels.
"""

from __future__ import annotations

import math
from typing import assert_never

import torch
from torch import Tensor

from megatron_bridge.losses.inputs import PolicyLogProbs
from megatron_bridge.losses.kernels import MIXTURES
from megatron_bridge.losses.support import MAX_VOCABULARY
from trace_dsl.lowering.fused import (
    CispoKernel,
    DivergenceKernel,
    EntropyKernel,
    FusedKernel,
    FusedRouting,
    K3Kernel,
    NllKernel,
    PolicyGradientKernel,
    is_sequence_level,
)


def check_call(
    *,
    target_T: Tensor,
    policies: PolicyLogProbs,
    routing: FusedRouting,
    temperature: float,
    vocabulary: int,
    padded_vocabulary: int,
    chunk_rows: int | None,
) -> None:
    """Raises ValueError or TypeError, naming what is wrong and what is expected."""
    if not routing.weight_CT.is_floating_point():
        raise TypeError(f"weight_CT is {routing.weight_CT.dtype}: expected a floating dtype, weights are not masks")
    tokens, channels = target_T.shape[0], len(routing.kernels)
    per_token = {
        "row_of_T": routing.row_of_T,
        "written_T": routing.written_T,
        "old_logp_T": policies.old_T,
        "proximal_logp_T": policies.proximal_T,
        **{f"reference_logp[{name!r}]": value_T for name, value_T in policies.reference.items()},
    }
    expected = {name: (tensor, (tokens,)) for name, tensor in per_token.items() if tensor is not None}
    expected["weight_CT"] = (routing.weight_CT, (channels, tokens))
    expected["advantage_CT"] = (routing.advantage_CT, (channels, tokens))
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}: expected {shape} for {tokens} targets")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}: expected a finite number above 0")
    if not 0 < vocabulary <= padded_vocabulary:
        raise ValueError(
            f"vocab_size is {vocabulary}: expected 1 to {padded_vocabulary}, the padded vocabulary of all shards"
        )
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows is {chunk_rows}: expected at least 1")
    routed_target = target_T[(routing.weight_CT != 0).any(dim=0)]
    outside = int(((routed_target < 0) | (routed_target >= vocabulary)).sum())
    if outside:
        raise ValueError(f"{outside} routed targets are outside the vocabulary 0 .. {vocabulary - 1}")
    for kernel in routing.kernels:
        _check_options(kernel, vocabulary)
    for channel in live_channels(routing):
        kernel = routing.kernels[channel]
        _check_policies(kernel, policies)
        if is_sequence_level(kernel):
            _check_whole_responses(routing, channel, target_T, vocabulary)


def live_channels(routing: FusedRouting) -> tuple[int, ...]:
    """The channels with weight at some token, ascending: the others read no policy and no teacher."""
    live_C = (routing.weight_CT != 0).any(dim=1).tolist()
    return tuple(channel for channel, live in enumerate(live_C) if live)


def _check_options(kernel: FusedKernel, vocabulary: int) -> None:
    """The ranges of a kernel's options, those that specs are held to."""
    match kernel:
        case PolicyGradientKernel():
            _check_positive(kernel, "tis", kernel.tis)
            _check_positive(kernel, "clip_high", kernel.clip_high)
            if not 0 < kernel.clip_low <= 1:
                raise ValueError(f"{kernel}: clip_low is {kernel.clip_low}, expected a number above 0, at most 1")
            if kernel.dual is not None and not (math.isfinite(kernel.dual) and kernel.dual > 1):
                raise ValueError(f"{kernel}: dual is {kernel.dual}, expected a finite number above 1")
            if kernel.anchor is not None and not 0 < kernel.anchor.share < 1:
                raise ValueError(f"{kernel}: the share of the anchor must lie between 0 and 1, ends excluded")
        case CispoKernel():
            _check_positive(kernel, "high", kernel.high)
        case DivergenceKernel():
            _check_divergence(kernel, vocabulary)
        case K3Kernel() | NllKernel() | EntropyKernel():
            pass
        case _:
            assert_never(kernel)


def _check_policies(kernel: FusedKernel, policies: PolicyLogProbs) -> None:
    """The log-probs that a kernel with weight reads."""
    if isinstance(kernel, PolicyGradientKernel) and kernel.tis is not None and policies.proximal_T is None:
        raise ValueError(f"{kernel} needs proximal_logp_T, which is None")
    if isinstance(kernel, K3Kernel) and kernel.to != "old" and kernel.to not in policies.reference:
        given = sorted(policies.reference) or "none"
        raise ValueError(f"{kernel} needs reference_logp[{kernel.to!r}]: given are {given}")
    reads_old = isinstance(kernel, PolicyGradientKernel | CispoKernel) or kernel == K3Kernel("old")
    if reads_old and policies.old_T is None:
        raise ValueError(f"{kernel} needs old_logp_T, which is None")


def _check_divergence(kernel: DivergenceKernel, vocabulary: int) -> None:
    parameter = kernel.parameter
    if kernel.kind in MIXTURES and (parameter is None or not 0 < parameter < 1):
        raise ValueError(f"{kernel.kind} has parameter {parameter}: expected a number between 0 and 1, ends excluded")
    _check_positive(kernel, "temperature", kernel.temperature)
    _check_positive(kernel, "pclip", kernel.pclip)
    if kernel.top_k is None:
        return
    if kernel.top_k.k < 1:
        raise ValueError(f"{kernel}: topk is {kernel.top_k.k}, expected at least 1")
    if vocabulary > MAX_VOCABULARY:
        raise ValueError(f"{kernel}: a top-k support takes vocabularies up to {MAX_VOCABULARY}, this is {vocabulary}")


def _check_positive(kernel: FusedKernel, name: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ValueError(f"{kernel}: {name} is {value}, expected a finite number above 0")


def _check_whole_responses(routing: FusedRouting, channel: int, target_T: Tensor, vocabulary: int) -> None:
    """A sequence-level ratio is over a whole response, so all of its tokens must be in the call."""
    takes_T = routing.sequence_tokens(channel)
    target_t = target_T[takes_T]
    outside = int(((target_t < 0) | (target_t >= vocabulary)).sum())
    if outside:
        raise ValueError(
            f"{outside} targets in responses with a sequence-level ratio are outside the vocabulary "
            f"0 .. {vocabulary - 1}"
        )
    if routing.written_T is None or not len(takes_T):
        return
    here_R = torch.bincount(routing.row_of_T[takes_T], minlength=int(routing.row_of_T.max()) + 1)
    cut_T = takes_T & (here_R[routing.row_of_T] != routing.written_T)
    if bool(cut_T.any()):
        rows = routing.row_of_T[cut_T].unique().tolist()
        raise ValueError(
            f"a sequence-level ratio needs whole responses, but of responses {rows[:8]} only a part of the tokens is "
            "in this call: cut micro-batches between responses"
        )
