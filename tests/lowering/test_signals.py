"""Measured signals, scans, random draws and latches, with numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.lowering.cases import facts_of, spec_of, tensors_of
from tests.lowering.test_lower import batch_of
from trace_dsl.errors import LoweringError
from trace_dsl.lowering import Lowered, RolloutBatch, lower
from trace_dsl.plan import compile_plan
from trace_dsl.plan.measurements import measurements
from trace_dsl.terms import Rank, Signal

LOGP = Signal(name="logp", rank=Rank.TOKEN)
ENTROPY = Signal(name="entropy", rank=Rank.TOKEN)
TEACHER_LOGP = Signal(name="teacher_logp", rank=Rank.TOKEN, teacher="teacher")


def batch(lengths: list[int], measured: dict[Signal, list[float]] | None = None) -> RolloutBatch:
    values = {signal: torch.tensor(value) for signal, value in (measured or {}).items()}
    return replace(tensors_of(batch_of(lengths)), measured=tuple(values.items()))


def run(text: str, on: RolloutBatch, step: int = 0, **more: object) -> Lowered:
    return lower(compile_plan(spec_of(text), facts_of(100)), on, step, **more)


def weights(text: str, on: RolloutBatch, step: int = 0, **more: object) -> list[float]:
    return run(text, on, step, **more).routing.weight_CT.sum(0).tolist()


def test_gap_and_ratio_follow_from_log_probs() -> None:
    on = batch([2], {LOGP: [-1.0, -2.0], TEACHER_LOGP: [-0.5, -3.0]})
    assert weights("rest: nll(w=gap, per=const(1))\n", on) == pytest.approx([0.5, -1.0])
    # old log-probs of batch_of are -1 and -1.25
    assert weights("rest: nll(w=ratio, per=const(1))\n", on) == pytest.approx([1.0, torch.tensor(-0.75).exp().item()])


def test_a_signal_that_was_not_measured_is_an_error_that_names_it() -> None:
    with pytest.raises(LoweringError, match="the batch carries no signal 'entropy'"):
        run("rest: nll(w=entropy)\n", batch([2]))


def test_a_teacher_that_could_not_see_is_an_error_that_names_the_line() -> None:
    on = batch([1, 1], {LOGP: [-1.0, -1.0], TEACHER_LOGP: [-1.0, float("nan")]})
    with pytest.raises(LoweringError, match=r"line 1: the weight of nll\(w=gap\) is not a finite"):
        run("rest: nll(w=gap)\n", on)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # responses of 3 and 2 tokens with entropies 1 0 2 and 3 1; nothing passes from the first to the second
        ("cumcount(entropy > 0.5)", [1, 1, 2, 1, 2]),
        ("where(until(entropy < 0.5), 1, 0)", [1, 0, 0, 1, 1]),
        ("window_min(entropy, 2)", [1, 0, 0, 3, 1]),
        ("window_min(entropy, 9)", [1, 0, 0, 3, 1]),
        ("window_mean(entropy, 2)", [1, 0.5, 1, 3, 2]),
        ("window_mean(entropy, 1)", [1, 0, 2, 3, 1]),
        ("reward_to_go(entropy, 1)", [3, 2, 2, 4, 1]),
        ("reward_to_go(entropy, 0.5)", [1.5, 1, 2, 3.5, 1]),
        ("reward_to_go(entropy, 0)", [1, 0, 2, 3, 1]),
    ],
)
def test_scans(expression: str, expected: list[float]) -> None:
    on = batch([3, 2], {ENTROPY: [1.0, 0.0, 2.0, 3.0, 1.0]})
    found = weights(f"rest: nll(w={expression}, per=const(1))\n", on)
    assert found == pytest.approx([value / 2 for value in expected])  # two responses


def test_scans_on_empty_responses_and_batches() -> None:
    for lengths in ([], [0], [0, 2, 0]):
        on = batch(lengths, {ENTROPY: [1.0] * sum(lengths)})
        assert len(weights("rest: nll(w=reward_to_go(entropy, 0.9))\n", on)) == sum(lengths)


def test_random_takes_its_share_again_at_the_same_step_and_others_at_another() -> None:
    text = "rest when random(25%, over=row): nll(per=const(1))\nrest: none\n"
    on = batch([40, 7])
    first = weights(text, on, 3, seed=1)
    assert first == weights(text, on, 3, seed=1)
    assert first != weights(text, on, 4, seed=1)
    assert first != weights(text, on, 3, seed=2)
    assert sum(w != 0 for w in first[:40]) == 10
    assert sum(w != 0 for w in first[40:]) == 2  # a quarter of 7, rounded up


def test_latch_keeps_its_state_until_it_is_turned_off() -> None:
    """On at a mean entropy under 0.5, off over 2; in between as before."""
    text = (
        "let low = latch(mean(entropy, over=batch) < 0.5, mean(entropy, over=batch) > 2)\n"
        "rest: nll(w=where(low, 1, 0.25), per=const(1))\n"
    )
    states: dict[str, bool] = {}
    seen = []
    for entropy in (1.0, 0.4, 1.0, 3.0, 1.0):
        lowered = run(text, batch([1], {ENTROPY: [entropy]}), latches=states)
        states = lowered.latches
        seen.append(float(lowered.routing.weight_CT[0, 0]))
    assert seen == [0.25, 1.0, 1.0, 0.25, 0.25]
    assert len(states) == 1


def test_measurements_are_asked_for_only_while_a_loss_has_weight() -> None:
    plan = compile_plan(
        spec_of(
            "rest: grpo() + rkl(w=0.5, anneal=linear(10)) + nll(w=schedule(1, anneal=linear(20)) * sigmoid(gap))\n"
        ),
        facts_of(100),
    )
    assert measurements(plan, 19) == {LOGP, TEACHER_LOGP}
    assert measurements(plan, 20) == frozenset()
    assert plan.teachers[0].last_step == 19


def test_a_predicate_is_measured_to_the_end_of_the_run() -> None:
    plan = compile_plan(spec_of("rest when teacher_logp > logp: grpo()\nrest: none\n"), facts_of(100))
    assert measurements(plan, 99) == {LOGP, TEACHER_LOGP}
    assert plan.teachers[0].last_step == 99
