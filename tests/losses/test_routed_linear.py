"""The routed loss on one rank against the dense float64 oracle, and the properties a trainer leans on.

Legend: T tokens, V vocabulary, H hidden, C channels.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from megatron_bridge.losses import routed_linear_loss
from tests.losses.cases import (
    AGREEING,
    ALL_KERNELS,
    FKL,
    GRPO,
    MIXTURES,
    RKL,
    SINGLE_KERNELS,
    Case,
    Evaluated,
    double_loss,
    evaluate,
    make_case,
)
from tests.losses.oracle import OracleLoss, loss_error, relative_error
from trace_dsl.lowering.fused import EntropyKernel, NllKernel, PolicyGradientKernel

TOLERANCE = 5e-6


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _assert_agrees(measured: Evaluated, expected: OracleLoss, case: Case, tolerance: float = TOLERANCE) -> None:
    assert loss_error(measured.result.loss_C, expected) < tolerance
    torch.testing.assert_close(measured.result.loss, measured.result.loss_C.sum().to(measured.result.loss.dtype))
    assert relative_error(measured.hidden_gradient_TH, expected.hidden_gradient_TH) < tolerance
    assert relative_error(measured.weight_gradient_vH, expected.weight_gradient_VH) < tolerance
    stats, live_CT = measured.result.stats, case.routing.weight_CT != 0
    for values, exact, live in (
        (stats.value_CT, expected.value_CT, live_CT),
        (stats.logp_T, expected.logp_T, live_CT.any(dim=0)),
        (stats.entropy_T, expected.entropy_T, live_CT.any(dim=0)),
        (stats.gradient_norm_CT, expected.gradient_norm_CT, live_CT),
    ):
        torch.testing.assert_close(values[live].double(), exact[live], rtol=1e-5, atol=1e-5)
        assert values[~live].isnan().all()


@pytest.mark.parametrize("name", ALL_KERNELS)
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"sharpness": 4.0},
        {"temperature": 0.6},
        {"vocabulary": 293, "padding": 27, "temperature": 0.6},
        {"distance": 0.05},
    ],
    ids=["plain", "sharp logits", "temperature", "padded vocabulary", "close teacher"],
)
def test_agrees_with_the_oracle(name: str, shape: dict[str, Any]) -> None:
    """Values and both gradients of every kernel and of rows that feed several.

    Known failures: a teacher scored at another temperature; a loss that is right with gradients that are not.
    """
    case = make_case(ALL_KERNELS[name], **shape)
    expected = case.oracle()
    # a close policy's gradient is the difference of two float32 log-probs that nearly agree
    _assert_agrees(evaluate(case, chunk_rows=13), expected, case, case.tolerance(expected, TOLERANCE))


@pytest.mark.parametrize("name", ALL_KERNELS)
def test_formulas_in_float64(name: str) -> None:
    """Without float32 rounding the agreement is to 1e-10: what is left above is rounding, not a wrong
    formula."""
    case = make_case(ALL_KERNELS[name], vocabulary=293, padding=3, temperature=0.8)
    _assert_agrees(evaluate(case, dtype=torch.float64, chunk_rows=13), case.oracle(), case, tolerance=1e-10)


def test_finite_differences() -> None:
    """No autograd on either side: the gradients are those of the loss that is returned."""
    case = make_case(MIXTURES["everything"], tokens=5, hidden=3, vocabulary=11, padding=2, ratio_noise=0.05)
    inputs = (case.hidden_TH.double().requires_grad_(), case.weight_VH.double().requires_grad_())
    assert torch.autograd.gradcheck(lambda *tensors: double_loss(case, *tensors), inputs)


@pytest.mark.parametrize("chunk_rows", [1, 7, 61, None])
def test_chunks_do_not_matter(chunk_rows: int | None) -> None:
    """Gradients at any chunk size are those of one chunk."""
    case = make_case(MIXTURES["everything"], padding=5)
    _assert_agrees(evaluate(case, chunk_rows=chunk_rows), case.oracle(), case)


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(0, 61), max_size=6), seed=st.integers(0, 1000))
def test_any_cut_into_micro_batches_adds_up(cuts: list[int], seed: int) -> None:
    """Known failures: the loss depended on the micro-batch size, or grew with their number; denominators of a
    rank instead of global ones. Cuts may be empty, as on a rank without tokens.
    """
    case = make_case(MIXTURES["everything"], seed=seed)
    bounds = [0, *sorted(cuts), 61]
    parts = [torch.arange(low, high) for low, high in pairwise(bounds)]
    pieces = [evaluate(case.take(tokens)) for tokens in parts]
    expected = case.oracle()
    assert loss_error(sum(piece.result.loss_C for piece in pieces), expected) < TOLERANCE
    assert relative_error(torch.cat([p.hidden_gradient_TH for p in pieces]), expected.hidden_gradient_TH) < TOLERANCE
    assert relative_error(sum(p.weight_gradient_vH for p in pieces), expected.weight_gradient_VH) < TOLERANCE


def test_gradient_of_the_loss_scales() -> None:
    """1.7 times the loss has 1.7 times the gradient, also when backward runs twice over a kept graph."""
    case = make_case(MIXTURES["fkl + grpo"])
    expected = case.oracle()
    measured = evaluate(case, scale=1.7)
    assert relative_error(measured.hidden_gradient_TH / 1.7, expected.hidden_gradient_TH) < TOLERANCE
    assert relative_error(measured.weight_gradient_vH / 1.7, expected.weight_gradient_VH) < TOLERANCE

    hidden_TH, weight_VH = case.hidden_TH.clone().requires_grad_(), case.weight_VH.clone().requires_grad_()
    loss = _nll(hidden_TH, weight_VH, case).loss
    (first,) = torch.autograd.grad(3.0 * loss, hidden_TH, retain_graph=True)
    (second,) = torch.autograd.grad(loss, hidden_TH, retain_graph=True)
    torch.testing.assert_close(first, 3.0 * second)
    loss.backward()
    torch.testing.assert_close(hidden_TH.grad, second)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def _nll(hidden_TH: torch.Tensor, weight_VH: torch.Tensor, case: Case, **options: Any) -> Any:
    routing = replace(
        case.routing,
        kernels=(NllKernel(),),
        weight_CT=case.routing.weight_CT[:1],
        advantage_CT=case.routing.advantage_CT[:1],
    )
    return routed_linear_loss(hidden_TH, weight_VH, target_T=case.target_T, old_logp_T=None, routing=routing, **options)


def test_only_the_gradients_asked_for() -> None:
    """A frozen output weight, a frozen model, no_grad: the loss is the same, and no gradient work is done."""
    case = make_case((NllKernel(),))
    expected = case.oracle()
    for hidden_grad, weight_grad in ((True, False), (False, True), (False, False)):
        hidden_TH = case.hidden_TH.clone().requires_grad_(hidden_grad)
        weight_VH = case.weight_VH.clone().requires_grad_(weight_grad)
        loss = _nll(hidden_TH, weight_VH, case).loss
        assert loss.requires_grad == (hidden_grad or weight_grad)
        assert relative_error(loss, expected.loss) < TOLERANCE
        if loss.requires_grad:
            loss.backward()
        if hidden_grad:
            assert relative_error(hidden_TH.grad, expected.hidden_gradient_TH) < TOLERANCE
        if weight_grad:
            assert relative_error(weight_VH.grad, expected.weight_gradient_VH) < TOLERANCE
    with torch.no_grad(), _LargestTensor() as largest:
        loss = _nll(hidden_TH.requires_grad_(), weight_VH.requires_grad_(), case, chunk_rows=1).loss
    assert not loss.requires_grad
    assert largest.elements == len(case.weight_VH)  # one row of logits, and no gradient of either operand


@pytest.mark.parametrize("tokens", [0, 5])
def test_nothing_routed(tokens: int) -> None:
    """A micro-batch without a routed token: loss 0 with gradients of zeros, so that every rank can run its
    backward."""
    case = make_case(MIXTURES["everything"], tokens=9)
    case = case.take(torch.arange(tokens))
    case.routing.weight_CT.zero_()
    measured = evaluate(case)
    assert measured.result.loss.item() == 0.0
    assert measured.hidden_gradient_TH.shape == (tokens, 24)
    assert not measured.hidden_gradient_TH.any()
    assert not measured.weight_gradient_vH.any()


def test_rows_without_weight() -> None:
    """Exactly zero gradient whatever stands there, and no share in any sum.

    Known failure: masked tokens still counted in the denominator: here they are not even looked at.
    """
    case = make_case(MIXTURES["everything"], routed=0.15)
    dead_T = (case.routing.weight_CT == 0).all(dim=0)
    assert dead_T.any()
    spoiled = replace(
        case,
        hidden_TH=case.hidden_TH.masked_fill(dead_T[:, None], torch.nan),
        target_T=case.target_T.masked_fill(dead_T, -100),
        old_logp_T=case.old_logp_T.masked_fill(dead_T, torch.nan),
    )
    clean, measured = evaluate(case), evaluate(spoiled)
    assert measured.result.loss == clean.result.loss
    assert not measured.hidden_gradient_TH[dead_T].any()
    assert torch.equal(measured.hidden_gradient_TH, clean.hidden_gradient_TH)
    assert torch.equal(measured.weight_gradient_vH, clean.weight_gradient_vH)


def test_old_log_probs_are_read_by_policy_gradients_only() -> None:
    case = make_case((FKL, GRPO))
    unused_T = case.routing.weight_CT[1] == 0
    spoiled = replace(case, old_logp_T=case.old_logp_T.masked_fill(unused_T, torch.nan))
    assert evaluate(spoiled).result.loss == evaluate(case).result.loss


def test_evaluate_all_adds_statistics_only() -> None:
    case = make_case(MIXTURES["everything"], routed=0.05)
    expected = case.oracle()
    some, every = evaluate(case), evaluate(case, evaluate_all=True, chunk_rows=11)
    assert some.result.stats.logp_T.isnan().any()
    torch.testing.assert_close(every.result.stats.logp_T.double(), expected.logp_T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(every.result.stats.entropy_T.double(), expected.entropy_T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(every.result.loss, some.result.loss)
    assert relative_error(every.weight_gradient_vH, expected.weight_gradient_VH) < TOLERANCE
    dead_T = (case.routing.weight_CT == 0).all(dim=0)
    assert not every.hidden_gradient_TH[dead_T].any()


@pytest.mark.parametrize("name", AGREEING)
@pytest.mark.parametrize("sharpness", [1.0, 4.0])
def test_teacher_that_is_the_student(name: str, sharpness: float) -> None:
    """The gradient is exactly zero: rounding noise of a self-teacher would drown the signal of a close
    one."""
    kernel = replace(SINGLE_KERNELS[name], teacher="self")
    case = make_case((kernel,), distance=0.0, sharpness=sharpness, temperature=0.7)
    measured = evaluate(case, chunk_rows=13)
    assert not measured.hidden_gradient_TH.any()
    assert not measured.weight_gradient_vH.any()
    assert abs(measured.result.loss.item()) < 1e-6


def _offset(case: Case, offset: float) -> Case:
    """Every logit of student and teachers raised by `offset`; exact in float32 (multiples of 1/64 below
    2^14)."""

    def lift(rows_TH: torch.Tensor, table_VH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            torch.cat(((4 * rows_TH).round() / 4, torch.ones(len(rows_TH), 1)), dim=1),
            torch.cat(((8 * table_VH).round() / 8, torch.full((len(table_VH), 1), offset)), dim=1),
        )

    hidden_TH, weight_VH = lift(case.hidden_TH, case.weight_VH)
    teachers = {name: lift(*teacher) for name, teacher in case.teachers.items()}
    return replace(case, hidden_TH=hidden_TH, weight_VH=weight_VH, teachers=teachers)


@pytest.mark.parametrize("name", ["everything", "every option"])
def test_large_logits(name: str) -> None:
    """Logits around 1e4: the statistics add nothing to what the logits themselves lost."""
    for offset in (0.0, 1e4, -1e4):
        case = _offset(make_case(MIXTURES[name], distance=0.5), offset)
        expected, measured = case.oracle(), evaluate(case)
        assert loss_error(measured.result.loss_C, expected) < TOLERANCE
        # the offset's own gradient row is a sum that cancels to zero: leave its column of hidden out
        hidden, exact = measured.hidden_gradient_TH[:, :-1], expected.hidden_gradient_TH[:, :-1]
        assert relative_error(hidden, exact) < TOLERANCE
        assert relative_error(measured.weight_gradient_vH, expected.weight_gradient_VH) < TOLERANCE


@pytest.mark.parametrize("shape", [{"tokens": 1}, {"vocabulary": 1}, {"hidden": 1}, {"vocabulary": 257, "tokens": 3}])
@pytest.mark.parametrize("name", ["everything", "every option"])
def test_small_and_odd_shapes(shape: dict[str, int], name: str) -> None:
    case = make_case(MIXTURES[name], routed=1.0, **shape)
    expected, measured = case.oracle(), evaluate(case)
    torch.testing.assert_close(measured.result.loss_C, expected.loss_C, rtol=TOLERANCE, atol=1e-6)
    for gradient, exact in (
        (measured.hidden_gradient_TH, expected.hidden_gradient_TH),
        (measured.weight_gradient_vH, expected.weight_gradient_VH),
    ):
        torch.testing.assert_close(gradient.double(), exact, rtol=TOLERANCE, atol=1e-6)


def test_empty_channels_and_no_channels() -> None:
    """A channel that routes no token needs no teacher and adds zero."""
    case = make_case((FKL, NllKernel(), RKL))
    case.routing.weight_CT[0] = 0.0
    case.routing.weight_CT[2] = 0.0
    measured = evaluate(replace(case, teachers={}))
    assert measured.result.loss_C[0] == measured.result.loss_C[2] == 0.0
    assert relative_error(measured.result.loss, case.oracle().loss) < TOLERANCE

    none = replace(case.routing, kernels=(), weight_CT=torch.empty(0, 61), advantage_CT=torch.empty(0, 61))
    assert evaluate(replace(case, routing=none, teachers={})).result.loss.item() == 0.0


def test_every_side_of_the_clip_reaches_the_gradient() -> None:
    """With ratios from 0.2 to 5 each branch of the clip is taken, and its gradient is the oracle's."""
    kernel = PolicyGradientKernel(0.2, 0.3, dual=2.0)
    case = make_case((kernel,), tokens=200, ratio_noise=0.8, routed=0.9)
    expected, measured = case.oracle(), evaluate(case)
    ratio_T, advantage_T = (expected.logp_T - case.old_logp_T).exp(), case.routing.advantage_CT[0]
    routed_T = case.routing.weight_CT[0] != 0
    clipped_above_T = routed_T & (ratio_T > 1.3) & (advantage_T > 0)
    clipped_below_T = routed_T & (ratio_T < 0.8) & (advantage_T < 0)
    bounded_T = routed_T & (ratio_T > 2.0) & (advantage_T < 0)
    pessimistic_T = routed_T & (ratio_T > 1.3) & (ratio_T < 2.0) & (advantage_T < 0)
    for branch_T in (clipped_above_T, clipped_below_T, bounded_T, pessimistic_T):
        assert branch_T.sum() > 3
    assert torch.equal(measured.result.stats.clipped_CT[0], clipped_above_T | clipped_below_T | bounded_T)
    _assert_agrees(measured, expected, case)


