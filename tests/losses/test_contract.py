"""What trainers do around the loss: context-parallel shards, tied weights, packed rows, two backwards; and what a call
costs in products.

Legend: T tokens, V vocabulary, H hidden.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from megatron_bridge.losses import TeacherHidden, routed_linear_loss
from tests.losses.cases import GRPO, MIXTURES, Case, evaluate, make_case
from tests.losses.oracle import loss_error, relative_error
from trace_dsl.lowering.fused import DivergenceKernel, EntropyKernel, FusedKernel, NllKernel
from trace_dsl.model import DivergenceKind

TOLERANCE = 5e-6
JSD = DivergenceKernel(DivergenceKind.JSD, "self", 0.5)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _call(case: Case, hidden_TH: Tensor, weight_VH: Tensor) -> Tensor:
    return routed_linear_loss(
        hidden_TH, weight_VH, target_T=case.target_T, old_logp_T=case.old_logp_T, routing=case.routing
    ).loss


@pytest.mark.parametrize("ranks", [2, 4])
def test_context_parallel_shards(ranks: int) -> None:
    """Megatron gives rank r the pieces r and 2 ranks - 1 - r of a sequence; the ranks' losses and weight gradients add
    up, although each has another number of routed tokens."""
    case = make_case(MIXTURES["everything"], tokens=64)
    expected = case.oracle()
    pieces = torch.arange(64).chunk(2 * ranks)
    shards = [torch.cat((pieces[rank], pieces[-1 - rank])) for rank in range(ranks)]
    assert len({int((case.routing.weight_CT[:, tokens] != 0).sum()) for tokens in shards}) > 1
    parts = [evaluate(case.take(tokens)) for tokens in shards]
    assert loss_error(sum(part.result.loss_C for part in parts), expected) < TOLERANCE
    assert relative_error(sum(part.weight_gradient_vH for part in parts), expected.weight_gradient_VH) < TOLERANCE
    for tokens, part in zip(shards, parts, strict=True):
        assert relative_error(part.hidden_gradient_TH, expected.hidden_gradient_TH[tokens]) < TOLERANCE


def test_a_rank_without_routed_rows_beside_one_with_all() -> None:
    case = make_case(MIXTURES["fkl + grpo"], tokens=20)
    case.routing.weight_CT[:, :10] = 0.0
    expected = case.oracle()
    silent, loud = (evaluate(case.take(tokens)) for tokens in torch.arange(20).chunk(2))
    assert silent.result.loss == 0.0
    assert not silent.weight_gradient_vH.any()
    assert relative_error(loud.weight_gradient_vH, expected.weight_gradient_VH) < TOLERANCE


def test_packed_responses_are_their_own_rows() -> None:
    """Where a response stands in the pack changes nothing: the same numbers in another order."""
    case = make_case(MIXTURES["every option"], tokens=35)
    order = torch.cat([torch.arange(7) + 7 * row for row in (3, 0, 4, 2, 1)])
    packed, moved = evaluate(case), evaluate(case.take(order))
    assert relative_error(moved.hidden_gradient_TH, packed.hidden_gradient_TH[order].double()) < TOLERANCE
    assert relative_error(moved.weight_gradient_vH, packed.weight_gradient_vH.double()) < TOLERANCE


def test_tied_weights() -> None:
    """The output weight is the embedding too: both gradients arrive, each once."""
    case = make_case((GRPO, NllKernel()), tokens=30)
    tokens_in = torch.randint(0, len(case.weight_VH), (30,), generator=torch.Generator().manual_seed(1))
    tied_VH = case.weight_VH.clone().requires_grad_()
    _call(case, torch.tanh(tied_VH[tokens_in]), tied_VH).backward()

    embedding_VH, head_VH = (case.weight_VH.clone().requires_grad_() for _ in range(2))
    _call(case, torch.tanh(embedding_VH[tokens_in]), head_VH).backward()
    assert embedding_VH.grad.any()
    torch.testing.assert_close(tied_VH.grad, embedding_VH.grad + head_VH.grad)


def test_two_backwards_add_up() -> None:
    """A gradient that autograd keeps is not the one that a second backward needs."""
    case = make_case((GRPO,))
    hidden_TH, weight_VH = case.hidden_TH.clone().requires_grad_(), case.weight_VH.clone().requires_grad_()
    loss = _call(case, hidden_TH, weight_VH)
    loss.backward(retain_graph=True)
    once = weight_VH.grad.clone(), hidden_TH.grad.clone()
    loss.backward()
    torch.testing.assert_close((weight_VH.grad, hidden_TH.grad), tuple(2 * part for part in once))


class _Products(TorchDispatchMode):
    """Counts products by the rows of their left side, and exponentials of anything as wide as the vocabulary."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.counts = vocabulary, Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        if name in ("mm", "addmm", "addmm_"):
            self.counts["products"] += 1
        if name in ("exp", "exp_") and result.shape[-1:] == (self.vocabulary,):
            self.counts["exponentials"] += 1
        return result


