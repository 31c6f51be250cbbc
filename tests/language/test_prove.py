"""`trace-dsl prove`: proofs agree with going through tokens one by one, counterexamples are real and in words."""

from __future__ import annotations

import math
from itertools import chain, combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tests.language import TRACE
from trace_dsl.cli.main import app
from trace_dsl.lint import parse_spec
from trace_dsl.model import Spec
from trace_dsl.prove import Proof, covers, disjoint, implies

MANY = " and ".join(f"gap > {i}" for i in range(14))


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
        ("rest when entropy > 1: nll()\nrest when entropy <= 1: none", []),
        ("rest when has(diagnosis) and gap > 1: nll()\nrest when gap <= 1 or not has(diagnosis): none", []),
        ("teacher = self(frozen)\nrest when gap > 1: nll()\nrest when gap <= 1: none", []),
        ("rest when len/2 > 1: nll()\nrest when len/2 <= 1: none", []),
        ("rest when gap == 1: nll()\nrest when gap != 1: none", []),
        (f"rest when {MANY}: nll()\nrest: none", []),
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
        (
            "rest when gap > 1: nll()\nrest when gap <= 1: none",
            ["a token without a label of a rollout, where `has(diagnosis)` does not hold"],
        ),
        (
            "rest when log(reward) > 1: nll()\nrest when log(reward) <= 1: none",
            ["a token without a label of a rollout, where `log(reward) > 1` has no value"],
        ),
        (
            "rest when has(solution) and entropy > 1: nll()\nrest when entropy > 2 and entropy > 1: none",
            ["a token without a label of a rollout, where `entropy > 1` does not hold"],
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
    assert covers(spec(f"rest when {MANY}: none")) is None
    assert disjoint(spec(f"key when {MANY}: none\nkey when correct: none")) is None
    assert implies(spec(f"rest when {MANY}: nll()"), spec("key: none")) is None


def test_one_counterexample_is_enough_where_others_cannot_be_looked_for() -> None:
    found = covers(spec(f"spans key, error\nkey when {MANY}: none\nrest when correct and not correct: none"))
    assert tokens(found) == [
        "a token without a label of a correct rollout",
        "a token labelled `error` of a correct rollout",
    ]
    found = disjoint(spec(f"key when {MANY}: none\nkey when correct: none\nkey when mixed: none"))
    assert tokens(found) == ["a token labelled `key` of a correct rollout whose group is mixed"]


# ----------------------------------------------------------------------------------------------------------- property

_ATOMS = ["correct", "wrong", "all_correct", "all_wrong", "mixed", "has(diagnosis)", "(gap > 1)", "(gap <= 1)"]
_ATOMS += ["(entropy == 3)", "(entropy != 3)", "(log(reward) < 0)", "(log(reward) >= 0)"]
_WORLD = [
    {
        **{"correct": c, "wrong": not c, "all_correct": g == 0, "mixed": g == 1, "all_wrong": g == 2, "seen": s},
        **{"gap": x if s else math.nan, "reward": r, "entropy": e},
    }
    for (c, g), s, x, r, e in product(
        [(True, 0), (True, 1), (False, 1), (False, 2)], [True, False], [0, 2, 1], [-1, 0.5, 2], [3, 0]
    )
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
    functions = {"log": lambda x: math.log(x) if x > 0 else math.nan}
    return when is None or bool(eval(when.replace("has(diagnosis)", "seen"), functions, dict(world)))


@settings(max_examples=200)
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
        "proved: every token is taken (3 cases)\nproved: no token fits two routes, later defaults aside (8 cases)\n",
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
        (f"rest when {MANY}: none\n", "too many cases"),
    ],
)
def test_what_cannot_be_proved_or_refuted_is_2(text: str, words: str) -> None:
    result = prove("-", stdin=text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("rest: none", "there is one route"),
        ("spans key", "there are no routes"),
        (
            "key: nll()\nrest: grpo()",
            "no cases to go through: each later route is the default for what those above leave",
        ),
        ("rollouts m = policy(n=2)\nrest: nll()\nrest when rows == m: nll()", "leave, or reads other rollouts"),
        ("rest when correct: nll()\nrest when wrong: none", "8 cases"),
    ],
)
def test_a_proof_says_how_it_was_made(text: str, how: str) -> None:
    result = prove("-", "--disjoint", stdin=text)
    assert result.exit_code == 0
    assert f"{how})" in " ".join(result.stdout.split())


def test_help_teaches_with_an_example() -> None:
    assert "Example: trace-dsl prove specs/demo/grpo.trace --implies" in prove("--help").stdout
