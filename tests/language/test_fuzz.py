"""A small share of what tools/fuzz_specs.py looks at, and any text at all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import fuzz_specs
from tools.fuzz_specs import failure_of, run, smaller
from tools.fuzzing import properties
from tools.fuzzing.properties import Violation, check
from tools.fuzzing.texts import case, sentence
from trace_dsl.model import Place
from trace_dsl.syntax import parse_source

CASES = 1200


@pytest.fixture(autouse=True)
def _however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is for the tool to look at, on a machine of its own: here it depends on what runs beside."""
    monkeypatch.setattr(properties, "MOST_SECONDS", math.inf)


@pytest.mark.parametrize("part", range(4))
def test_every_property_holds_for_mutated_and_random_specs(part: int) -> None:
    for number in range(part, CASES, 4):
        failure = failure_of(number, case(2, number))
        assert failure is None, f"case {number} of seed 2: {failure.text!r}\n{failure.reason}"


@settings(max_examples=150)
@given(st.text(max_size=120), st.integers(0, 1000))
def test_every_property_holds_for_any_text(text: str, seed: int) -> None:
    check(text, seed)


@settings(max_examples=100)
@given(st.randoms(use_true_random=False))
def test_sentences_of_the_grammar_parse(rng: object) -> None:
    text = sentence(rng)  # type: ignore[arg-type]  # hypothesis' random is one
    assert [
        x.message
        for x in parse_source("x", text).diagnostics
        if "more than" not in x.message and "deep" not in x.message
    ] == []


def test_a_case_depends_on_its_seed_and_number_alone() -> None:
    once = [case(5, number) for number in range(40)]
    assert [case(5, number) for number in reversed(range(40))] == once[::-1]
    assert len(set(once)) > 35
    assert case(6, 0) != case(5, 0)


def test_the_tool_counts_the_same_with_any_number_of_workers() -> None:
    one, two = run(60, 4, 1), run(60, 4, 2)
    assert (one.cases, one.parsed, one.clean, one.findings) == (two.cases, two.parsed, two.clean, two.findings)
    assert one.cases == 60
    assert not one.failures


def test_what_does_not_hold_is_found_and_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = properties._is_inside

    def wrong(place: Place, text: str, message: str) -> None:
        if "rewrd" in message:
            raise Violation("a place that is wrong")
        sound(place, text, message)

    monkeypatch.setattr(properties, "_is_inside", wrong)
    failure = failure_of(0, "spans key, error\nkey: grpo(w=rewrd) + nll()\nrest: none\n")
    assert failure is not None
    assert failure.kind == "Violation: a place that is wrong"
    assert smaller(failure).text.strip() == "key: grpo(w=rewrd)"
    assert failure_of(0, "rest: none\n") is None
    assert fuzz_specs.CHUNK > 0


def test_what_fails_once_or_never_ends_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known failures of the tool: it looked again, without a limit, and believed the second time."""
    calls = []

    def once(text: str, seed: int) -> properties.Outcome:
        calls.append(seed)
        if len(calls) == 1:
            raise Violation("only now")
        while len(calls) == 2:
            pass
        return check(text, seed)

    monkeypatch.setattr(fuzz_specs, "check", once)
    monkeypatch.setattr(fuzz_specs, "HANGS", 0.05)
    assert [failure.kind for failure in fuzz_specs.chunk((2, range(2))).failures] == [
        "Violation: only now",
        "Violation: not done after  s",
    ]
