"""A task of one's own: rows without a value, positions past the end, and what decides which problem stands where."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from megatron_bridge.data import DataError
from megatron_bridge.data.gym import ROWS, gym_dataset, split_seed
from megatron_bridge.tasks.data_task import DataTask
from megatron_bridge.tasks.settings import TaskSettings


def task(folder: Path, rows: list[dict[str, Any]], **change: Any) -> DataTask:
    """A task of `rows`; `change` are its settings."""
    (folder / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = {
        "data": {"kind": "files", "shuffle": False, "splits": {"train": "t.jsonl", "eval": "t.jsonl"}},
        "prompt": {"template": "{question}\n"},
        "solution": "steps",
        "verifier": {"kind": "exact"},
    }
    return DataTask(TaskSettings.model_validate(settings | change), folder=folder, cache=folder)


def gym(**change: Any) -> DataTask:
    settings = {
        "data": {"kind": "reasoning_gym", "dataset": "simple_equations"} | change,
        "prompt": {"template": "{question}\n"},
        "verifier": {"kind": "reasoning_gym"},
    }
    return DataTask(TaskSettings.model_validate(settings), folder=Path(), cache=Path())


def test_a_row_without_a_solution_shows_none(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": 1, "steps": steps} for steps in (None, "so", 0)]
    found = task(tmp_path, rows).problems(split="train", seed=0, start=0, count=3)
    assert [problem.solution for problem in found] == [None, "so", "0"]


@pytest.mark.parametrize("kind", ["exact", "math"])
@pytest.mark.parametrize("column", ["question", "answer"])
def test_a_column_that_is_needed_is_null_or_missing(tmp_path: Path, kind: str, column: str) -> None:
    """A prompt would show the word None, and an answer None would be right."""
    row = {"question": "q", "answer": "a", "steps": "s"}
    for broken, message in ((row | {column: None}, "is null; give it a value"), ({**row}, "it has ")):
        if broken[column] is not None:
            del broken[column]
        made = task(tmp_path, [row, broken], verifier={"kind": kind})
        assert made.problems(split="train", seed=0, start=0, count=1)
        with pytest.raises(DataError, match=rf"t\.jsonl: row 2: .*column '{column}'.*{message}"):
            made.problems(split="train", seed=0, start=1, count=1)


def test_a_function_that_judges_reads_the_columns_that_it_wants(tmp_path: Path) -> None:
    made = task(tmp_path, [{"question": "q", "steps": None}], verifier={"kind": "python", "function": "m:f"})
    assert made.problems(split="train", seed=0, start=0, count=1)


def test_a_held_out_split_ends(tmp_path: Path) -> None:
    """Problems that came twice would be counted as two."""
    rows = [{"question": str(n), "answer": 1, "steps": ""} for n in range(3)]
    made = task(tmp_path, rows)
    assert [p.prompt for p in made.problems(split="train", seed=0, start=2, count=3)] == ["2\n", "0\n", "1\n"]
    assert [p.prompt for p in made.problems(split="eval", seed=0, start=1, count=2)] == ["1\n", "2\n"]
    with pytest.raises(DataError, match="the split 'eval' has 3 rows: there is no row 4"):
        made.problems(split="eval", seed=0, start=2, count=2)


def test_what_decides_the_order_of_problems(tmp_path: Path) -> None:
    row = {"question": "q", "answer": 1, "steps": ""}
    plain = task(tmp_path, [row]).identity(0)
    assert plain == task(tmp_path, [row]).identity(1)  # rows as they stand
    shuffled = {"kind": "files", "splits": {"train": "t.jsonl", "eval": "t.jsonl"}}
    one, two = (task(tmp_path, [row], data=shuffled).identity(seed) for seed in (0, 1))
    assert {name for name in one if one[name] != two[name]} == {"seed"}
    assert plain["task.data.shuffle"] != one["task.data.shuffle"]
    other = task(tmp_path, [row], prompt={"template": "{question}"}).identity(0)
    assert {name for name in plain if plain[name] != other[name]} == {"task.prompt"}
    other = task(tmp_path, [row | {"answer": 2}]).identity(0)
    assert {name for name in plain if plain[name] != other[name]} == {"the files of task.data"}
    first = gym().identity(0)
    assert {name for name in first if first[name] != gym(config={"min_terms": 3}).identity(0)[name]} == {
        "task.data.config"
    }
    assert {name for name in first if first[name] != gym(dataset="leg_counting").identity(1)[name]} == {
        "task.data.dataset",
        "seed",
    }


def test_gym_settings_may_be_lists() -> None:
    made = gym(config={"operators": ["+"], "operators_weights": [1.0]})
    (problem,) = made.problems(split="train", seed=0, start=5, count=1)
    assert "+" in problem.prompt
    assert " - " not in problem.prompt
    for config, message in (
        ({"operators": []}, "must specify at least one operator"),
        ({"operators_weights": {"+": 1}}, "cannot pose problem 0|does not take it"),
        ({"no_such": 1}, "no_such"),
    ):
        with pytest.raises(DataError, match=message):
            gym(config=config).problems(split="train", seed=0, start=0, count=1)


def test_gym_seeds_are_small_and_splits_never_meet() -> None:
    """Some tasks give their seed to numpy, which takes 32 bits."""
    starts = sorted(split_seed(split, seed) for split in ("train", "eval") for seed in range(1024))
    assert all(later - earlier >= ROWS for earlier, later in itertools.pairwise(starts))
    assert starts[-1] + ROWS <= 2**32
    assert split_seed("train", 1023) + ROWS <= split_seed("eval", 0)
    assert gym_dataset("pool_matrix", split_seed("eval", 1023), {})[ROWS - 1]["answer"]
