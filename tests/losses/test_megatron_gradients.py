"""What Megatron expects of an output layer: sequence-parallel shards, and gradients added to main_grad (gloo).

Legend: T tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.transformer import MegatronModule, TransformerConfig
from torch import Tensor

from megatron_bridge.device import megatron_runtime
from megatron_bridge.losses import TeacherHidden, routed_linear_loss
from megatron_bridge.model.shape import Layout
from megatron_bridge.parallel import start_parallel
from tests.distributed import run_distributed
from tests.losses.cases import MIXTURES, Case, make_case
from tests.losses.oracle import relative_error

pytestmark = pytest.mark.distributed

TOLERANCE = 5e-6
RANKS = 2


def _case(**options: Any) -> Case:
    return make_case(MIXTURES["everything"], tokens=62, vocabulary=308, **options)


def _loss(case: Case, hidden_TH: Tensor, weight_vH: Tensor, **options: Any) -> Any:
    tp_group = options.get("tp_group")
    world, rank = (1, 0) if tp_group is None else (tp_group.size(), tp_group.rank())
    teachers = {}
    for name, (rows_TH, table_VH) in case.teachers.items():
        needed = case.routing.teacher_tokens(name)
        table_vH = table_VH.tensor_split(world)[rank]
        teachers[name] = TeacherHidden(
            rows_T=needed, hidden_RH=rows_TH[needed].to(hidden_TH.dtype), output_weight_vH=table_vH.to(hidden_TH.dtype)
        )
    return routed_linear_loss(
        hidden_TH,
        weight_vH,
        target_T=case.target_T,
        old_logp_T=case.old_logp_T,
        routing=case.routing,
        teacher_hidden=teachers,
        **options,
    ).loss


def _sequence_parallel(silent: bool) -> tuple[Tensor, Tensor, dict[str, int]]:
    """This rank's gradients of 1.7 times the loss, and the collectives beside the gathers of statistics."""
    case = _case()
    if silent:
        case.routing.weight_CT.zero_()
    rank, counts = dist.get_rank(), Counter()
    hidden_tH = case.hidden_TH.chunk(RANKS)[rank].clone().requires_grad_()
    weight_vH = case.weight_VH.chunk(RANKS)[rank].clone().requires_grad_()

    def counted(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[function.__name__] += 1
            return function(*args, **kwargs)

        return mock.patch.object(dist, function.__name__, call)

    with counted(dist.reduce_scatter_tensor), counted(dist.all_reduce), counted(dist.all_gather_into_tensor):
        loss = _loss(case, hidden_tH, weight_vH, tp_group=dist.group.WORLD, sequence_parallel=True, chunk_rows=1000)
        (1.7 * loss).backward()
    assert hidden_tH.grad is not None
    assert weight_vH.grad is not None
    return hidden_tH.grad, weight_vH.grad, dict(counts)


class _Model(MegatronModule):
    """An output layer whose weight is an embedding too, as in a tied model."""

    def __init__(self, weight_VH: Tensor, *, tied: bool) -> None:
        super().__init__(TransformerConfig(num_layers=1, hidden_size=24, num_attention_heads=1))
        self.config.calculate_per_token_loss = True
        self.weight = torch.nn.Parameter(weight_VH)
        self.weight.zero_out_wgrad = tied
        self.tied = tied

    def forward(self, case: Case, fused: bool) -> Tensor:
        hidden_TH = case.hidden_TH.to(self.weight.dtype)
        if self.tied:
            hidden_TH = hidden_TH + 0.1 * torch.nn.functional.embedding(case.target_T, self.weight)
        return _loss(case, hidden_TH, self.weight, gradient_accumulation_fusion=fused)


def _main_grads(dtype: torch.dtype, overlap: bool, tied: bool) -> tuple[Tensor, Tensor]:
    """main_grad after two micro-batches on each of two data-parallel ranks: through autograd, and fused."""
    found = []
    with megatron_runtime():
        for fused in (False, True):
            case = _case()
            model = _Model(case.weight_VH.to(dtype), tied=tied)
            config = DistributedDataParallelConfig(grad_reduce_in_fp32=True, overlap_grad_reduce=overlap)
            wrapped = DistributedDataParallel(model.config, config, model)
            wrapped.zero_grad_buffer()
            first, second = torch.arange(62).chunk(4)[2 * dist.get_rank() : 2 * dist.get_rank() + 2]
            with wrapped.no_sync():
                (2.0 * wrapped(case.take(first), fused)).backward()
            (2.0 * wrapped(case.take(second), fused)).backward()
            wrapped.finish_grad_sync()
            assert model.weight.grad_added_to_main_grad is fused
            assert model.weight.grad is None
            found.append(model.weight.main_grad.clone())
    return found[0], found[1]


LAYERS = {
    "plain": (torch.float32, False, False),
    "overlap": (torch.float32, True, False),
    "tied": (torch.float32, True, True),
    "bfloat16": (torch.bfloat16, False, False),
}


def _on_one_rank() -> dict[str, Any]:
    """Everything that needs two ranks, in one start of the processes."""
    start_parallel(Layout(tp=1, dp=RANKS), seed=0)
    results: dict[str, Any] = {name: _main_grads(*layer) for name, layer in LAYERS.items()}
    return {**results, "sequence": _sequence_parallel(silent=False), "silent": _sequence_parallel(silent=True)}


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    return run_distributed(_on_one_rank, RANKS)


def test_sequence_parallel(ranks: list[dict[str, Any]]) -> None:
    """Rows arrive cut over the sequence and so leaves their gradient, by one reduce-scatter and no all-reduce."""
    expected = _case().oracle()
    hidden_gradient_TH = torch.cat([results["sequence"][0] for results in ranks]) / 1.7
    weight_gradient_VH = torch.cat([results["sequence"][1] for results in ranks]) / 1.7
    assert relative_error(hidden_gradient_TH, expected.hidden_gradient_TH) < TOLERANCE
    assert relative_error(weight_gradient_VH, expected.weight_gradient_VH) < TOLERANCE
    for results in ranks:
        assert results["sequence"][2]["reduce_scatter_tensor"] == 1
        assert "all_reduce" not in results["sequence"][2]
        hidden, weight, counts = results["silent"]
        assert counts == {"all_gather_into_tensor": 1}
        assert not hidden.any()
        assert not weight.any()


@pytest.mark.parametrize("layer", ["plain", "overlap", "tied"])
def test_main_grad_under_megatrons_data_parallelism(ranks: list[dict[str, Any]], layer: str) -> None:
    """Two micro-batches on two ranks: the gradient is counted once, whatever the hooks are given."""
    for results in ranks:
        plain, fused = results[layer]
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-8)
        if layer != "tied":
            assert relative_error(fused / 2, _case().oracle().weight_gradient_VH) < TOLERANCE


def test_main_grad_is_not_rounded(ranks: list[dict[str, Any]]) -> None:
    """With a bfloat16 weight, what autograd collects is rounded to it, what is added to main_grad is not."""
    case = _case()
    rounded = replace(
        case,
        hidden_TH=case.hidden_TH.bfloat16().float(),
        weight_VH=case.weight_VH.bfloat16().float(),
        teachers={name: (a.bfloat16().float(), b.bfloat16().float()) for name, (a, b) in case.teachers.items()},
    )
    exact = rounded.oracle().weight_gradient_VH
    plain, fused = ranks[0]["bfloat16"]
    assert relative_error(plain / 2, exact) > 1e-4
    assert relative_error(fused / 2, exact) < TOLERANCE


def test_refusals() -> None:
    case = _case()
    weight_VH = case.weight_VH.clone().requires_grad_()
    with pytest.raises(ValueError, match="adds to the output weight's main_grad, and it has none"):
        _loss(case, case.hidden_TH, weight_VH, gradient_accumulation_fusion=True)
