"""The options of the kernels: what each means beyond its formula, and other implementations of the same.

Legend: T tokens, V vocabulary, H hidden, C channels, R responses.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from megatron_bridge.losses import TeacherHidden, routed_linear_loss
from megatron_bridge.losses.support import likeliest_columns
from tests.losses.cases import FKL, GSPO, RKL, SINGLE_KERNELS, Case, double_loss, evaluate, make_case, tied_case
from tests.losses.oracle import loss_error, relative_error
from trace_dsl.lowering.fused import DivergenceKernel, FusedKernel, K3Kernel, NllKernel, PolicyGradientKernel
from trace_dsl.model import DivergenceKind, MixAnchor, RatioLevel, SupportOf, Tail, TopK

TOLERANCE = 5e-6


# A cispo weight and a sequence-level ratio hold a stop-gradient, so their loss has no such derivative.
DIFFERENTIABLE = [name for name in SINGLE_KERNELS if name != "cispo" and not name.startswith("sequence")]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_finite_differences(name: str) -> None:
    """No autograd on either side: the gradient is that of the loss that is returned."""
    case = make_case(
        (SINGLE_KERNELS[name],), tokens=5, hidden=3, vocabulary=33, padding=2, ratio_noise=0.05, routed=0.9
    )
    inputs = (case.hidden_TH.double().requires_grad_(), case.weight_VH.double().requires_grad_())
    assert torch.autograd.gradcheck(lambda *tensors: double_loss(case, *tensors), inputs)


def _whole_responses(case: Case) -> Case:
    """Every token of a response written, with one weight and one advantage: GSPO as its paper has it."""
    routing = case.routing
    row_of_T = routing.row_of_T
    length_T = torch.bincount(row_of_T)[row_of_T]
    routing = replace(
        routing,
        weight_CT=(1 / length_T.float())[None] / 9,
        advantage_CT=routing.advantage_CT[:, row_of_T],
        written_T=length_T,
    )
    return replace(case, routing=routing)


def test_sequence_ratio_of_whole_responses_is_gspo() -> None:
    """The gradient is that of -min(s A, clip(s) A) with s differentiated through all tokens, by finite differences
    of the loss that is returned."""
    case = _whole_responses(make_case((GSPO,), tokens=12, hidden=3, vocabulary=11, ratio_noise=0.05))
    inputs = (case.hidden_TH.double().requires_grad_(), case.weight_VH.double().requires_grad_())
    assert torch.autograd.gradcheck(lambda *tensors: double_loss(case, *tensors), inputs)


def test_sequence_ratio_trains_only_the_tokens_of_its_route() -> None:
    """The ratio is over all that the model wrote, the gradient goes to routed tokens; tool output needs no log-prob."""
    case = make_case((GSPO,), routed=0.3)
    assert case.routing.written_T is not None
    tool_T = case.routing.written_T == 0
    case.routing.weight_CT[0, tool_T] = 0.0
    clean = evaluate(case)
    case.old_logp_T[tool_T] = torch.nan
    measured = evaluate(case)
    assert torch.equal(measured.result.loss, clean.result.loss)
    assert torch.equal(measured.hidden_gradient_TH, clean.hidden_gradient_TH)
    unrouted_T = case.routing.weight_CT[0] == 0
    assert not measured.hidden_gradient_TH[unrouted_T].any()
    assert measured.result.stats.logp_T[unrouted_T].isnan().all()
    # the ratio of a response moves with a token that is written and not routed
    (moved,) = (unrouted_T & ~tool_T & (case.routing.row_of_T == 0)).nonzero()[0].tolist()
    case.old_logp_T[moved] += 1.0
    assert not torch.equal(evaluate(case).result.loss, clean.result.loss)


def test_a_cut_response_is_refused() -> None:
    """Whole responses in any cut give the same; half a response would give another ratio without a word."""
    case = make_case((GSPO, FKL), routed=0.9)
    expected = case.oracle()
    pieces = [evaluate(case.take(tokens)) for tokens in (torch.arange(21), torch.arange(21, 61))]
    assert loss_error(sum(piece.result.loss_C for piece in pieces), expected) < TOLERANCE
    with pytest.raises(ValueError, match=r"needs whole responses, but of responses \[2\] only a part"):
        evaluate(case.take(torch.arange(20)))
    evaluate(replace(case, routing=replace(case.routing, written_T=None)))
    case.target_T[1] = -100
    with pytest.raises(ValueError, match="responses with a sequence-level ratio are outside the vocabulary"):
        evaluate(replace(case, routing=replace(case.routing, weight_CT=_without(case, 1))))


def _without(case: Case, token: int) -> Tensor:
    weight_CT = case.routing.weight_CT.clone()
    weight_CT[:, token] = 0.0
    return weight_CT


def test_teacher_rows_of_an_anchor() -> None:
    """A mixed anchor reads its teacher at routed tokens, at sequence level at all that was written of a response."""
    case = make_case((PolicyGradientKernel(0.2, 0.2, anchor=MixAnchor("large", 0.5)),), routed=0.1)
    routed = (case.routing.weight_CT[0] != 0).nonzero()[:, 0]
    assert torch.equal(case.routing.teacher_tokens("large"), routed)
    assert len(case.routing.teacher_tokens("self")) == 0
    (kernel,) = case.routing.kernels
    assert isinstance(kernel, PolicyGradientKernel)
    routing = replace(case.routing, kernels=(replace(kernel, level=RatioLevel.SEQUENCE),))
    assert routing.written_T is not None
    rows = set(routing.row_of_T[routed].tolist())
    expected = [t for t in range(61) if int(routing.row_of_T[t]) in rows and int(routing.written_T[t]) > 0]
    assert routing.teacher_tokens("large").tolist() == expected


@pytest.mark.parametrize("of", SupportOf)
def test_equal_logits_are_taken_by_token_id(of: SupportOf) -> None:
    """Of equal logits at the edge of the support the lower ids are in it, whatever torch.topk gives."""
    case = tied_case(of=of)
    expected, measured = case.oracle(), evaluate(case)
    assert loss_error(measured.result.loss_C, expected) < TOLERANCE
    assert relative_error(measured.hidden_gradient_TH, expected.hidden_gradient_TH) < TOLERANCE
    values, columns = likeliest_columns(torch.tensor([[1.0, 3.0, 1.0, 1.0, 3.0]]), 3)
    assert values.tolist() == [[3.0, 3.0, 1.0]]
    assert columns.tolist() == [[1, 4, 0]]


@pytest.mark.parametrize("kind", [DivergenceKind.FKL, DivergenceKind.JSD])
def test_a_support_of_everything_is_the_full_vocabulary(kind: DivergenceKind) -> None:
    """With k at the vocabulary or beyond, and nothing in the tail, every tail is the divergence itself."""
    parameter = 0.5 if kind is DivergenceKind.JSD else None
    whole = evaluate(make_case((DivergenceKernel(kind, "large", parameter),), vocabulary=50))
    for k in (50, 500):
        for tail in (None, *Tail):
            measured = evaluate(
                make_case((DivergenceKernel(kind, "large", parameter, top_k=TopK(k=k, tail=tail)),), vocabulary=50)
            )
            torch.testing.assert_close(measured.result.loss, whole.result.loss)
            torch.testing.assert_close(measured.hidden_gradient_TH, whole.hidden_gradient_TH, rtol=1e-4, atol=1e-7)


def test_no_tail_is_a_dropped_one() -> None:
    """`topk` without `tail` leaves the tail out, as the rule topk-without-tail warns."""
    measured = [evaluate(make_case((replace(RKL, top_k=TopK(k=9, tail=tail)),))) for tail in (None, Tail.DROP)]
    assert torch.equal(measured[0].result.loss, measured[1].result.loss)
    assert torch.equal(measured[0].hidden_gradient_TH, measured[1].hidden_gradient_TH)


def test_a_tail_too_small_for_one_minus() -> None:
    """The tail's mass is summed, not what is left of 1: here that would be nothing but rounding."""
    kernel = replace(FKL, top_k=TopK(k=290, tail=Tail.BUCKET))
    case = make_case((kernel,), sharpness=4.0, routed=1.0)
    expected = case.oracle()
    measured = evaluate(case)
    tolerance = case.tolerance(expected, TOLERANCE)
    assert relative_error(measured.hidden_gradient_TH, expected.hidden_gradient_TH) < tolerance
    assert relative_error(measured.weight_gradient_vH, expected.weight_gradient_VH) < tolerance


