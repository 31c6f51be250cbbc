"""Tests of the loss that `test_triton.py` runs again with TRITON_INTERPRET=1, in a process of their own.

Triton decides when its functions are defined whether they are interpreted, so the variable must not reach other tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
import triton
import triton.language as tl

from megatron_bridge.losses import triton_gradient, triton_statistics
from megatron_bridge.losses.triton_math import expm1, log1p
from tests.losses.cases import GRPO, MIXTURES, SINGLE_KERNELS, evaluate, make_case
from tests.losses.oracle import loss_error, relative_error
from tests.losses.test_routed_linear import (  # noqa: F401  collected here, too
    _assert_agrees,
    _offset,
    _one_thread,
    test_small_and_odd_shapes,
    test_teacher_that_is_the_student,
)
from trace_dsl.lowering.fused import FusedKernel

ALL_KERNELS: dict[str, tuple[FusedKernel, ...]] = {
    **{name: (kernel,) for name, kernel in SINGLE_KERNELS.items()},
    "fkl + grpo": MIXTURES["fkl + grpo"],
    "everything": MIXTURES["everything"],
}


@pytest.fixture(autouse=True)
def launches(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Blocks that divide none of the vocabularies; no test may pass without a launch."""
    monkeypatch.setattr(triton_statistics, "MAX_BLOCK", 128)
    counts: Counter[str] = Counter()
    for module, name in (
        (triton_statistics, "local_statistics_"),
        (triton_statistics, "mixture_statistics"),
        (triton_gradient, "logit_gradient_"),
    ):
        function = getattr(module, name)

        def call(*args: object, name: str = name, function: object = function, **kwargs: object) -> object:
            counts[name] += 1
            return function(*args, **kwargs)  # type: ignore[operator]

        monkeypatch.setattr(module, name, call)
    yield counts
    assert counts["local_statistics_"] or request.node.originalname == "test_beside_zero"


@pytest.mark.parametrize("name", ALL_KERNELS)
@pytest.mark.parametrize(
    "shape",
    [
        {"vocabulary": 293, "padding": 27, "temperature": 0.6},
        {"distance": 0.05},
    ],
    ids=["padded vocabulary", "close teacher"],
)
def test_agrees_with_the_oracle(name: str, shape: dict[str, float], launches: Counter[str]) -> None:
    """As in test_routed_linear, every kernel's values and both gradients."""
    case = make_case(ALL_KERNELS[name], tokens=17, **shape)
    _assert_agrees(evaluate(case, chunk_rows=13), case.oracle(), case, 2e-5 if "distance" in shape else 5e-6)
    mixtures = name in ("everything", "jsd 0.5", "jsd 0.1", "jsd 0.9", "skl", "srkl")
    assert bool(launches["mixture_statistics"]) == mixtures
    assert bool(launches["logit_gradient_"]) == (mixtures or name in ("fkl", "rkl", "entropy", "fkl + grpo"))


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_large_logits(offset: float) -> None:
    """As in test_routed_linear: the offset's own column of hidden is left out, whose gradient cancels to zero."""
    case = _offset(make_case(MIXTURES["everything"], tokens=13, routed=0.8), offset)
    expected, measured = case.oracle(), evaluate(case)
    assert loss_error(measured.result.loss_C, expected) < 5e-6
    assert relative_error(measured.hidden_gradient_TH[:, :-1], expected.hidden_gradient_TH[:, :-1]) < 5e-6
    assert relative_error(measured.weight_gradient_vH, expected.weight_gradient_VH) < 5e-6


def test_float64_stays_with_torch(launches: Counter[str]) -> None:
    case = make_case((GRPO,), tokens=5)
    evaluate(case, dtype=torch.float64)
    assert not launches
    evaluate(case)


@triton.jit
def _probe(x, out, count, EXPM1: tl.constexpr, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    value = tl.load(x + lanes, mask=lanes < count, other=0.0)
    tl.store(out + lanes, expm1(value) if EXPM1 else log1p(value), mask=lanes < count)


@pytest.mark.parametrize("name", ["expm1", "log1p"])
def test_beside_zero(name: str) -> None:
    """Relative error 1e-6 from 1e-30 to where float32 ends, exactly 0 at 0."""
    magnitude = torch.logspace(-30, 1.9, 400)
    x = torch.cat((-magnitude[magnitude < (80 if name == "expm1" else 0.5)], torch.zeros(1), magnitude))
    measured = torch.empty_like(x)
    _probe[(1,)](x, measured, len(x), EXPM1=name == "expm1", BLOCK=1024)
    torch.testing.assert_close(measured.double(), getattr(torch, name)(x.double()), rtol=1e-6, atol=0)
