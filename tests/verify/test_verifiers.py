"""Verifiers: what each calls correct, and what becomes of what they cannot judge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from megatron_bridge.data.gym import gym_dataset, split_seed
from megatron_bridge.verify import Grade, Verifier, VerifierError, VerifierSettings, check_failures
from megatron_bridge.verify.extract import extract_answer
from megatron_bridge.verify.run import open_verifier


@contextmanager
def opened(folder: Path, gym: dict[str, Any] | None = None, **settings: Any) -> Iterator[Verifier]:
    verifier = open_verifier(TypeAdapter(VerifierSettings).validate_python(settings), folder=folder, gym=gym)
    verifier.start()
    try:
        yield verifier
    finally:
        verifier.close()


@pytest.mark.parametrize(
    ("response", "how", "answer"),
    [
        (" a\nb ", "all", "a\nb"),
        ("a\n b \n\n", "last_line", "b"),
        ("\n", "last_line", None),
        ("\\boxed{1} and \\boxed{\\frac{1}{2}} so", "boxed", "\\frac{1}{2}"),
        ("\\boxed{\\{1\\}}", "boxed", "\\{1\\}"),
        ("\\boxed{1", "boxed", None),
        ("none", "boxed", None),
        ("<answer> 1 </answer> <answer>\n2</answer>", "tag", "2"),
        ("<answer>1", "tag", None),
        ("1</answer>", "tag", None),
        ("<answer>1</answer> so </answer>", "tag", "1"),
        ("the <answer> is <answer>2</answer> <answer>3", "tag", "2"),
    ],
)
def test_cutting_the_answer_out(response: str, how: Any, answer: str | None) -> None:
    assert extract_answer(response, how) == answer


@pytest.mark.parametrize("text", ["<answer>", "</answer>", "<answer><answer></answer>"])
def test_a_tag_that_is_repeated_without_end_costs_no_time(text: str) -> None:
    """A million characters: in quadratic time, minutes."""
    assert (extract_answer(text * (1_000_000 // len(text)), "tag") or "") == ""


def test_exact(tmp_path: Path) -> None:
    with opened(tmp_path, kind="exact", column="n") as verifier:
        grades = verifier.grade([({"n": 42}, "so\n42 "), ({"n": "42"}, "042"), ({"n": ""}, " ")])
    assert [grade.reward for grade in grades] == [1.0, 0.0, 0.0]
    assert grades[2].reason == "no answer was given in the form that is asked for"


def test_math(tmp_path: Path) -> None:
    """Equal values in other forms are right; an answer that would take forever costs its time limit."""
    cases = [
        ("1/2", "so \\boxed{0.5}", 1.0),
        ("\\frac{1}{2}", "\\boxed{2/4}", 1.0),
        ("x^2+1", "\\boxed{1 + x^2}", 1.0),
        ("3", "\\boxed{4}", 0.0),
        ("3", "3", 0.0),
        ("3", "\\boxed{9^{9^{9^{9^9}}}}", 0.0),
    ]
    with opened(tmp_path, kind="math", timeout=60.0) as verifier:  # the first parse takes seconds on a busy machine
        grades = verifier.grade([({"answer": right}, response) for right, response, _ in cases[:-1]])
    with opened(tmp_path, kind="math", timeout=2.0) as verifier:
        grades += verifier.grade([({"answer": right}, response) for right, response, _ in cases[-1:]])
    assert [grade.reward for grade in grades] == [reward for *_, reward in cases]
    assert [grade.failure for grade in grades] == [None] * 5 + ["timed_out"]


def test_reasoning_gym(tmp_path: Path) -> None:
    seed = split_seed("train", 3)
    answer = gym_dataset("leg_counting", seed, {})[7]["answer"]
    row = {"seed": seed, "index": 7}
    with opened(tmp_path, gym={"dataset": "leg_counting", "config": {}}, kind="reasoning_gym") as verifier:
        grades = verifier.grade([(row, f"<answer>{answer}</answer>"), (row, "<answer>1</answer>"), (row, answer)])
    assert [grade.reward for grade in grades] == [1.0, 0.0, 0.0]


def test_a_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def grade(response, row):\n    return row[response]\n")
    row = {
        "number": 0.5,
        "truth": True,
        "both": {"reward": 1, "reason": "yes"},
        "nan": float("nan"),
        "text": "1",
        "none": None,
        "more": {"reward": 1, "surplus": 2},
    }
    with opened(tmp_path, kind="python", function="mine:grade") as verifier:
        grades = dict(zip([*row, "missing"], verifier.grade([(row, name) for name in [*row, "missing"]]), strict=True))
    assert {name: grade.reward for name, grade in grades.items() if grade.failure is None} == {
        "number": 0.5,
        "truth": 1.0,
        "both": 1.0,
    }
    assert grades["both"].reason == "yes"
    assert {grades[name].failure for name in ("nan", "text", "none", "more")} == {"no_number"}
    assert grades["missing"].reason == "raised: KeyError: 'missing'"


def test_too_many_failures_stop_a_run() -> None:
    grades = [Grade(reward=0.0, failure="died", reason="ended with code 7"), Grade(reward=1.0)]
    check_failures(grades, limit=0.5)
    with pytest.raises(VerifierError, match=r"could not judge 1 of 2 responses, .* = 0.4: died 1; for example: ended"):
        check_failures(grades, limit=0.4)
