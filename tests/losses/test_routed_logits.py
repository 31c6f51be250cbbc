"""The routed loss over given logits, against the same dense float64 oracle.

Legend: T tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from megatron_bridge.losses import TeacherLogits, routed_logits_loss
from tests.losses.cases import ALL_KERNELS, FKL, evaluate_logits, make_case
from tests.losses.oracle import loss_error, relative_error
from trace_dsl.lowering.fused import NllKernel

TOLERANCE = 5e-6


@pytest.mark.parametrize("name", ALL_KERNELS)
def test_agrees_with_the_oracle(name: str) -> None:
    case = make_case(ALL_KERNELS[name], vocabulary=293, padding=27, temperature=0.8)
    expected = case.oracle()
    tolerance = case.tolerance(expected, TOLERANCE)
    result, gradient_TV = evaluate_logits(case, chunk_rows=13, scale=1.7)
    assert loss_error(result.loss_C, expected) < tolerance
    gradient_TV = gradient_TV.double() / 1.7
    assert relative_error(gradient_TV @ case.weight_VH.double(), expected.hidden_gradient_TH) < tolerance
    assert relative_error(gradient_TV.T @ case.hidden_TH.double(), expected.weight_gradient_VH) < tolerance
    assert not gradient_TV[:, 293:].any()
    assert not gradient_TV[(case.routing.weight_CT == 0).all(dim=0)].any()


def test_gradients_only_where_asked_and_in_the_logits_dtype() -> None:
    case = make_case((NllKernel(),))
    logits_TV = case.hidden_TH @ case.weight_VH.T
    options = {"target_T": case.target_T, "old_logp_T": None, "routing": case.routing}
    plain = routed_logits_loss(logits_TV, **options)
    assert not plain.loss.requires_grad
    rounded_TV = logits_TV.bfloat16().requires_grad_()
    before_TV = rounded_TV.detach().clone()
    routed_logits_loss(rounded_TV, **options).loss.backward()
    assert rounded_TV.grad is not None
    assert rounded_TV.grad.dtype is torch.bfloat16
    assert torch.equal(rounded_TV.detach(), before_TV)


def test_refusals() -> None:
    case = make_case((FKL,), routed=1.0)
    logits_TV = case.hidden_TH @ case.weight_VH.T
    options = {"target_T": case.target_T, "old_logp_T": None, "routing": case.routing}
    with pytest.raises(ValueError, match="no rows of teacher 'large': given are none"):
        routed_logits_loss(logits_TV, **options)
    with pytest.raises(ValueError, match=r"student_logits_Tv is \(60, 307\): expected \[61, vocabulary shard\]"):
        routed_logits_loss(logits_TV[1:], **options)
    teacher = TeacherLogits(rows_T=torch.arange(61), logits_Rv=logits_TV)
    for broken, message in (
        (replace(teacher, logits_Rv=logits_TV[:, 1:]), r"logits of teacher 'large' are \(61, 306\)"),
        (TeacherLogits(rows_T=torch.arange(60), logits_Rv=logits_TV[1:]), "has no row of logits for 1 of 61 tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            routed_logits_loss(logits_TV, teacher_logits={"large": broken}, **options)
    with pytest.raises(TypeError, match=r"logits of teacher 'large' are torch\.float64, computed in torch\.float64"):
        routed_logits_loss(
            logits_TV, teacher_logits={"large": replace(teacher, logits_Rv=logits_TV.double())}, **options
        )
    with pytest.raises(TypeError, match=r"^logits are torch\.float16: expected float32 or bfloat16"):
        routed_logits_loss(logits_TV.half(), **options)