@pytest.mark.parametrize(
    ("kernels", "products", "exponentials"),
    [
        ((GRPO,), 3, 1),
        ((NllKernel(), GRPO), 3, 1),
        ((EntropyKernel(),), 3, 2),
        ((JSD,), 4, 5),
    ],
    ids=["policy gradient", "two of the target", "entropy", "jsd"],
)
def test_statistics_cost_no_pass(kernels: tuple[FusedKernel, ...], products: int, exponentials: int) -> None:
    """Three products a chunk and one more a teacher; log-probs, entropies and values come out of them. Without a
    gradient, two products less."""
    case = make_case(kernels, tokens=9, vocabulary=300, routed=1.0)
    with _Products(300) as counted:
        stats = evaluate(case).result.stats
    assert counted.counts == {"products": products, "exponentials": exponentials}
    assert not stats.logp_T.isnan().any()
    assert not stats.entropy_T.isnan().any()
    assert not stats.value_CT.isnan().any()
    with torch.no_grad(), _Products(300) as counted:
        needs = any(isinstance(kernel, DivergenceKernel) for kernel in kernels)
        if not needs:
            _call(case, case.hidden_TH, case.weight_VH)
            assert counted.counts["products"] == products - 2


def test_evaluation_only() -> None:
    """The values of a call with gradients, to the bit."""
    case = make_case(MIXTURES["two policy gradients"])
    trained = evaluate(case).result
    with torch.no_grad():
        loss = _call(case, case.hidden_TH, case.weight_VH)
    assert not loss.requires_grad
    assert torch.equal(loss, trained.loss)


@pytest.mark.parametrize("name", ["everything", "every option"])
def test_the_callers_tensors_stay_as_they_are(name: str) -> None:
    """The loss gets the tensors themselves: gradients are written over logits, never over what the caller handed in."""
    case = make_case(MIXTURES[name])
    teachers = {
        teacher: TeacherHidden(rows_T=torch.arange(len(rows_TH)), hidden_RH=rows_TH, output_weight_vH=table_VH)
        for teacher, (rows_TH, table_VH) in case.teachers.items()
    }
    routing = {field.name: getattr(case.routing, field.name) for field in fields(case.routing)}
    given = {
        "hidden_TH": case.hidden_TH,
        "output_weight_vH": case.weight_VH,
        "target_T": case.target_T,
        "old_logp_T": case.old_logp_T,
        "proximal_logp_T": case.proximal_logp_T,
        "reference": case.reference_logp["ref"],
        **{name: value for name, value in routing.items() if isinstance(value, torch.Tensor)},
        **{f"{teacher} hidden": rows_TH for teacher, (rows_TH, _) in case.teachers.items()},
        **{f"{teacher} weight": table_VH for teacher, (_, table_VH) in case.teachers.items()},
        **{f"{teacher} rows": rows.rows_T for teacher, rows in teachers.items()},
    }
    kept = {tensor: value.clone() for tensor, value in given.items()}
    routed_linear_loss(
        case.hidden_TH.requires_grad_(),
        case.weight_VH.requires_grad_(),
        target_T=case.target_T,
        old_logp_T=case.old_logp_T,
        proximal_logp_T=case.proximal_logp_T,
        reference_logp=case.reference_logp,
        routing=case.routing,
        teacher_hidden=teachers,
        temperature=0.8,
    ).loss.backward()
    assert [tensor for tensor, value in given.items() if not torch.equal(value, kept[tensor])] == []
