"""Problems from reasoning-gym, by the name of a task."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from megatron_bridge.data.errors import DataError

ROWS = 1 << 31  # every index below has a problem of its own
_SPLIT_STRIDE = 1 << 40  # problem i of a data set is drawn with seed + i: splits never meet


def split_seed(split: str, seed: int) -> int:
    """The seed of a split's data set; "train" and held-out splits share no problem's seed."""
    return seed * 4 * _SPLIT_STRIDE + (0 if split == "train" else _SPLIT_STRIDE)


def gym_dataset(name: str, seed: int, config: Mapping[str, Any]) -> Any:
    """The data set that reasoning-gym has under `name`; kept once made. Raises DataError."""
    return _dataset(name, seed, tuple(sorted(config.items())))


@lru_cache(maxsize=8)
def _dataset(name: str, seed: int, config: tuple[tuple[str, Any], ...]) -> Any:
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError as error:
        raise DataError("task.data: reasoning-gym is not installed: pip install 'trace-dsl[verify]'") from error
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"task.data.dataset: reasoning-gym has no task {name!r}{hint}")
    try:
        return create_dataset(name, seed=seed, size=ROWS, **dict(config))
    except (TypeError, ValueError, AssertionError) as error:
        raise DataError(f"task.data.config: reasoning-gym does not take it for {name!r}: {error}") from error
