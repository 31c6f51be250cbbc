"""Seconds of the parts of a step, and where a profiler shows them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import torch

# What every run has, whether it came up in a step or not.
PARTS = ("sync", "rollout", "verify", "annotate", "measure", "teacher", "forward_backward", "save", "evaluate")

Moment = float | torch.cuda.Event


def unmarked(_name: str) -> AbstractContextManager[None]:
    """No mark for a profiler."""
    return contextlib.nullcontext()


class Timings:
    """Adds up the seconds of named parts on this rank. On CUDA by events, so that nobody waits for the GPU in between.

    mark: gives a block that a profiler shows under the name of the part.
    """

    def __init__(self, mark: Callable[[str], AbstractContextManager[None]] = unmarked) -> None:
        self._mark = mark
        self._passed: list[tuple[str, Moment, Moment]] = []

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block as a part of the step; the seconds count also where it raises."""
        with self._mark(name):
            began = _now()
            try:
                yield
            finally:
                self._passed.append((name, began, _now()))

    def take(self) -> dict[str, float]:
        """The seconds of every part since the last call. Waits for the GPU to reach the last one's end."""
        seconds: dict[str, float] = {}
        for name, began, ended in self._passed:
            seconds[name] = seconds.get(name, 0.0) + _between(began, ended)
        self._passed.clear()
        return seconds


def time_metrics(seconds: Mapping[str, float]) -> dict[str, float]:
    """perf/<part>_seconds of every part."""
    return {f"perf/{part}_seconds": seconds.get(part, 0.0) for part in PARTS}


def _now() -> Moment:
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(began: Moment, ended: Moment) -> float:
    if isinstance(began, float) or isinstance(ended, float):
        assert isinstance(began, float)
        assert isinstance(ended, float)
        return ended - began
    ended.synchronize()
    return began.elapsed_time(ended) / 1000
