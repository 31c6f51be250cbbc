"""`prove SPEC --implies OTHER`: what one spec trains, the other trains too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from trace_dsl.cli.main import app
from trace_dsl.lint import parse_spec
from trace_dsl.model import Spec
from trace_dsl.plan.wording import loss_text, route_name
from trace_dsl.prove import implies

DEMO = Path(__file__).parents[2] / "specs" / "demo"


def spec(text: str) -> Spec:
    found, errors = parse_spec(text)
    assert found is not None, errors
    return found


def against(text: str, other: str) -> list[tuple[str, str, str | None, str]]:
    """(token, route, other route, losses) of every counterexample."""
    proof = implies(spec(text), spec(other))
    assert proof is not None
    return [
        (
            example.token,
            route_name(example.route),
            None if example.other_route is None else route_name(example.other_route),
            " + ".join(loss_text(loss) for loss in example.losses),
        )
        for example in proof.counterexamples
    ]


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("rest: grpo()", "rest: grpo()"),
        ("key: nll()", "rest: nll()"),
        ("key when correct: nll()", "key: nll() + grpo()"),
        ("key when correct: nll()\nkey: none", "key when correct: nll()"),
        ("rest when correct: nll()\nrest when wrong: nll()", "rest: nll()"),
        ("rest: nll()", "rest when mixed: nll()\nrest when all_correct or all_wrong: nll() + entropy()"),
        # weights, schedules and denominators are not compared
        ("rest: nll(w=2, per=token)", "rest: nll(w=0.1, warmup=10, anneal=cos)"),
        # a loss without weight trains nothing
        ("rest: grpo() + nll(w=0)", "rest: grpo()"),
        ("rest: nll(w=schedule(0, anneal=cos))", "rest: none"),
        # a divergence to a teacher that sees something trains only the rollouts that have it
        ("rest: rkl()", "rest when has(diagnosis): rkl()"),
        (
            "teacher a = self(ema=0.1, sees=solution)\nrest: rkl()",
            "teacher b = self(ema=0.1, sees=solution)\nrest: rkl()",
        ),
        ("teacher a = self(frozen)\nrest when gap > 1: nll()", "teacher b = self(frozen)\nrest when gap(b) > 1: nll()"),
        (
            "rollouts a = policy(n=2)\nrest when rows == a: nll()",
            "rollouts b = policy(n=3)\nrest when rows == b: nll()",
        ),
        # a token with both labels goes to the first route of each spec
        ("error: none\nkey: nll()", "key: nll()"),
        ("key | error: nll()", "key: nll()\nerror: nll()"),
        ("rest when source == tool: nll()", "rest when source == tool or correct: nll()"),
        ("spans key(cap=20%)\nkey: nll()", "spans key(cap=30%)\nkey: nll()"),
        ("key: jsd(0.5, topk=8, tail=bucket)", "key: jsd(0.5, topk=8, tail=bucket, of=teacher)"),
    ],
)
def test_implied(text: str, other: str) -> None:
    assert against(text, other) == []


TOKEN = "a token without a label of a "
DIAGNOSED = ", where `has(diagnosis)` holds"


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("rest: grpo()", "key: grpo()", [(TOKEN + "rollout", "rest", None, "grpo()")]),
        ("rest: grpo()", "rest: none", [(TOKEN + "rollout", "rest", "rest", "grpo()")]),
        ("rest: nll() + entropy(w=0.1)", "rest: nll()", [(TOKEN + "rollout", "rest", "rest", "entropy(w=0.1)")]),
        ("rest: nll()", "rest: nll(w=0)", [(TOKEN + "rollout", "rest", "rest", "nll()")]),
        # directions and settings are part of a loss
        ("rest: rkl()", "rest: fkl()", [(TOKEN + "rollout" + DIAGNOSED, "rest", "rest", "rkl()")]),
        ("rest: grpo()", "rest: grpo(clip=0.1)", [(TOKEN + "rollout", "rest", "rest", "grpo()")]),
        ("rest: pg(adv=gap)", "rest: pg(adv=-gap)", [(TOKEN + "rollout", "rest", "rest", "pg(adv=gap)")]),
        # a teacher is what it is, not its name
        (
            "teacher = self(frozen)\nrest: rkl()",
            "teacher = self(sync=2)\nrest: rkl()",
            [(TOKEN + "rollout", "rest", "rest", "rkl()")],
        ),
        (
            "teacher = self(frozen)\nrest when gap > 1: nll()",
            "teacher = self(sync=2)\nrest when gap > 1: nll()",
            [
                (
                    TOKEN + "rollout, where `gap > 1` holds and `gap(teacher of the other spec) > 1` does not hold",
                    "rest when gap > 1",
                    None,
                    "nll()",
                )
            ],
        ),
        ("advantage = loo\nrest: grpo()", "rest: grpo()", [(TOKEN + "rollout", "rest", "rest", "grpo()")]),
        (
            "rollouts a = policy(sees=solution)\nrest when rows == a: nll()",
            "rollouts a = policy(sees=diagnosis)\nrest when rows == a: nll()",
            [(TOKEN + "rollout of `a`", "rest when rows == a", None, "nll()")],
        ),
        # overlapping labels: the order of routes matters
        (
            "key: nll()\nerror: none",
            "error: none\nkey: nll()",
            [("a token labelled `key` and `error` of a rollout", "key", "error", "nll()")],
        ),
        (
            "spans key(cap=30%)\nkey: nll()",
            "spans key(cap=20%)\nkey: nll()\nrest: grpo()",
            [
                (
                    "a token labelled `key` (beyond the cap of `key` in the other spec) of a rollout",
                    "key",
                    "rest",
                    "nll()",
                )
            ],
        ),
        (
            "spans key(cap=20%)\nkey: none\nrest: grpo()",
            "spans key\nkey: none\nrest: grpo()",
            [("a token labelled `key` (beyond the cap of `key` in this spec) of a rollout", "rest", "key", "grpo()")],
        ),
        (
            "key: nll()",
            "key when correct: nll()\nkey when has(solution): nll()",
            [
                (
                    "a token labelled `key` of a wrong rollout, where `has(solution)` does not hold",
                    "key",
                    None,
                    "nll()",
                )
            ],
        ),
        # where a teacher lacks its context neither comparison holds
        (
            "rest: nll()",
            "rest when gap > 1: nll()\nrest when gap <= 1: nll()",
            [(TOKEN + "rollout, where `has(diagnosis)` does not hold", "rest", None, "nll()")],
        ),
    ],
)
def test_not_implied(text: str, other: str, expected: list[tuple[str, str, str | None, str]]) -> None:
    assert against(text, other) == expected


def test_each_pair_of_routes_is_told_once() -> None:
    found = against("key: nll()\nrest: nll()", "key: none\nrest when correct: nll()\nrest: none")
    assert [(mine, theirs) for _, mine, theirs, _ in found] == [("rest", "rest"), ("key", "key")]


def prove(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["prove", *arguments], input=stdin)


def test_a_counterexample_shows_both_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DEMO)
    result = prove("all_token.trace", "--implies", "grpo.trace")
    kl = "schedule(0.5, warmup=10, anneal=linear(30))"
    assert (result.exit_code, result.stdout) == (
        1,
        "not so: every loss that all_token.trace gives a token, grpo.trace gives it too (whatever the weights)\n"
        "  a token without a label of a rollout, where `has(diagnosis)` holds\n"
        f"    all_token.trace: `rest when has(diagnosis)` trains rkl(w={kl}) + grpo(clip=(0.2, 0.28))\n"
        "    grpo.trace: `rest` trains grpo(clip=(0.2, 0.28))\n"
        f"    only all_token.trace trains it with rkl(w={kl})\n",
    )
    result = prove("grpo.trace", "--implies", "all_token.trace")
    assert (result.exit_code, result.stdout) == (
        0,
        "proved: every loss that grpo.trace gives a token, all_token.trace gives it too (whatever the weights) "
        "(16 cases)\n",
    )


def test_json_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DEMO)
    result = prove("-", "--implies", "grpo.trace", "--covers", "--format", "json", stdin="key when wrong: nll(w=2)\n")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["format"], found["spec"]) == (1, "-")
    assert [(claim["claim"], claim["holds"]) for claim in found["claims"]] == [("covers", False), ("implies", False)]
    assert found["claims"][0]["counterexamples"] == [
        {"token": "a token without a label of a rollout", "routes": []},
        {"token": "a token labelled `key` of a correct rollout", "routes": []},
    ]
    assert found["claims"][1]["counterexamples"] == [
        {
            "token": "a token labelled `key` of a wrong rollout",
            "route": "key when wrong",
            "other_route": "rest",
            "losses": ["nll(w=2)"],
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-", "--implies", "-"], "standard input holds one spec"),
        (["-", "--implies", "gone.trace"], "gone.trace cannot be read"),
        (["-", "--implies"], "requires an argument"),
    ],
)
def test_what_cannot_be_compared_is_2(arguments: list[str], words: str) -> None:
    result = prove(*arguments, stdin="rest: none\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_sets_of_labels_are_counted_before_they_are_listed() -> None:
    """Thirty labels, each of a route of its own, would be a thousand million sets."""
    labels = [f"l{index}" for index in range(30)]
    text = "".join(f"{label}: nll()\n" for label in labels) + "rest: none\n"
    assert implies(spec(text), spec(text)) is None
