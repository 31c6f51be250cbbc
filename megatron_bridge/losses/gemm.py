"""Products with the output layer in the loss's own precision, out of operands that may be bfloat16.

A bfloat16 logit is wrong by 2^-9 of its size, which for a teacher close to the student is more than the
divergence; so every product here comes out in the compute dtype: float32, or float64 where the operands are
float64.

Legend: N rows of a chunk, H hidden, v columns of the vocabulary on this rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DTYPES = {torch.float32: torch.float32, torch.bfloat16: torch.float32, torch.float64: torch.float64}


def compute_dtype(dtype: torch.dtype, what: str = "hidden rows and output weight") -> torch.dtype:
    """The dtype of logits, statistics and gradients for operands of `dtype`: float32, or float64 for float64.

    Raises TypeError, naming `what`, for any other dtype; float16 would need its loss scale inside the gradient.
    """
    if dtype not in _DTYPES:
        raise TypeError(f"{what} are {dtype}: expected float32 or bfloat16 (or float64)")
    return _DTYPES[dtype]


def operand(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`tensor` as the products below take it: as it is on CUDA, which widens inside the product, else
    widened."""
    if tensor.is_cuda and dtype is torch.float32:
        return tensor
    return tensor.to(dtype)


def product(left: Tensor, right: Tensor, dtype: torch.dtype, *, out: Tensor | None = None) -> Tensor:
    """left @ right in `dtype`; on CUDA a product with one bfloat16 side runs in bfloat16 and adds up in
    float32."""
    if left.dtype == right.dtype == dtype:
        return torch.mm(left, right, out=out)
    return torch.mm(left.to(torch.bfloat16), right.to(torch.bfloat16), out_dtype=dtype, out=out)


class Buffers:
    """Memory for the logits of one chunk after the other, by name: pages that are already there cost no faults."""

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, rows: int, columns: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """[rows, columns], with whatever stands there; what an earlier call with the name got is overwritten."""
        elements = rows * columns
        if name not in self._flat or self._flat[name].numel() < elements:
            self._flat.pop(name, None)
            self._flat[name] = torch.empty(elements, dtype=dtype, device=device)
        return self._flat[name][:elements].view(rows, columns)

    def clear(self) -> None:
        """Give the memory back."""
        self._flat.clear()


def logits(hidden_NH: Tensor, weight_vH: Tensor, *, temperature: float, dtype: torch.dtype, out_Nv: Tensor) -> Tensor:
    """hidden @ weight^T / temperature, [N, v] in `dtype`, in `out_Nv`."""
    logits_Nv = product(hidden_NH, weight_vH.t(), dtype, out=out_Nv)
    return logits_Nv if temperature == 1.0 else logits_Nv.div_(temperature)


def add_product_(total: Tensor, left: Tensor, right: Tensor, *, fresh: bool) -> None:
    """total += left @ right, in the dtype of `total`; a `fresh` total holds no numbers yet, and is written."""
    if left.dtype == right.dtype == total.dtype:
        total.addmm_(left, right, beta=0 if fresh else 1)
    elif fresh:
        product(left, right, total.dtype, out=total)
    else:
        total.add_(product(left, right, total.dtype))