def test_bfloat16_operands() -> None:
    """bfloat16 in, float32 logits: the loss is that of the rounded operands, gradients are rounded once on
    the way out.

    With bfloat16 logits the gradient of a teacher this close would be wrong by tens of percent.
    """
    case = make_case((FKL, RKL), distance=0.03)
    rounded = replace(
        case,
        hidden_TH=case.hidden_TH.bfloat16().float(),
        weight_VH=case.weight_VH.bfloat16().float(),
        teachers={
            name: (rows.bfloat16().float(), table.bfloat16().float()) for name, (rows, table) in case.teachers.items()
        },
    )
    expected, measured = rounded.oracle(), evaluate(case, dtype=torch.bfloat16)
    assert measured.hidden_gradient_TH.dtype is torch.bfloat16
    assert measured.result.loss.dtype is torch.float32
    assert relative_error(measured.result.loss, expected.loss) < TOLERANCE
    assert relative_error(measured.hidden_gradient_TH, expected.hidden_gradient_TH) < 3e-3
    assert relative_error(measured.weight_gradient_vH, expected.weight_gradient_VH) < 3e-3


class _LargestTensor(TorchDispatchMode):
    """Records the largest memory that any operation allocated, in elements; views and in-place results are
    none."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {_storage(value) for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and _storage(value) not in known:
                self.elements = max(self.elements, value.numel())
        return result


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("name", MIXTURES)
def test_no_tensor_of_tokens_by_vocabulary(name: str) -> None:
    """Known failure: a [B, S, V] float32 copy for the sake of a few columns. Here the widest tensor is one
    chunk of logits.
    """
    chunk_rows, vocabulary, hidden, tokens = 16, 1000, 8, 200
    case = make_case(MIXTURES[name], tokens=tokens, hidden=hidden, vocabulary=vocabulary)
    with _LargestTensor() as largest:
        evaluate(case, chunk_rows=chunk_rows)
    assert chunk_rows * vocabulary == max(chunk_rows * vocabulary, vocabulary * (hidden + 8), tokens * hidden)
    assert largest.elements == chunk_rows * vocabulary


def test_entropy_is_rewarded_by_a_positive_weight() -> None:
    """A step down the gradient of the entropy kernel raises the entropy."""
    case = make_case((EntropyKernel(),), routed=1.0)
    before = evaluate(case)
    after = evaluate(replace(case, weight_VH=case.weight_VH - 10 * before.weight_gradient_vH))
    assert after.result.stats.entropy_T.mean() > before.result.stats.entropy_T.mean()
