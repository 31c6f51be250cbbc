"""What waits in host memory, out of the device's: the hidden rows of teachers, and on request their weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


def in_host_memory(tensor: Tensor) -> Tensor:
    """The tensor in host memory, pinned where it comes from a CUDA device: neither way does the host wait for the copy,
    and what reads it on the same stream finds it whole. In host memory already: itself.
    """
    if tensor.device.type != "cuda":
        return tensor
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


class OffloadedWeights:
    """Parameters that stand in host memory, and on a device only inside `there`."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._parameters = tuple(model.parameters())
        for parameter in self._parameters:
            parameter.data = in_host_memory(parameter.data)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # from now on the host reads and writes them

    @contextlib.contextmanager
    def there(self, device: torch.device) -> Iterator[None]:
        """In the block the parameters are copies on `device`; what still refers to one afterwards keeps that one there,
        the others are given back.
        """
        waiting = [parameter.data for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.data = parameter.data.to(device, non_blocking=True, copy=True)
        try:
            yield
        finally:
            for parameter, data in zip(self._parameters, waiting, strict=True):
                parameter.data = data
