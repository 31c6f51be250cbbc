"""Memory for wide tensors on CPU: the kernel is asked for huge pages, whose faults cost a third or less."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable

import torch
from torch import Tensor

_HUGE_PAGE = 2 << 20


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function  # type: ignore[no-any-return]


def empty(shape: tuple[int, ...] | torch.Size, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """torch.empty, with huge pages where Linux grants them; a refusal changes nothing but the speed."""
    tensor = torch.empty(shape, dtype=dtype, device=device)
    madvise = _madvise()
    if device.type == "cpu" and madvise is not None:
        first = -(-tensor.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        last = (tensor.data_ptr() + tensor.numel() * tensor.element_size()) // _HUGE_PAGE * _HUGE_PAGE
        if last > first:
            madvise(first, last - first, mmap.MADV_HUGEPAGE)
    return tensor
