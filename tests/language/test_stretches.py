"""What is found for many steps, or many cases, at once is what one look at each of them finds."""

from __future__ import annotations

import random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.language.resolving import errors_of, spec_of, value_of
from tests.lowering.random_specs import random_spec
from trace_dsl.certainty import follows_from_step, no_value_at, predicate_known_at, surely_zero
from trace_dsl.checks.intervals import possible
from trace_dsl.checks.reading import expressions_of
from trace_dsl.reach import Reach, steps_asked, steps_reached
from trace_dsl.schedules import Progress
from trace_dsl.undefined import first_undefined, may_be_undefined

TOTAL = 40
NUMBERS = ("-1", "0", "1", "2.5", "7", "39", "40", "1000")
PARTS = (
    *(f"step {op} {number}" for op in ("<", "<=", ">", ">=", "==", "!=") for number in NUMBERS),
    *(f"{number} {op} step" for op in ("<", ">=") for number in NUMBERS),
    *("correct", "entropy > 1", "schedule(1, anneal=linear(10)) > 0.5", "1/step > 0.25", "2*step > 7", "1 > 2"),
)


@st.composite
def predicates(draw: st.DrawFn) -> str:
    """Parts joined by `and`, `or` and `not`."""
    parts = draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4))
    text = f"({parts[0]})"
    for part in parts[1:]:
        text = f"({text} {draw(st.sampled_from(('and', 'or')))} {draw(st.sampled_from(('', 'not ')))}({part}))"
    return text


@given(whens=st.lists(predicates(), min_size=1, max_size=4), thin=st.integers(1, 7), labels=st.randoms())
def test_routes_stand_over_a_stretch_as_at_each_of_its_steps(
    whens: list[str], thin: int, labels: random.Random
) -> None:
    lines = [f"{labels.choice(('key', 'error', 'rest'))} when {when}: grpo()" for when in whens]
    reach = Reach(spec_of("\n".join(["spans key, error", *lines, "rest: none"])).routes)
    steps = range(TOTAL) if thin == 1 else [*range(0, TOTAL, thin)]
    one_by_one = {step: reach.at(Progress(step=step, total_steps=TOTAL)) for step in steps}
    stretches = reach.over(steps, TOTAL)
    assert {step: one.standing for one in stretches for step in one.steps} == one_by_one
    for index in range(len(lines)):
        assert [*steps_reached(stretches, index)] == [s for s in steps if one_by_one[s][index].reached]
        assert [*steps_asked(stretches, index)] == [s for s in steps if one_by_one[s][index].asks]


@settings(max_examples=200)
@given(seed=st.integers(0, 1 << 30))
def test_what_may_not_be_undefined_never_is(seed: int) -> None:
    for expr in expressions_of(spec_of(random_spec(random.Random(seed)))):
        if not may_be_undefined(expr):
            assert all(no_value_at(expr, Progress(step=step, total_steps=TOTAL)) is None for step in range(TOTAL))


NUMERIC = st.recursive(
    st.sampled_from(("1", "0", "3", "1e200", "step", "len", "entropy", "schedule(1, anneal=linear(10))")),
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from("+-*/"), part).map(lambda found: f"({' '.join(found)})"),
        st.tuples(st.sampled_from(("sqrt", "log", "exp", "-")), part).map(lambda found: f"{found[0]}({found[1]})"),
        st.tuples(part, st.sampled_from(PARTS), part).map(lambda found: f"where({found[1]}, {found[0]}, {found[2]})"),
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(texts=st.tuples(NUMERIC, NUMERIC), thin=st.integers(1, 7))
def test_the_first_step_without_a_value_is_the_first_of_all(texts: tuple[str, str], thin: int) -> None:
    assume(not any(errors_of(f"rest: grpo(w={text})") for text in texts))  # as 1/0 is, whatever the step
    expr, weight = (value_of(text) for text in texts)
    steps = [*range(0, TOTAL, thin)]
    moments = [Progress(step=step, total_steps=TOTAL) for step in steps]
    without = [(at.step, reason) for at in moments if (reason := no_value_at(expr, at)) is not None]
    trained = [(s, reason) for s, reason in without if not surely_zero(weight, moments[steps.index(s)])]
    assert first_undefined(expr, TOTAL, steps) == next(iter(without), None)
    assert first_undefined(expr, TOTAL, steps, weight) == next(iter(trained), None)


SIMPLE = (*(f"step {op} {number}" for op in (">", "==") for number in NUMBERS), "entropy > 1", "correct")


@given(st.lists(st.sampled_from(SIMPLE), min_size=1, max_size=5, unique=True))
def test_cases_are_possible_where_some_step_makes_them_so(parts: list[str]) -> None:
    spec = spec_of("\n".join([*(f"rest when {part}: grpo()" for part in parts), "rest: none"]))
    facts = tuple(route.when for route in spec.routes if route.when is not None)
    together = possible(facts, TOTAL)
    of_step = [at for at, fact in enumerate(facts) if follows_from_step(fact)]
    moments = [Progress(step=step, total_steps=TOTAL) for step in range(TOTAL)]
    for case in range(1 << len(facts)):
        holds = [not case >> (len(facts) - 1 - at) & 1 for at in range(len(facts))]
        by_trying = any(all(predicate_known_at(facts[at], moment) is holds[at] for at in of_step) for moment in moments)
        assert bool(together >> case & 1) is by_trying