def test_pclip_bounds_terms_from_above() -> None:
    """Teacher (.5, .5), student (.1, .9): the first term, .805, is cut at .05 and the pull on it turns round, from
    -0.4 to +0.05, as the rule hard-pclip says; the loss is negative."""
    weight_VH = torch.tensor([[0.1], [0.9]]).log().requires_grad_()
    one = torch.ones(1, 1)
    case = make_case((replace(FKL, pclip=0.05),), tokens=1, hidden=1, vocabulary=2)
    routing = replace(case.routing, weight_CT=one)
    teacher = TeacherHidden(rows_T=torch.tensor([0]), hidden_RH=one, output_weight_vH=torch.full((2, 1), 0.5).log())
    result = routed_linear_loss(
        one,
        weight_VH,
        target_T=torch.tensor([0]),
        old_logp_T=None,
        routing=routing,
        teacher_hidden={"large": teacher},
    )
    result.loss.backward()
    assert result.loss.item() == pytest.approx(0.05 + 0.5 * math.log(0.5 / 0.9), rel=1e-5)
    assert weight_VH.grad is not None
    assert weight_VH.grad[:, 0].tolist() == pytest.approx([0.05, -0.05], rel=1e-5)


def test_truncated_importance_beyond_float32() -> None:
    """A rollout engine that gave a token no probability at all: the weight is the bound, not infinite."""
    case = make_case((PolicyGradientKernel(0.2, 0.2, tis=2.0),), routed=1.0)
    plain = evaluate(replace(case, old_logp_T=case.proximal_logp_T - 0.5))
    measured = evaluate(replace(case, old_logp_T=case.old_logp_T - 200.0))
    assert measured.result.loss.isfinite()
    assert not torch.equal(measured.result.loss, torch.zeros(()))
    torch.testing.assert_close(measured.hidden_gradient_TH, plain.hidden_gradient_TH * (2 / math.exp(0.5)))


