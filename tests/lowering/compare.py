"""`lower` against the reading of a spec, token by token."""

from __future__ import annotations

import math

from tests.lowering.cases import tensors_of
from tests.lowering.reading import PlainBatch, Reading, read
from trace_dsl.facts import RunFacts
from trace_dsl.lowering import Lowered, lower
from trace_dsl.lowering.fused import (
    DivergenceKernel,
    EntropyKernel,
    FusedKernel,
    NllKernel,
    PolicyGradientKernel,
)
from trace_dsl.model import Divergence, EntropyBonus, Kernel, Nll, PolicyGradient, Spec
from trace_dsl.plan import compile_plan

TOLERANCE = 1e-6  # relative
LEFTOVER = 1e-9  # what rounding may leave where terms of about 1 cancel


def compare(
    spec: Spec, facts: RunFacts, batch: PlainBatch, step: int, tokens: float = 0.0
) -> tuple[Reading, Lowered | None]:
    """Read and lower one batch and assert that they agree.

    A reading in which rounding could decide a comparison is not compared. One with a weight that is not finite must be
    refused by `lower`.
    """
    reading = read(spec, facts, batch, step, tokens)
    if reading.fragile:
        return reading, None
    plan = compile_plan(spec, facts)
    if not all(math.isfinite(weight) for weights in reading.weight.values() for weight in weights):
        try:
            lower(plan, tensors_of(batch), step, tokens=tokens)
        except ValueError:
            return reading, None
        raise AssertionError("a weight is not finite and lower() took it")
    lowered = lower(plan, tensors_of(batch), step, tokens=tokens)
    assert_same(spec, batch, reading, lowered)
    return reading, lowered


def assert_same(spec: Spec, batch: PlainBatch, reading: Reading, lowered: Lowered) -> None:
    """Routes, weights summed per kernel, advantages, and what is derived from them."""
    routing = lowered.routing
    count = len(reading.route)
    assert lowered.route_of_T.tolist() == [-1 if index is None else index for index in reading.route]
    assert routing.row_of_T.tolist() == [place.row for place in batch.tokens()]
    assert close_lists(lowered.advantage_R.tolist(), reading.advantage_of_row), "A"
    assert routing.weight_CT.shape == routing.advantage_CT.shape == (len(routing.kernels), count)
    assert len(set(routing.kernels)) == len(routing.kernels) == len(lowered.loss_of_C)

    fed = [pair for pairs in lowered.loss_of_C for pair in pairs]
    assert sorted(fed) == sorted(reading.weight), "every loss feeds one kernel"
    for kernel, pairs, weight_T, advantage_T in zip(
        routing.kernels, lowered.loss_of_C, routing.weight_CT.tolist(), routing.advantage_CT.tolist(), strict=True
    ):
        for r, c in pairs:
            assert is_fused(spec.routes[r].channels[c].kernel, kernel), (r, c, kernel)
        wanted = [math.fsum(reading.weight[pair][t] for pair in pairs) for t in range(count)]
        sizes = [sum(abs(reading.weight[pair][t]) for pair in pairs) for t in range(count)]
        for t in range(count):
            assert abs(weight_T[t] - wanted[t]) <= TOLERANCE * sizes[t] + LEFTOVER, (kernel, t, weight_T[t], wanted[t])
            for pair in pairs:
                if reading.weight[pair][t] != 0 and reading.advantage[pair][t] is not None:
                    assert close(advantage_T[t], reading.advantage[pair][t]), (kernel, pair, t)
        if not isinstance(kernel, PolicyGradientKernel):
            assert advantage_T == [0.0] * count
    for pair, weights in reading.weight.items():
        assert lowered.tokens_of_loss.get(pair, 0) == sum(1 for weight in weights if weight != 0), pair
    for teacher in spec.teachers:
        assert routing.teacher_tokens(teacher.name).tolist() == teacher_tokens(spec, reading, teacher.name)


def teacher_tokens(spec: Spec, reading: Reading, teacher: str) -> list[int]:
    """Tokens at which some divergence to a teacher has weight."""
    needed = set()
    for (r, c), weights in reading.weight.items():
        kernel = spec.routes[r].channels[c].kernel
        if isinstance(kernel, Divergence) and kernel.teacher == teacher:
            needed |= {t for t, weight in enumerate(weights) if weight != 0}
    return sorted(needed)


def is_fused(kernel: Kernel, fused: FusedKernel) -> bool:
    """Whether `fused` computes what a spec's kernel says."""
    match kernel, fused:
        case PolicyGradient(), PolicyGradientKernel():
            return (kernel.clip_low, kernel.clip_high, kernel.dual, kernel.level) == (
                fused.clip_low,
                fused.clip_high,
                fused.dual,
                fused.level,
            )
        case Divergence(), DivergenceKernel():
            return (kernel.kind, kernel.teacher, kernel.parameter) == (fused.kind, fused.teacher, fused.parameter)
        case (Nll(), NllKernel()) | (EntropyBonus(), EntropyKernel()):
            return True
        case _:
            return False


def close(found: float, wanted: float) -> bool:
    return abs(found - wanted) <= TOLERANCE * max(abs(wanted), 1e-3)


def close_lists(found: list[float], wanted: list[float]) -> bool:
    return len(found) == len(wanted) and all(close(a, b) for a, b in zip(found, wanted, strict=True))
