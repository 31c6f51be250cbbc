"""The routed loss on two vocabulary shards (gloo): gradients, collectives, shards without a column.

Legend: T tokens, V vocabulary, v = V_padded / tp, H hidden, C channels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from megatron_bridge.losses import routed_linear, statistics
from tests.distributed import run_distributed
from tests.losses.cases import (
    AGREEING,
    ALL_KERNELS,
    SINGLE_KERNELS,
    Case,
    evaluate,
    evaluate_logits,
    make_case,
    tied_case,
)
from tests.losses.oracle import loss_error, relative_error
from trace_dsl.lowering.fused import DivergenceKernel
from trace_dsl.model import SupportOf

pytestmark = pytest.mark.distributed

TOLERANCE = 5e-6
CHUNK_ROWS = 13
RANKS = 2
LOGITS = ("everything", "every option", "sequence", "fkl, top 20 of teacher, bucket")
SHAPES: dict[str, dict[str, Any]] = {
    "even": {"vocabulary": 308},
    "padded": {"vocabulary": 293, "padding": 27, "temperature": 0.6},
    "sharp": {"vocabulary": 308, "sharpness": 4.0},
    "empty shard": {"vocabulary": 150, "padding": 160},
}


def _case(name: str, shape: str) -> Case:
    return make_case(ALL_KERNELS[name], **SHAPES[shape])


def _counted(counts: Counter[str], function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        assert kwargs["group"] is dist.group.WORLD
        counts[function.__name__] += 1
        return function(*args, **kwargs)

    return call


def _measure(case: Case, **options: Any) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    with (
        mock.patch.object(statistics.dist, "all_gather_into_tensor", _counted(counts, dist.all_gather_into_tensor)),
        mock.patch.object(routed_linear.dist, "all_reduce", _counted(counts, dist.all_reduce)),
    ):
        measured = evaluate(case, tp_group=dist.group.WORLD, **options)
    return {
        "loss": measured.result.loss.detach(),
        "loss_C": measured.result.loss_C,
        "logp_T": measured.result.stats.logp_T,
        "entropy_T": measured.result.stats.entropy_T,
        "value_CT": measured.result.stats.value_CT,
        "clipped_CT": measured.result.stats.clipped_CT,
        "gradient_norm_CT": measured.result.stats.gradient_norm_CT,
        "hidden_gradient_TH": measured.hidden_gradient_TH,
        "weight_gradient_vH": measured.weight_gradient_vH,
        "counts": dict(counts),
    }


def _on_one_rank() -> dict[Any, dict[str, Any]]:
    """Everything that needs two ranks, in one start of the processes."""
    results: dict[Any, dict[str, Any]] = {}
    for name in ALL_KERNELS:
        for shape in SHAPES:
            results[name, shape] = _measure(_case(name, shape), chunk_rows=CHUNK_ROWS, scale=1.7)
    for name in AGREEING:
        kernel = replace(SINGLE_KERNELS[name], teacher="self")
        results["self", name] = _measure(make_case((kernel,), vocabulary=308, distance=0.0))
    for name in LOGITS:
        result, gradient_Tv = evaluate_logits(
            _case(name, "padded"), tp_group=dist.group.WORLD, chunk_rows=CHUNK_ROWS, scale=1.7
        )
        results["logits", name] = {"loss_C": result.loss_C, "gradient_Tv": gradient_Tv}
    results["ties"] = _measure(tied_case(of=SupportOf.STUDENT))
    silent = _case("everything", "even")
    silent.routing.weight_CT.zero_()
    results["nothing routed"] = _measure(silent)
    return results


@pytest.fixture(scope="module")
def ranks() -> list[dict[Any, dict[str, Any]]]:
    return run_distributed(_on_one_rank, RANKS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ALL_KERNELS)
def test_agrees_with_the_oracle(ranks: list[dict[Any, dict[str, Any]]], name: str, shape: str) -> None:
    """Both gradients on both ranks: the loss is counted once, hidden's gradient is whole, the weight's is the
    shard's.

    Known failures: gradients multiplied by tp under a loss that looks right; a KL and a cross-entropy
    reduced over different groups.
    """
    case = _case(name, shape)
    expected = case.oracle()
    tolerance = case.tolerance(expected, TOLERANCE)
    weight_shards = expected.weight_gradient_VH.tensor_split(RANKS)
    for rank, results in enumerate(ranks):
        measured = results[name, shape]
        assert loss_error(measured["loss_C"], expected) < tolerance
        assert measured["loss"] == measured["loss_C"].sum().float()
        assert relative_error(measured["hidden_gradient_TH"] / 1.7, expected.hidden_gradient_TH) < tolerance
        weight_gradient_vH = measured["weight_gradient_vH"] / 1.7
        error = (weight_gradient_vH.double() - weight_shards[rank]).norm() / expected.weight_gradient_VH.norm()
        assert error < tolerance
    norm_CT = sum(results[name, shape]["gradient_norm_CT"].double() for results in ranks)
    live_CT = case.routing.weight_CT != 0
    torch.testing.assert_close(norm_CT[live_CT], expected.gradient_norm_CT[live_CT], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOGITS)
def test_given_logits(ranks: list[dict[Any, dict[str, Any]]], name: str) -> None:
    """Each rank's columns get their own gradient: multiplied with the weight and summed it is hidden's."""
    case = _case(name, "padded")
    expected = case.oracle()
    gradient_TV = torch.cat([results["logits", name]["gradient_Tv"] for results in ranks], dim=1) / 1.7
    assert loss_error(ranks[0]["logits", name]["loss_C"], expected) < case.tolerance(expected, TOLERANCE)
    assert torch.equal(ranks[0]["logits", name]["loss_C"], ranks[1]["logits", name]["loss_C"])
    hidden_gradient_TH = gradient_TV.double() @ case.weight_VH.double()
    assert relative_error(hidden_gradient_TH, expected.hidden_gradient_TH) < case.tolerance(expected, TOLERANCE)
    assert not gradient_TV[:, 293:].any()


def test_ranks_agree_to_the_bit(ranks: list[dict[Any, dict[str, Any]]]) -> None:
    """The numbers a trainer logs or branches on are the same on every rank."""
    first, second = ranks
    for case in (case for case in first if case[0] != "logits"):
        for key in ("loss", "loss_C", "logp_T", "entropy_T", "value_CT", "clipped_CT", "hidden_gradient_TH"):
            torch.testing.assert_close(first[case][key], second[case][key], rtol=0, atol=0, equal_nan=True)


def test_padded_columns_get_no_gradient(ranks: list[dict[Any, dict[str, Any]]]) -> None:
    """A shard may be padding in part or altogether."""
    for name in ALL_KERNELS:
        weight_gradient_VH = torch.cat([results[name, "padded"]["weight_gradient_vH"] for results in ranks])
        assert not weight_gradient_VH[293:].any()
        assert not ranks[1][name, "empty shard"]["weight_gradient_vH"].any()


def test_teacher_that_is_the_student(ranks: list[dict[Any, dict[str, Any]]]) -> None:
    """Exactly zero gradient on shards too."""
    for results in ranks:
        for name in AGREEING:
            assert not results["self", name]["hidden_gradient_TH"].any()
            assert not results["self", name]["weight_gradient_vH"].any()


def test_equal_logits_are_taken_by_token_id(ranks: list[dict[Any, dict[str, Any]]]) -> None:
    """Also where the tie is between the columns of two ranks."""
    expected = tied_case(of=SupportOf.STUDENT).oracle()
    for results in ranks:
        assert loss_error(results["ties"]["loss_C"], expected) < TOLERANCE
        assert relative_error(results["ties"]["hidden_gradient_TH"], expected.hidden_gradient_TH) < TOLERANCE


def _chunks(case: Case, names: tuple[int, ...]) -> int:
    """Chunks of the rows grouped by which of the channels `names` they feed."""
    live_CT = case.routing.weight_CT != 0
    patterns = [tuple(column) for column in live_CT[list(names)].T.tolist()]
    routed = live_CT.any(dim=0).tolist()
    groups = Counter(pattern for pattern, is_routed in zip(patterns, routed, strict=True) if is_routed)
    return sum(-(-rows // CHUNK_ROWS) for rows in groups.values())


def test_collectives(ranks: list[dict[Any, dict[str, Any]]]) -> None:
    """One all-gather a chunk, a second one where a kernel needs the global softmax, one all-reduce a call."""

    def counts(name: str) -> dict[str, int]:
        return results[name, "even"]["counts"]

    for results in ranks:
        for name in SINGLE_KERNELS:
            case = _case(name, "even")
            (kernel,), weight_T = case.routing.kernels, case.routing.weight_CT[0]
            chunks = -(-int((weight_T != 0).sum()) // CHUNK_ROWS)
            gathers = chunks
            if isinstance(kernel, DivergenceKernel) and (kernel.top_k or kernel.pclip or kernel.parameter):
                gathers = 2 * chunks
            elif name.startswith("sequence"):
                gathers = chunks + -(-int(case.routing.sequence_tokens(0).sum()) // CHUNK_ROWS)
            assert counts(name) == {"all_gather_into_tensor": gathers, "all_reduce": 1}, name
        for name, told_apart in (("fkl + grpo", (0,)), ("two teachers", (0, 1)), ("two policy gradients", ())):
            gathers = _chunks(_case(name, "even"), told_apart)
            assert counts(name) == {"all_gather_into_tensor": gathers, "all_reduce": 1}
        assert results["nothing routed"]["counts"] == {}
        assert results["nothing routed"]["loss"] == 0.0
        assert not results["nothing routed"]["hidden_gradient_TH"].any()
