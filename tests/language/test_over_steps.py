"""Weights over a whole run: the same values as step by step, and what the checks conclude from them."""

from __future__ import annotations

import random

import pytest

from tests.language import facts, rules_of
from tests.lowering.random_specs import random_spec
from trace_dsl import certainty, lint_text
from trace_dsl.checks import course
from trace_dsl.checks.course import Courses
from trace_dsl.checks.reading import channels_of
from trace_dsl.expressions import is_known_before_run, weight_at_step
from trace_dsl.over_steps import Points, known_values_at, values_at
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr

WEIGHTS = (
    "schedule(0.5, start=3, ramp=10%, warmup=7, anneal=cos(20), floor=0.1)",
    "schedule(2, ramp=500 tokens, anneal=exp(2000 tokens))",
    "where(step > 3, 1/(step - 3), 0)",
    "max(0, 1 - step/20) * schedule(1, anneal=linear)",
    "sqrt(step) + log(1 + step) - sigmoid(-step)",
    "where(step < 5 and not (step == 2), -1, 30%)",
    "min(step, 4, 2.5) - clip(step, 1, 3) + abs(-step) * sign(step)",
    "softplus(exp(clip(step, -2, 2)))",
)


def weight_of(text: str) -> Expr:
    spec = lint_text(f"rest: grpo(w={text})").spec
    assert spec is not None
    return spec.routes[0].channels[0].weight


def random_weights() -> list[Expr]:
    rng = random.Random(3)
    found: list[Expr] = []
    while len(found) < 120:
        spec = lint_text(random_spec(rng)).spec
        if spec is not None:
            found.extend(c.weight for _, c in channels_of(spec) if is_known_before_run(c.weight))
    return found


def test_a_column_holds_the_values_of_its_steps() -> None:
    steps = range(60)
    points = Points(total_steps=60, steps=steps, tokens=[70.0 * step for step in steps])
    for weight in [*map(weight_of, WEIGHTS), *random_weights()]:
        expected: list[float] = []
        try:
            for step in steps:
                expected.append(weight_at_step(weight, Progress(step=step, total_steps=60, tokens=70.0 * step)))
            values = values_at(weight, points)
        except ValueError:
            continue
        assert list(values) == expected


HOLES = (
    "where(step > 3, 1/(step - 3), 0)",
    "where(1/(step - 5) > 0.1, 2, log(step - 9))",
    "where(step > 0 and 1/step < 0.2, 1, -1)",
    "where(log(step) > 0 or 1/(step - 7) < 0, 1, 0)",
    "where(not (sqrt(step - 20) > 2), 1, 0) + 1",
    "max(1/step, 1/(step - 1)) - exp(100*step)",
)


def test_a_column_has_holes_where_a_step_has_no_value() -> None:
    """Of what is evaluated there alone."""
    steps = range(60)
    points = Points(total_steps=60, steps=steps, tokens=())
    holes = 0
    for weight in map(weight_of, HOLES):
        expected: list[float | None] = []
        for step in steps:
            try:
                expected.append(weight_at_step(weight, Progress(step=step, total_steps=60)))
            except ValueError:
                expected.append(None)
        assert list(known_values_at(weight, points)) == expected
        holes += expected.count(None)
    assert holes > 30


@pytest.mark.parametrize("part", ["1/step < 0.01", "log(step) < 9", "1/step/step < 1e-12"])
def test_what_is_undefined_at_one_step_is_not_evaluated_at_each(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run of a hundred thousand."""
    looked: list[int] = []

    def counted(expr: Expr, at: Progress) -> float:
        looked.append(at.step)
        return weight_at_step(expr, at)

    monkeypatch.setattr(certainty, "weight_at_step", counted)
    run = facts(total_steps=100_000)
    for condition, is_undefined in ((part, True), (f"(step > 0 and {part})", False)):
        found = rules_of(f"key when where({condition}, -2, ratio) < 10: none\nrest: grpo", run)
        assert ("undefined-weight" in found) == is_undefined
        assert looked
        assert len(looked) < 100


def test_a_branch_that_is_not_chosen_is_not_computed() -> None:
    assert "undefined-weight" not in rules_of("rest: grpo(w=where(step > 3, 1/(step - 3), 0))")
    assert "undefined-weight" in rules_of("rest: grpo(w=where(step > 3, 1/(step - 4), 0))")


@pytest.mark.parametrize(
    ("weight", "undefined", "negative", "is_zero"),
    [
        ("1 - step/10", None, 11, False),
        ("1/(step - 7)", 7, 0, False),
        ("exp(10*step)", 71, None, False),
        ("1e308 * step", 2, None, False),
        ("-schedule(1, start=40)", None, 40, False),
        ("where(step >= 0, 0, 1)", None, None, True),
        ("schedule(0, warmup=10)", None, None, True),
        ("entropy", None, None, False),
    ],
)
def test_the_course_of_a_weight(weight: str, undefined: int | None, negative: int | None, is_zero: bool) -> None:
    result = lint_text(f"rest: grpo(w={weight})", facts())
    assert result.spec is not None
    route = result.spec.routes[0]
    found = Courses(result.spec, facts()).of(route, route.channels[0].weight)
    assert (found.undefined and found.undefined[0], found.negative and found.negative[0], found.is_zero) == (
        undefined,
        negative,
        is_zero,
    )


def test_of_a_run_too_long_to_try_the_ends_of_phases_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight that is negative at one step alone, right where a phase begins."""
    tried: list[int] = []

    def counted(weight: Expr, points: Points) -> object:
        tried.append(len(points.steps))
        return known_values_at(weight, points)

    monkeypatch.setattr(course, "known_values_at", counted)
    run = facts(total_steps=50_000_000)
    text = "rest: grpo(w=schedule(1, start=1234567) - schedule(1, start=1234568))"
    assert "negative-weight" not in rules_of(text, run)
    text = "rest: grpo(w=schedule(1, start=1234568) - schedule(1, start=1234567))"
    assert "negative-weight" in rules_of(text, run)
    assert tried
    assert max(tried) < 1_000_000
