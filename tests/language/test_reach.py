"""The steps at which a plan says a loss may train tokens, where predicates read the step."""

from __future__ import annotations

import pytest

from tests.language import facts
from tests.language.resolving import spec_of
from trace_dsl.plan import Plan, compile_plan

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
        ("rest when 1/step > 0.25: grpo()\nrest: nll()", [((0, 3),), ((0, 0), (4, 19))]),  # at step 0 it has no value
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
