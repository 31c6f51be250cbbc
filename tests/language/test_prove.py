"""`trace-dsl prove`: proofs agree with going through tokens one by one, counterexamples are real and in words."""

from __future__ import annotations

from itertools import chain, combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tests.language import TRACE
from trace_dsl.cli.main import app
from trace_dsl.lint import parse_spec
from trace_dsl.model import Spec
from trace_dsl.prove import Proof, covers, disjoint


def spec(text: str) -> Spec:
    found, errors = parse_spec(text)
    assert found is not None, errors
    return found


def tokens(proof: Proof | None) -> list[str]:
    assert proof is not None
    return [example.token for example in proof.counterexamples]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TRACE, []),
        ("key: nll()\nrest: none", []),
        ("rest when correct: nll()\nrest when wrong: none", []),
        ("rest when gap > 1: nll()\nrest when gap <= 1: none", []),
        ("rest when all_correct or all_wrong: nll()\nrest when mixed: none", []),
        ("key: nll()", ["a token without a label of a rollout"]),
        (
            "key when correct: nll()\nrest when wrong: grpo()",
            ["a token without a label of a correct rollout"],
        ),
        (
            "rest when mixed or all_correct: nll()\nkey: none",
            ["a token without a label of a wrong rollout whose group is all wrong"],
        ),
        (
            "spans key, error\nkey: nll()\nrest when has(diagnosis): none",
            [
                "a token without a label of a rollout, where `has(diagnosis)` does not hold",
                "a token labelled `error` of a rollout, where `has(diagnosis)` does not hold",
            ],
        ),
        ("rollouts r = policy(n=2)\nrest: nll()", ["a token without a label of a rollout of `r`"]),
        ("rollouts r = policy(n=2)\nrest: nll()\nrest when rows == r: none", []),
        ("rest: nll()\nrest when source == tool: nll()", []),
    ],
)
def test_covers(text: str, expected: list[str]) -> None:
    assert tokens(covers(spec(text))) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TRACE, []),
        ("key: nll()\nrest: none", []),
        ("key when correct: nll()\nkey: none\nrest: none", []),
        ("key when correct: nll()\nerror when wrong: nll()\nrest when mixed: none\nrest: none", []),
        ("key when gap > 1: nll()\nkey when gap <= 1: none", []),
        (
            "key when correct: nll()\nkey when mixed: none",
            ["a token labelled `key` of a correct rollout whose group is mixed"],
        ),
        ("key: nll()\nerror: none", ["a token labelled `key` and `error` of a rollout"]),
        ("key | error: nll()\nerror when wrong: none", ["a token labelled `error` of a wrong rollout"]),
        ("rest when correct: nll()\nkey: none", ["a token labelled `key` of a correct rollout"]),
        (
            "rest when correct: nll()\nrest when has(solution): none",
            ["a token without a label of a correct rollout, where `has(solution)` holds"],
        ),
        ("rollouts r = policy(n=2)\nrest when correct: nll()\nrest when rows == r and correct: none", []),
        ("rest when source == tool: nll()\nrest when source == model: none", []),
        ("rest when correct: nll()\nrest when source == tool: none", []),
        (
            "rest when source == tool: nll()\nrest when source == tool and correct: none",
            ["a token without a label that a tool wrote, of a correct rollout"],
        ),
    ],
)
def test_disjoint(text: str, expected: list[str]) -> None:
    assert tokens(disjoint(spec(text))) == expected


def test_too_many_cases_are_said_to_be() -> None:
    many = " and ".join(f"gap > {i}" for i in range(9))
    assert covers(spec(f"rest when {many}: none")) is None
    assert disjoint(spec(f"key when {many}: none\nkey when correct: none")) is None


# ----------------------------------------------------------------------------------------------------------- property

_ATOMS = ["correct", "wrong", "all_correct", "all_wrong", "mixed", "has(diagnosis)", "(gap > 1)", "(gap <= 1)"]
_WORLD = [
    {"correct": c, "wrong": not c, "all_correct": g == 0, "mixed": g == 1, "all_wrong": g == 2, "seen": s, "gap": x}
    for (c, g), s, x in product([(True, 0), (True, 1), (False, 1), (False, 2)], [True, False], [0, 1, 2])
]


def predicates() -> st.SearchStrategy[str]:
    return st.recursive(
        st.sampled_from(_ATOMS),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
            inner.map(lambda p: f"(not {p})"),
        ),
        max_leaves=4,
    )


_LABELS = ("key", "error")
_ROUTE = st.tuples(st.sampled_from(["key", "error", "key | error", "rest"]), st.none() | predicates())


def fits(route: tuple[str, str | None], labels: tuple[str, ...], world: dict[str, object]) -> bool:
    """A token of `labels` and a route, by evaluating the predicate as Python."""
    selector, when = route
    if selector != "rest" and not set(selector.split(" | ")) & set(labels):
        return False
    return when is None or bool(eval(when.replace("has(diagnosis)", "seen"), {}, dict(world)))


@settings(max_examples=200, deadline=None)
@given(st.lists(_ROUTE, min_size=1, max_size=4))
def test_proofs_agree_with_going_through_tokens_one_by_one(routes: list[tuple[str, str | None]]) -> None:
    text = "spans key, error\n" + "\n".join(
        f"{selector}{f' when {when}' if when else ''}: none" for selector, when in routes
    )
    read = spec(text)
    carried = tuple(chain.from_iterable(combinations(_LABELS, n) for n in range(3)))
    proof = covers(read)
    assert proof is not None
    taken = all(any(fits(route, labels, world) for route in routes) for labels in carried for world in _WORLD)
    assert (not proof.counterexamples) is taken
    overlaps = 0
    for j, second in enumerate(routes):
        for first in routes[:j]:
            if second[0] == "rest" and (first[0] != "rest" or second[1] is None):
                continue
            if second[1] is None and set(first[0].split(" | ")) & set(second[0].split(" | ")):
                continue
            overlaps += any(fits(first, ls, w) and fits(second, ls, w) for ls in carried for w in _WORLD)
    proof = disjoint(read)
    assert proof is not None
    assert len(proof.counterexamples) == overlaps


# -------------------------------------------------------------------------------------------------------- command line


def prove(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["prove", *arguments], input=stdin)


def test_proved_is_0_and_a_counterexample_is_1() -> None:
    result = prove("-", stdin=TRACE)
    assert (result.exit_code, result.stdout) == (
        0,
        "proved: every token is taken (12 cases)\nproved: no token fits two routes (8 cases)\n",
    )
    result = prove("-", "--covers", stdin="key when correct: nll()\nrest when wrong: grpo()\n")
    assert (result.exit_code, result.stdout) == (
        1,
        "not so: every token is taken\n  a token without a label of a correct rollout\n    goes nowhere\n",
    )
    result = prove("-", "--disjoint", stdin="key when correct: nll()\nkey when mixed: none\n")
    assert (result.exit_code, result.stdout.split("\n")[2]) == (
        1,
        "    goes to `key when correct`, and fits `key when mixed` too",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rest: grop()\n", "did you mean `grpo`?"),
        (f"rest when {' and '.join(f'gap > {i}' for i in range(9))}: none\n", "too many cases"),
    ],
)
def test_what_cannot_be_proved_or_refuted_is_2(text: str, words: str) -> None:
    result = prove("-", stdin=text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_help_teaches_with_an_example() -> None:
    assert "Example: trace-dsl prove specs/demo/trace.trace --covers" in prove("--help").stdout
