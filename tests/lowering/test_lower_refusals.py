"""What `lower` refuses: malformed batches, weights and advantages that are no finite numbers."""

from __future__ import annotations

import pytest
import torch

from tests.language.rule_cases import CASES
from tests.lowering.by_hand import batch_of, lowered, weights
from tests.lowering.cases import facts_of, measured_of, spec_of, tensors_of
from tests.lowering.plain import PlainBatch, PlainSpan
from tests.lowering.reading import signals_to_measure
from trace_dsl.lowering import RolloutBatch, TokenSpan, lower
from trace_dsl.plan import compile_plan

torch.set_num_threads(1)


def rollout_batch(**changed: object) -> RolloutBatch:
    fields: dict[str, object] = {
        "length_R": torch.tensor([2, 1]),
        "reward_R": torch.zeros(2),
        "correct_R": torch.zeros(2, dtype=torch.bool),
        "group_R": torch.zeros(2, dtype=torch.int64),
        "old_logp_T": torch.zeros(3),
        "from_model_T": torch.ones(3, dtype=torch.bool),
    }
    return RolloutBatch(**(fields | changed))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"reward_R": torch.zeros(3)}, r"reward_R has shape \(3,\), expected \(2,\)"),
        ({"group_R": torch.zeros(1, dtype=torch.int64)}, r"group_R has shape \(1,\), expected \(2,\)"),
        ({"old_logp_T": torch.zeros(2)}, r"old_logp_T has shape \(2,\), expected \(3,\)"),
        ({"from_model_T": torch.ones(3, 1, dtype=torch.bool)}, r"from_model_T has shape \(3, 1\)"),
        ({"contexts": (("solution", torch.ones(3, dtype=torch.bool)),)}, r"contexts\[solution\] has shape"),
        ({"source_R": ("policy",)}, "source_R names 1 rows, expected 2"),
        ({"spans": (TokenSpan(row=1, label="key", start=0, end=2),)}, "lies outside its response"),
        ({"spans": (TokenSpan(row=2, label="key", start=0, end=0),)}, "lies outside its response"),
        ({"spans": (TokenSpan(row=0, label="key", start=2, end=1),)}, "lies outside its response"),
    ],
)
def test_malformed_batch(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rollout_batch(**changed)


@pytest.mark.parametrize("weight", ["1/reward", "log(reward - 1)", "sqrt(-1 - reward)", "exp(len * 1000)"])
def test_a_weight_that_is_not_finite_names_its_line(weight: str) -> None:
    text = f"key: nll()\n\nrest: grpo() + entropy(w={weight})\n"
    with pytest.raises(ValueError, match=r"line 3: .*entropy\(w=.*not a finite"):
        lowered(text, batch_of([2]))


@pytest.mark.parametrize("advantage", ["1/reward", "exp(90 + len)"])
def test_an_advantage_that_is_not_a_float32_number_names_its_line(advantage: str) -> None:
    """exp(92) is a double and no float32."""
    with pytest.raises(ValueError, match=r"line 1: the advantage of pg\(.*not a finite"):
        lowered(f"rest: pg(adv={advantage})\n", batch_of([2]))


def test_per_token_without_a_token_of_the_model_is_refused() -> None:
    batch = batch_of([2], tool=[(0, 0), (0, 1)])
    with pytest.raises(ValueError, match=r"line 1: per=token divides nll\(per=token\) by the tokens the model wrote"):
        lowered("rest when source == tool: nll(per=token)\nrest: none\n", batch)


@pytest.mark.parametrize(("share", "taken"), [("20%", 1), ("50%", 1), ("60%", 2), ("100%", 2)])
def test_top_takes_at_least_its_share(share: str, taken: int) -> None:
    found = weights(f"rest when top(pos, {share}, over=row): nll(per=const(1))\nrest: none\n", batch_of([2]))
    assert sum(weight != 0 for weight in found) == taken


def test_an_empty_response_has_no_mean_to_reduce() -> None:
    """The mean log-prob is (-1 - 1.25) / 2 and, for the empty response, none: the largest is -1.125, not 0."""
    found = weights("rest: nll(w=max(mean(old_logp, over=row), over=batch), per=const(1))\n", batch_of([2, 0]))
    assert found == pytest.approx([-1.125 / 2, -1.125 / 2])


def test_a_weight_may_be_infinite_where_it_trains_nothing() -> None:
    """1/reward is infinite on the wrong row, which the route does not take."""
    found = weights("rest when correct: nll(w=1/reward)\n", batch_of([1, 1], reward=[1.0, 0.0]))
    assert found == [0.5, 0.0]


UNGUARDED = next(case for case in CASES if case.rule == "unguarded-context")


def lower_where_contexts_are_missing(text: str) -> None:
    """Lower a spec on two prompts with a correct and a wrong rollout each: those with a label have a diagnosis, one has
    a sibling, another one feedback.
    """
    spec = spec_of(text)
    batch = PlainBatch(
        reward=[1.0, 0.0, 0.0, 1.0],
        correct=[True, False, False, True],
        group=[0, 0, 1, 1],
        old_logp=[[-1.0, -1.5]] * 4,
        logp=[[-1.0, -1.25]] * 4,
        entropy=[[0.5, 1.0]] * 4,
        from_model=[[True, True]] * 4,
        spans=[PlainSpan(row=0, label="key", start=0, end=1), PlainSpan(row=2, label="key", start=0, end=1)],
        contexts={
            "diagnosis": [True, False, True, False],
            "solution": [True] * 4,
            "sibling": [True, False, False, False],
            "feedback": [False, True, False, False],
        },
        teacher_logp={teacher.name: [[-0.5, -2.0]] * 4 for teacher in spec.teachers},
        teacher_entropy={teacher.name: [[0.5, 1.0]] * 4 for teacher in spec.teachers},
    )
    measured = measured_of(batch, spec, signals_to_measure(spec))
    lower(compile_plan(spec, facts_of()), tensors_of(batch, measured), 0)


@pytest.mark.parametrize("text", UNGUARDED.fires)
def test_what_is_said_to_need_a_guard_stops_a_step(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a finite float32 number at .* tokens"):
        lower_where_contexts_are_missing(text)


@pytest.mark.parametrize("text", UNGUARDED.misses)
def test_what_is_said_to_be_guarded_stops_no_step(text: str) -> None:
    lower_where_contexts_are_missing(text)


SPREAD = next(case for case in CASES if case.rule == "zero-spread")


def lower_a_solved_and_a_hopeless_prompt(text: str) -> None:
    """Lower a spec on three prompts: one that is solved by all its rollouts, one by none, one by one of two."""
    rewards = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    spans = [(row, "key", 0, 1) for row in range(6)]
    lowered(text, batch_of([2] * 6, reward=rewards, group=[0, 0, 1, 1, 2, 2], spans=spans))


@pytest.mark.parametrize("text", SPREAD.fires)
def test_what_is_said_to_divide_by_a_zero_spread_stops_a_step(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a finite float32 number at .* tokens"):
        lower_a_solved_and_a_hopeless_prompt(text)


@pytest.mark.parametrize("text", [text for text in SPREAD.misses if "A/" not in text])
def test_what_is_said_to_divide_by_no_zero_spread_stops_no_step(text: str) -> None:
    lower_a_solved_and_a_hopeless_prompt(text)
