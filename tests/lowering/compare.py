"""`lower` against the reading of a spec, token by token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

import pytest

from tests.lowering.cases import measured_of, tensors_of
from tests.lowering.plain import PlainBatch
from tests.lowering.reading import Reading, read, signals_to_measure
from tests.lowering.reading_expressions import Latches
from trace_dsl.errors import LoweringError
from trace_dsl.facts import RunFacts
from trace_dsl.lowering import Lowered, lower
from trace_dsl.lowering.evaluate import latch_key
from trace_dsl.lowering.fused import (
    DivergenceKernel,
    EntropyKernel,
    FusedKernel,
    NllKernel,
    PolicyGradientKernel,
)
from trace_dsl.model import Divergence, EntropyBonus, Kernel, Nll, PolicyGradient, Spec
from trace_dsl.plan import compile_plan
from trace_dsl.plan.measurements import measurements

TOLERANCE = 1e-6  # relative
NO_LATCHES: Latches = MappingProxyType({})
LEFTOVER = 1e-9  # what rounding may leave where terms of about 1 cancel


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What came of a comparison. `lowered` is None where a reading was fragile or contested, or `lower` rightly
    refused the batch.

    worst: the largest difference of a weight or an advantage, relative to it.
    """

    reading: Reading
    lowered: Lowered | None
    worst: float


def compare(
    spec: Spec,
    facts: RunFacts,
    batch: PlainBatch,
    step: int,
    tokens: float = 0.0,
    latches: Latches = NO_LATCHES,
    only_asked: bool = True,
) -> Compared:
    """Read and lower one batch and assert that they agree.

    A reading in which rounding could decide a comparison, or which is contested, is not compared. One with a weight or
    an advantage that is not finite must be refused by `lower`. only_asked: `lower` is given no measurement that the
    plan does not ask for at this step, else all that the spec reads.
    """
    reading = read(spec, facts, batch, step, tokens, latches)
    if reading.fragile or reading.contested:
        return Compared(reading=reading, lowered=None, worst=0.0)
    plan = compile_plan(spec, facts)
    wanted = measurements(plan, step) if only_asked else signals_to_measure(spec)
    tensors = tensors_of(batch, measured_of(batch, spec, wanted))
    before = {latch_key(latch): state for latch, state in latches.items()}
    if reading.refused:
        with pytest.raises(LoweringError, match=r"line \d+: "):
            lower(plan, tensors, step, tokens=tokens, latches=before)
        return Compared(reading=reading, lowered=None, worst=0.0)
    lowered = lower(plan, tensors, step, tokens=tokens, latches=before)
    worst = assert_same(spec, batch, reading, lowered)
    return Compared(reading=reading, lowered=lowered, worst=worst)


def assert_same(spec: Spec, batch: PlainBatch, reading: Reading, lowered: Lowered) -> float:
    """Routes, weights summed per kernel, advantages, latches, and what is derived from them. The worst difference."""
    worst = 0.0
    routing = lowered.routing
    count = len(reading.route)
    assert lowered.route_of_T.tolist() == [-1 if index is None else index for index in reading.route]
    assert routing.row_of_T.tolist() == [place.row for place in batch.tokens()]
    assert close_lists(lowered.advantage_R.tolist(), reading.advantage_of_row), "A"
    assert routing.weight_CT.shape == routing.advantage_CT.shape == (len(routing.kernels), count)
    assert len(set(routing.kernels)) == len(routing.kernels) == len(lowered.loss_of_C)

    fed = [pair for pairs in lowered.loss_of_C for pair in pairs]
    with_weight = sorted(pair for pair, weights in reading.weight.items() if any(weights))
    assert sorted(fed) == with_weight, "every loss that has a weight feeds one kernel, no other does"
    for kernel, pairs, weight_T, advantage_T in zip(
        routing.kernels, lowered.loss_of_C, routing.weight_CT.tolist(), routing.advantage_CT.tolist(), strict=True
    ):
        for r, c in pairs:
            assert is_fused(spec.routes[r].channels[c].kernel, kernel), (r, c, kernel)
        wanted = [math.fsum(reading.weight[pair][t] for pair in pairs) for t in range(count)]
        sizes = [sum(abs(reading.weight[pair][t]) for pair in pairs) for t in range(count)]
        for t in range(count):
            assert abs(weight_T[t] - wanted[t]) <= TOLERANCE * sizes[t] + LEFTOVER, (kernel, t, weight_T[t], wanted[t])
            worst = max(worst, relative(weight_T[t], wanted[t], sizes[t]))
            for pair in pairs:
                if reading.weight[pair][t] != 0 and reading.advantage[pair][t] is not None:
                    advantage = reading.advantage[pair][t]
                    assert close(advantage_T[t], advantage), (kernel, pair, t, advantage_T[t], advantage)
                    worst = max(worst, relative(advantage_T[t], advantage, abs(advantage)))
        if not isinstance(kernel, PolicyGradientKernel):
            assert advantage_T == [0.0] * count
    parts = routing.parts
    assert parts.losses == len(lowered.losses) == len(reading.weight)
    for channel, loss_T in zip(parts.channel_of_P, parts.loss_PT.tolist(), strict=True):
        found = {(one.route, one.loss) for n, one in enumerate(lowered.losses) if n in loss_T}
        assert found <= set(lowered.loss_of_C[channel])
    by_loss = parts.by_loss(parts.part_PT).view(parts.losses, len(parts.channel_of_P), count).sum(1)
    for one, part_T in zip(lowered.losses, by_loss.tolist(), strict=True):
        pair = one.route, one.loss
        weights = reading.weight[pair]
        assert one.tokens == sum(1 for weight in weights if weight != 0), pair
        assert close_lists(part_T, weights), pair
    for teacher in spec.teachers:
        needed = teacher_tokens(spec, reading, lowered.loss_of_C, teacher.name)
        assert routing.teacher_tokens(teacher.name).tolist() == needed
    assert lowered.latches == {latch_key(latch): state for latch, state in reading.latches.items()}
    return worst


def teacher_tokens(
    spec: Spec, reading: Reading, losses: tuple[tuple[tuple[int, int], ...], ...], name: str
) -> list[int]:
    """Tokens at which some divergence to a teacher has weight; losses that add up to nothing at a token need none."""
    needed = set()
    for pairs in losses:
        kernel = spec.routes[pairs[0][0]].channels[pairs[0][1]].kernel
        if isinstance(kernel, Divergence) and kernel.teacher == name:
            columns = zip(*(reading.weight[pair] for pair in pairs), strict=True)
            needed |= {
                t for t, weights in enumerate(columns) if abs(math.fsum(weights)) > 1e-12 * max(map(abs, weights))
            }
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


def relative(found: float, wanted: float, size: float) -> float:
    """A difference relative to a size, 0 where it is no more than what rounding may leave."""
    return 0.0 if abs(found - wanted) <= LEFTOVER else abs(found - wanted) / size


def close(found: float, wanted: float) -> bool:
    return abs(found - wanted) <= TOLERANCE * max(abs(wanted), 1e-3)


def close_lists(found: list[float], wanted: list[float]) -> bool:
    return len(found) == len(wanted) and all(close(a, b) for a, b in zip(found, wanted, strict=True))
