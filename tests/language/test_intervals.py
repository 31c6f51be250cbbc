"""Which comparisons can hold together, against every number of a fine grid."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from trace_dsl.checks.intervals import possible
from trace_dsl.checks.outcomes import outcomes
from trace_dsl.expressions import apply_operator
from trace_dsl.terms import Constant, Expr, Operation, Operator, Rank, Signal

GRID = [n / 4 for n in range(-12, 40)]
WHOLE = [float(n) for n in range(40)]
VALUES = {
    "reward": (Signal(name="reward", rank=Rank.ROW), GRID),
    "len": (Signal(name="len", rank=Rank.ROW), WHOLE),
    "step": (Signal(name="step", rank=Rank.STEP), WHOLE),
    "entropy": (Signal(name="entropy", rank=Rank.TOKEN), [x for x in GRID if x >= 0]),
    "gap": (Signal(name="gap", rank=Rank.TOKEN, teacher="teacher"), [*GRID, float("nan")]),
}
NUMBERS = (-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 5.0)


def fact(value: Expr, form: str, number: float) -> Operation:
    bound = Constant(value=number)
    args = (bound, value) if form == "<" else (value, bound)
    return Operation(op=Operator.EQ if form == "==" else Operator.GT, args=args, rank=value.rank)


def holds(one: Operation, value: float) -> bool:
    numbers = tuple(arg.value if isinstance(arg, Constant) else value for arg in one.args)
    return bool(apply_operator(one.op, numbers))


@settings(max_examples=300)
@given(
    name=st.sampled_from(sorted(VALUES)),
    bounds=st.lists(st.tuples(st.sampled_from((">", "<", "==")), st.sampled_from(NUMBERS)), min_size=1, max_size=4),
    total_steps=st.sampled_from((None, 3)),
)
def test_what_is_possible_is_what_some_number_does(
    name: str, bounds: list[tuple[str, float]], total_steps: int | None
) -> None:
    value, numbers = VALUES[name]
    if name == "step" and total_steps is not None:
        numbers = numbers[:total_steps]
    facts = tuple(dict.fromkeys(fact(value, form, number) for form, number in bounds))
    found = possible(facts, total_steps)
    seen = 0
    for number in numbers:
        seen |= 1 << sum((not holds(one, number)) << (len(facts) - 1 - at) for at, one in enumerate(facts))
    assert found == seen


def test_facts_about_other_values_are_independent() -> None:
    first, second = fact(VALUES["len"][0], ">", 3.0), fact(VALUES["reward"][0], "<", 2.0)
    assert possible((first, second), None) == 0b1111
    cases = outcomes([first, second])
    assert cases is not None
    assert cases.all.bit_count() == len(cases)
