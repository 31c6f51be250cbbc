"""What Megatron's output layer does with its input and its gradients beside the product: sequence shards, main_grad.

The routed loss takes the output layer's place, so it keeps the same contracts as
`megatron.core.tensor_parallel.LinearWithGradAccumulationAndAsyncCommunication`.

Legend: T tokens, t = T / tp of them on this rank, H hidden, v columns of the vocabulary on this rank.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def gather_sequence(hidden_tH: Tensor, tp_group: dist.ProcessGroup) -> Tensor:
    """Every rank's rows in rank order, [T, H]. Collectives: one all-gather."""
    hidden_TH = hidden_tH.new_empty(hidden_tH.shape[0] * tp_group.size(), *hidden_tH.shape[1:])
    dist.all_gather_into_tensor(hidden_TH, hidden_tH.contiguous(), group=tp_group)
    return hidden_TH


def reduce_scatter_sequence(gradient_TH: Tensor, tp_group: dist.ProcessGroup) -> Tensor:
    """The sum over ranks at this rank's rows, [t, H]. Collectives: one reduce-scatter."""
    gradient_tH = gradient_TH.new_empty(gradient_TH.shape[0] // tp_group.size(), *gradient_TH.shape[1:])
    dist.reduce_scatter_tensor(gradient_tH, gradient_TH, group=tp_group)
    return gradient_tH


def check_main_grad(output_weight_vH: Tensor) -> None:
    """Raises ValueError where there is no main_grad to add to."""
    if getattr(output_weight_vH, "main_grad", None) is None:
        raise ValueError(
            "gradient_accumulation_fusion adds to the output weight's main_grad, and it has none: pass the parameter "
            "itself, inside Megatron's DistributedDataParallel, or leave gradient_accumulation_fusion off"
        )


def add_to_main_grad(output_weight_vH: Tensor, gradient_vH: Tensor, loss_gradient: Tensor) -> Tensor | None:
    """main_grad += loss_gradient * gradient; what autograd is to be given for the weight.

    Megatron's hook drops what autograd collects where `grad_added_to_main_grad` is set, and adds it where the weight is
    an embedding too (`zero_out_wgrad`): it gets an empty tensor or zeros, to be run in order, or nothing without hooks.
    """
    main_grad_vH: Tensor = output_weight_vH.main_grad  # type: ignore[attr-defined]
    if main_grad_vH.dtype == gradient_vH.dtype:
        main_grad_vH.addcmul_(gradient_vH, loss_gradient.to(gradient_vH.dtype))
    else:
        main_grad_vH += gradient_vH * loss_gradient.to(gradient_vH.dtype)
    if not hasattr(output_weight_vH, "grad_added_to_main_grad"):
        return None
    output_weight_vH.grad_added_to_main_grad = True
    zero = getattr(output_weight_vH, "zero_out_wgrad", False)
    return (torch.zeros_like if zero else torch.empty_like)(output_weight_vH)
