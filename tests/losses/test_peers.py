"""The same losses as computed by Liger-Kernel (0.8.5) and Hugging Face TRL (1.16), which are no dependencies of ours.

Legend: R responses of n tokens, T = R n tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from liger_kernel.chunked_loss.grpo_loss import LigerFusedLinearGRPOLoss
from liger_kernel.chunked_loss.jsd_loss import LigerFusedLinearJSDLoss
from torch import Tensor
from trl.experimental.gkd import GKDTrainer

from tests.losses.cases import FKL, GRPO, RKL, Case, evaluate, make_case
from tests.losses.oracle import relative_error
from trace_dsl.lowering.fused import CispoKernel, DivergenceKernel, FusedKernel, K3Kernel
from trace_dsl.model import DivergenceKind, RatioLevel

TOLERANCE = 5e-6
RESPONSES, LENGTH = 8, 7


def _whole(kernels: tuple[FusedKernel, ...], weights: tuple[float, ...], **options: Any) -> Case:
    """Responses of one length with one advantage each, every token with the weights, a mean over all tokens."""
    tokens = RESPONSES * LENGTH
    case = make_case(kernels, tokens=tokens, temperature=0.8, **options)
    routing = replace(
        case.routing,
        weight_CT=torch.tensor(weights)[:, None].expand(-1, tokens) / tokens,
        advantage_CT=case.routing.advantage_CT[:1, case.routing.row_of_T].expand(len(kernels), -1),
        written_T=torch.full((tokens,), LENGTH),
    )
    return replace(case, routing=routing)


def _assert_same(case: Case, loss: Tensor, hidden_TH: Tensor, weight_VH: Tensor) -> None:
    """`loss` carries a graph to float64 copies of the case's hidden rows and output weight."""
    measured = evaluate(case)
    assert relative_error(measured.result.loss, loss.detach()) < TOLERANCE
    loss.backward()
    assert relative_error(measured.hidden_gradient_TH, hidden_TH.grad.flatten(0, -2)) < TOLERANCE
    assert relative_error(measured.weight_gradient_vH, weight_VH.grad) < TOLERANCE


@pytest.mark.parametrize(
    "kernels",
    [
        (GRPO,),
        (replace(GRPO, level=RatioLevel.SEQUENCE, clip_low=0.02, clip_high=0.03),),
        (replace(GRPO, tis=1.1),),
        (GRPO, K3Kernel("ref")),
        (CispoKernel(0.1),),
    ],
    ids=["grpo", "gspo", "tis", "grpo + k3", "cispo"],
)
def test_liger_policy_gradients(kernels: tuple[FusedKernel, ...]) -> None:
    beta = 0.04 if len(kernels) > 1 else 0.0
    case = _whole(kernels, (1.0, beta)[: len(kernels)])
    kernel = kernels[0]
    hidden_RnH = case.hidden_TH.double().unflatten(0, (RESPONSES, LENGTH)).requires_grad_()
    weight_VH = case.weight_VH.double().requires_grad_()

    def by_response(value_T: Tensor) -> Tensor:
        return value_T.double().unflatten(0, (RESPONSES, LENGTH))

    options: dict[str, Any] = {"loss_type": "dapo", "epsilon_low": 0.2, "epsilon_high": 0.28}
    old_T, importance_Rn = case.old_logp_T, None
    if isinstance(kernel, CispoKernel):
        options |= {"loss_type": "cispo", "epsilon_high": 1 + kernel.high}
    elif kernel.level is RatioLevel.SEQUENCE:
        options |= {"importance_sampling_level": "sequence", "epsilon_low": 0.02, "epsilon_high": 0.03}
    elif kernel.tis is not None:
        old_T = case.proximal_logp_T
        importance_Rn = by_response(case.proximal_logp_T.double() - case.old_logp_T.double()).exp().clamp(max=1.1)
    loss_function = LigerFusedLinearGRPOLoss(
        beta=beta, temperature=case.temperature, compiled=False, use_ref_model=beta > 0, **options
    )
    loss, _ = loss_function(
        hidden_RnH,
        weight_VH,
        by_response(case.target_T).long(),
        torch.ones(RESPONSES, LENGTH),
        case.routing.advantage_CT[0, ::LENGTH].double(),
        ref_per_token_logps=by_response(case.reference_logp["ref"]),
        old_per_token_logps=by_response(old_T),
        vllm_is_ratio=importance_Rn,
    )
    _assert_same(case, loss, hidden_RnH, weight_VH)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
def test_liger_jsd(beta: float) -> None:
    """Its ends are the forward and the reverse KL, which are kernels of their own here."""
    case = _whole((_divergence(beta),), (1.0,))
    hidden_TH, weight_VH = case.hidden_TH.double().requires_grad_(), case.weight_VH.double().requires_grad_()
    rows_TH, table_VH = case.teachers["large"]
    loss_function = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=beta, temperature=case.temperature, compiled=False
    )
    loss = loss_function(hidden_TH, weight_VH, rows_TH.double(), table_VH.double(), case.target_T)
    _assert_same(case, loss, hidden_TH, weight_VH)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [None, 2.0])
def test_trl_generalized_jsd(beta: float, temperature: float | None) -> None:
    """A divergence at its own temperature too: TRL multiplies by no square of it either."""
    case = _whole((replace(_divergence(beta), temperature=temperature),), (1.0,))
    hidden_TH, weight_VH = case.hidden_TH.double().requires_grad_(), case.weight_VH.double().requires_grad_()
    rows_TH, table_VH = case.teachers["large"]
    loss = GKDTrainer.generalized_jsd_loss(
        (hidden_TH @ weight_VH.T)[None],
        (rows_TH.double() @ table_VH.double().T)[None],
        labels=case.target_T[None],
        beta=beta,
        temperature=temperature or case.temperature,
    )
    _assert_same(case, loss, hidden_TH, weight_VH)


def _divergence(beta: float) -> DivergenceKernel:
    return {0.0: FKL, 1.0: RKL}.get(beta) or DivergenceKernel(DivergenceKind.JSD, "large", beta)
