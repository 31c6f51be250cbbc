"""Problems from reasoning-gym, by the name of a task."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from megatron_bridge.data.errors import DataError

# Problem i of a data set is drawn with seed + i, and some tasks take seeds below 2^32 only: the lower half of them is
# for "train", the upper for the held-out split, and each half is cut into so many streams of so many problems.
_STREAMS, ROWS = 1 << 10, 1 << 21
_BAD_CONFIG = (TypeError, ValueError, AssertionError, KeyError, IndexError, AttributeError)


def split_seed(split: str, seed: int) -> int:
    """The seed of a split's data set; "train" and held-out splits share no problem's seed, nor do two seeds whose
    difference is no multiple of 1024.
    """
    return (0 if split == "train" else _STREAMS * ROWS) + seed % _STREAMS * ROWS


def gym_dataset(name: str, seed: int, config: Mapping[str, Any]) -> Any:
    """The data set that reasoning-gym has under `name`; kept once made. Raises DataError."""
    return _dataset(name, seed, json.dumps(config, sort_keys=True))


def gym_problem(name: str, seed: int, config: Mapping[str, Any], position: int) -> dict[str, Any]:
    """The row of the problem at `position`, whose stream begins again after 2^21 problems: question, answer, seed and
    index. Raises DataError where the task cannot pose it under this config.
    """
    dataset, index = gym_dataset(name, seed, config), position % ROWS
    try:
        entry = dataset[index]
    except _BAD_CONFIG as error:
        raise DataError(f"task.data: reasoning-gym cannot pose problem {index} of {name!r}: {_told(error)}") from error
    return {"question": entry["question"], "answer": entry["answer"], "seed": seed, "index": index}


@lru_cache(maxsize=8)
def _dataset(name: str, seed: int, config: str) -> Any:
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError as error:
        raise DataError("task.data: reasoning-gym is not installed: pip install 'trace-dsl[verify]'") from error
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"task.data.dataset: reasoning-gym has no task {name!r}{hint}")
    try:
        return create_dataset(name, seed=seed, size=ROWS, **json.loads(config))
    except _BAD_CONFIG as error:
        raise DataError(f"task.data.config: reasoning-gym does not take it for {name!r}: {_told(error)}") from error


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