# --------------------------------------------------------------------------------------------------- second opinions


def _dense(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden rows in float64, log-probs of the student with a graph to them, log-probs of teacher "large"."""
    hidden_TH = case.hidden_TH.double().requires_grad_()
    rows_TH, table_VH = case.teachers["large"]
    student_logp_TV = torch.log_softmax(hidden_TH @ case.weight_VH.double().T / case.temperature, dim=1)
    teacher_logp_TV = torch.log_softmax(rows_TH.double() @ table_VH.double().T / case.temperature, dim=1)
    return hidden_TH, student_logp_TV, teacher_logp_TV


def _assert_same(case: Case, hidden_TH: Tensor, loss: Tensor) -> None:
    measured = evaluate(case)
    assert relative_error(measured.result.loss, loss.detach()) < TOLERANCE
    (gradient_TH,) = torch.autograd.grad(loss, hidden_TH)
    assert relative_error(measured.hidden_gradient_TH, gradient_TH) < TOLERANCE


@pytest.mark.parametrize("kernel", [FKL, RKL, NllKernel()], ids=["fkl", "rkl", "nll"])
def test_torch_computes_the_same(kernel: FusedKernel) -> None:
    """kl_div in both directions and cross_entropy."""
    case = make_case((kernel,), temperature=0.8)
    hidden_TH, student_logp_TV, teacher_logp_TV = _dense(case)
    if kernel == FKL:
        value_T = F.kl_div(student_logp_TV, teacher_logp_TV, reduction="none", log_target=True).sum(dim=1)
    elif kernel == RKL:
        value_T = F.kl_div(teacher_logp_TV, student_logp_TV, reduction="none", log_target=True).sum(dim=1)
    else:
        value_T = F.cross_entropy(student_logp_TV, case.target_T, reduction="none")
    _assert_same(case, hidden_TH, (case.routing.weight_CT[0].double() * value_T).sum())


def test_torch_distributions_compute_the_same_k3() -> None:
    """The mean of k3 over draws of the student is KL(student || reference), which torch.distributions knows."""
    case = make_case((K3Kernel("ref"),), tokens=1, vocabulary=5, routed=1.0)
    _, student_logp_TV, teacher_logp_TV = _dense(case)
    student = torch.distributions.Categorical(logits=student_logp_TV[0])
    reference = torch.distributions.Categorical(logits=teacher_logp_TV[0])
    values = [
        evaluate(
            replace(
                case,
                target_T=torch.tensor([token]),
                reference_logp={"ref": teacher_logp_TV[:, token].detach()},
                routing=replace(case.routing, weight_CT=torch.ones(1, 1)),
            )
        ).result.loss.double()
        for token in range(5)
    ]
    expected = torch.distributions.kl_divergence(student, reference).item()
    mean = float((torch.stack(values) * student_logp_TV[0].exp()).sum().detach())
    assert mean == pytest.approx(expected, rel=1e-5)
