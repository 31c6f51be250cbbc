"""The steps at which a plan says a loss may train tokens, where predicates read the step."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.language import facts
from tests.language.resolving import spec_of
from tests.lowering.random_specs import random_spec
from trace_dsl.errors import SpecError
from trace_dsl.plan import Plan, compile_plan
from trace_dsl.plan.measurements import loss_weights, measurements, needs_proximal
from trace_dsl.plan.payloads import Content, Origin
from trace_dsl.schedules import Progress

STEPS = 20


def plan_of(text: str) -> Plan:
    return compile_plan(spec_of(text), facts(total_steps=STEPS))


@pytest.mark.parametrize(
    ("text", "active"),
    [
        ("rest when step < 5: grpo()\nrest: nll()", [((0, 4),), ((5, 19),)]),
        ("rest when not step < 5: grpo()\nrest: nll()", [((5, 19),), ((0, 4),)]),
        ("rest when step >= 5 and correct: grpo()\nrest: nll()", [((5, 19),), ((0, 19),)]),
        ("rest when step >= 5 or correct: grpo()\nrest: nll()", [((0, 19),), ((0, 4),)]),
        ("key when step < 5: grpo()\nrest: nll()", [((0, 4),), ((0, 19),)]),
        ("key | error when step < 5: grpo()\nkey: nll()\nrest: none", [((0, 4),), ((5, 19),)]),
        ("rest when schedule(1, anneal=step(25%)) > 0: grpo()\nrest: nll()", [((0, 4),), ((5, 19),)]),
        ("rest when step < 5: grpo()\nrest when source == tool: nll()\nrest: none", [((0, 4),), ((0, 19),)]),
        ("rest when step < 5: grpo(w=schedule(1, start=3))\nrest: nll()", [((3, 4),), ((5, 19),)]),
        ("rest when 1/(step + 1) > 0.25: grpo()\nrest: nll()", [((0, 2),), ((3, 19),)]),
        ("rest when step > 0 and 1/step > 0.25: grpo()\nrest: nll()", [((1, 3),), ((0, 0), (4, 19))]),
        ("rest when 1/step > 0.25 and step > 0: grpo()\nrest: nll()", [((1, 3),), ((0, 0), (4, 19))]),
        ("rest when step == 0 or 1/step > 0.25: grpo()\nrest: nll()", [((0, 3),), ((4, 19),)]),
        ("rest when step > 0: grpo(w=1/step)\nrest: nll()", [((1, 19),), ((0, 0),)]),
        ("rest when step > 0: grpo(w=where(A > 0, 1, 0)*(1/step))\nrest: nll()", [((1, 19),), ((0, 0),)]),
        ("key when step > 3: nll()\nerror when step > 3: nll()\nkey | error: grpo()", [((4, 19),)] * 2 + [((0, 3),)]),
        ("rest when step < 5: grpo(w=exp(gap))\nrest: nll()", [((0, 4),), ((5, 19),)]),
    ],
)
def test_active_steps(text: str, active: list[tuple[tuple[int, int], ...]]) -> None:
    assert [loss.track.active for planned in plan_of(text).routes for loss in planned.losses] == active


def test_extra_rollouts_are_routed_beside_the_plain_ones() -> None:
    text = "rollouts more = policy(n=2)\nrest when rows == more and step < 5: nll()\nrest: grpo()"
    assert [planned.losses[0].track.active for planned in plan_of(text).routes] == [((0, 4),), ((0, 19),)]


def test_sums_are_over_the_steps_at_which_the_route_may_take_tokens() -> None:
    track = plan_of("rest when step < 5: grpo(w=0.5)\nrest: nll()").routes[0].losses[0].track
    assert (track.total, track.total_squared) == (2.5, 1.25)


def test_a_teacher_is_not_run_for_a_route_that_takes_nothing() -> None:
    assert [t.last_step for t in plan_of("rest when step < 5: fkl()\nrest: grpo()").teachers] == [4]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("rest when 1/step > 0.25: grpo()\nrest: nll()", "predicate of rest when 1/step > 0.25"),
        ("rest when correct or 1/step > 0.25: grpo()\nrest: nll()", "predicate of"),
        ("rest: grpo(w=where(A>0, 1, 0)/step)", "weight of"),
        ("rest: pg(adv=A/step)", "advantage of"),
        ("rest: pg(adv=A/(step - 4), start=4)", "advantage of"),
        ("rest when step > 9: nll(w=where(latch(1/step > 1, step > 3), 1, 2))\nrest: none", "latch of"),
    ],
)
def test_what_has_no_value_at_a_step_is_no_plan(text: str, what: str) -> None:
    step = 4 if "4" in text else 0
    with pytest.raises(SpecError, match="line 1: the") as caught:
        plan_of(text)
    assert what in str(caught.value)
    assert f"has no value at step {step} of this run" in str(caught.value)


def test_a_weight_is_shown_only_where_its_route_may_take_tokens() -> None:
    plan = plan_of("rest when step > 0: grpo(w=1/step) + nll(w=where(A > 0, 1, 0)/step)\nrest: entropy(w=2)")
    assert loss_weights(plan, Progress(step=0, total_steps=STEPS)) == ((0.0, 0.0), (2.0,))
    assert loss_weights(plan, Progress(step=2, total_steps=STEPS)) == ((0.5, None), (0.0,))


def test_nothing_is_measured_for_a_route_that_takes_nothing() -> None:
    plan = plan_of("teacher big = self(frozen)\nrest when step < 5: pg(adv=gap(big))\nrest: grpo()")
    assert {signal.name for signal in measurements(plan, 4)} == {"logp", "teacher_logp"}
    assert measurements(plan, 5) == frozenset()
    assert [t.last_step for t in plan.teachers] == [4]


def test_a_predicate_that_the_step_decides_is_not_measured() -> None:
    plan = plan_of("teacher = self(frozen)\nrest when step < 5 and gap > 0: nll()\nrest: grpo()")
    assert {signal.name for signal in measurements(plan, 4)} == {"logp", "teacher_logp"}
    assert measurements(plan, 5) == frozenset()
    assert [t.last_step for t in plan.teachers] == [4]


def test_the_policy_is_computed_again_only_for_a_loss_that_may_train() -> None:
    plan = plan_of("rest when step < 5: grpo(tis=2)\nrest: grpo()")
    assert needs_proximal(plan, range(4, 6))
    assert not needs_proximal(plan, range(5, STEPS))
    assert not needs_proximal(plan_of("rest: grpo(tis=2, w=schedule(1, start=9)) + nll()"), range(9))


_MEASURED = {
    "logp": (Origin.POLICY, Content.SAMPLED),
    "entropy": (Origin.POLICY, Content.ENTROPY),
    "teacher_logp": (Origin.TEACHER, Content.SAMPLED),
    "teacher_entropy": (Origin.TEACHER, Content.ENTROPY),
}


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_what_is_measured_at_a_step_is_what_the_plan_gathers_there(seed: int) -> None:
    plan = plan_of(random_spec(random.Random(seed)))
    for step in range(STEPS):
        gathered = {
            (g.need.payload.origin, g.need.payload.content, g.need.payload.teacher)
            for g in plan.gathered
            if g.need.everywhere and any(first <= step <= last for first, last in g.steps)
        }
        measured = {(*_MEASURED[signal.name], signal.teacher) for signal in measurements(plan, step)}
        assert measured == {need for need in gathered if need[:2] in _MEASURED.values()}
