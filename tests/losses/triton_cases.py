"""Tests of the loss that `test_triton.py` runs again with TRITON_INTERPRET=1, in a process of their own.

Triton decides when its functions are defined whether they are interpreted, so the variable must not reach other tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import triton
import triton.language as tl

from megatron_bridge.losses import triton_gradient, triton_statistics
from megatron_bridge.losses.triton_math import expm1, log1p
from tests.losses.cases import GRPO, MIXTURES, SINGLE_KERNELS, evaluate, make_case
from tests.losses.oracle import loss_error, relative_error
from tests.losses.test_routed_linear import _assert_agrees, _offset

STATISTICS, MIXING, WRITING = "local_statistics_", "mixture_statistics", "logit_gradient_"
# what is launched beside the first statistics
LAUNCHES: dict[str, set[str]] = {
    "policy gradient": set(),
    "sequence, mixed anchor, tis": set(),
    "mixed anchor": {WRITING},
    "fkl": {WRITING},
    "rkl": {WRITING},
    "entropy": {WRITING},
    "fkl + grpo": {WRITING},
    "rkl, temperature": {WRITING},
    **{name: {MIXING, WRITING} for name in ("jsd 0.5", "jsd 0.1", "jsd 0.9", "skl", "srkl", "srkl, temperature")},
    "everything": {MIXING, WRITING},
    "fkl, top 20 of student, bucket": set(),  # torch writes gradients of supports and clips
    "jsd 0.5, clipped": set(),
    "every option": {WRITING},
}


@pytest.fixture(autouse=True)
def launches(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Blocks that divide none of the vocabularies; no test may pass without a launch."""
    monkeypatch.setattr(triton_statistics, "MAX_BLOCK", 128)
    counts: Counter[str] = Counter()
    for module, name in (
        (triton_statistics, STATISTICS),
        (triton_statistics, MIXING),
        (triton_gradient, WRITING),
    ):
        function = getattr(module, name)

        def call(*args: object, name: str = name, function: object = function, **kwargs: object) -> object:
            counts[name] += 1
            return function(*args, **kwargs)  # type: ignore[operator]

        monkeypatch.setattr(module, name, call)
    yield counts
    assert counts[STATISTICS] or request.node.originalname == "test_beside_zero"


@pytest.mark.parametrize("name", LAUNCHES)
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
    kernels = MIXTURES[name] if name in MIXTURES else (SINGLE_KERNELS[name],)
    case = make_case(kernels, tokens=17, **shape)
    _assert_agrees(evaluate(case, chunk_rows=13), case.oracle(), case, 2e-5 if "distance" in shape else 5e-6)
    assert {name for name, count in launches.items() if count} == {STATISTICS, *LAUNCHES[name]}


@pytest.mark.parametrize("name", ["fkl", "rkl", "jsd 0.5", "jsd 0.1", "jsd 0.9", "skl", "srkl", "srkl, temperature"])
def test_teacher_that_is_the_student(name: str) -> None:
    """The gradient is exactly zero."""
    kernel = replace(SINGLE_KERNELS[name], teacher="self")
    measured = evaluate(make_case((kernel,), tokens=14, distance=0.0, sharpness=4.0, temperature=0.7), chunk_rows=5)
    assert not measured.hidden_gradient_TH.any()
    assert not measured.weight_gradient_vH.any()
    assert abs(measured.result.loss.item()) < 1e-6


@pytest.mark.parametrize("shape", [{"tokens": 1}, {"vocabulary": 1}, {"vocabulary": 257}])
def test_small_and_odd_shapes(shape: dict[str, int]) -> None:
    case = make_case(MIXTURES["everything"], routed=1.0, **{"tokens": 3, **shape})
    expected, measured = case.oracle(), evaluate(case)
    torch.testing.assert_close(measured.result.loss_C, expected.loss_C, rtol=5e-6, atol=1e-6)
    torch.testing.assert_close(measured.hidden_gradient_TH.double(), expected.hidden_gradient_TH, rtol=5e-6, atol=1e-6)
    torch.testing.assert_close(measured.weight_gradient_vH.double(), expected.weight_gradient_VH, rtol=5e-6, atol=1e-6)


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_large_logits(offset: float) -> None:
    """As in test_routed_linear: the offset's own column of hidden is left out, whose gradient cancels to zero."""
    case = _offset(make_case(MIXTURES["everything"], tokens=9, routed=0.8), offset)
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
