"""CPU or CUDA: the one place that knows.

megatron-core names CUDA throughout. Where there is none, `megatron_runtime` turns its CUDA devices into the
CPU, its CUDA random state into torch's own, and lets gloo carry the collectives. Where CUDA is present it
does nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

_CPU = torch.device("cpu")


def training_device() -> torch.device:
    """The device that models live on: this process's CUDA device (LOCAL_RANK), or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return _CPU


def backend() -> str:
    """The torch.distributed backend for `training_device`: "nccl" or "gloo"."""
    return "nccl" if torch.cuda.is_available() else "gloo"


def _is_cuda(device: Any) -> bool:
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, str) and device.startswith("cuda")


class _CudaOnCpu(TorchFunctionMode):
    """Sends every torch call that names a CUDA device to the CPU."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.cuda:
            return args[0]
        if kwargs:
            if _is_cuda(kwargs.get("device")):
                kwargs = {**kwargs, "device": _CPU}
            if "pin_memory" in kwargs:  # there is no host memory to pin
                kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
            return func(*args, **kwargs)
        if func is torch.Tensor.type and len(args) == 1:
            # the optimizer accepts parameters by the name "torch.cuda.FloatTensor"
            return func(args[0]).replace("torch.", "torch.cuda.")
        if func is torch.Tensor.to and len(args) > 1 and _is_cuda(args[1]):
            return func(args[0], _CPU, *args[2:])
        return func(*args)


@contextlib.contextmanager
def _cpu_as_cuda() -> Iterator[None]:
    import megatron.core.tensor_parallel.random as megatron_random

    def get_state(*_args: Any, **_kwargs: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_state(state: torch.Tensor, *_args: Any, **_kwargs: Any) -> None:
        torch.set_rng_state(state)

    with contextlib.ExitStack() as stack:
        for owner, name, replacement in (
            (torch.cuda, "current_device", lambda: _CPU),
            (torch.cuda, "synchronize", lambda *_args, **_kwargs: None),
            (torch.cuda, "get_rng_state", get_state),
            (torch.cuda, "manual_seed", torch.default_generator.manual_seed),
            (megatron_random, "_get_cuda_rng_state", get_state),
            (megatron_random, "_set_cuda_rng_state", set_state),
        ):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        stack.enter_context(_CudaOnCpu())
        yield


_active = False


@contextlib.contextmanager
def megatron_runtime() -> Iterator[None]:
    """Run megatron-core in this block, on CUDA as it is or on the CPU by substitution.

    Everything that was substituted is restored at the end of the block, also after an error. Blocks nest: an
    inner one does nothing. One thread at a time.
    """
    global _active
    if torch.cuda.is_available() or _active:
        yield
        return
    _active = True
    try:
        with _cpu_as_cuda():
            yield
    finally:
        _active = False
