"""Ranks that no longer answer end the job: each gives a sign of life from a thread, and looks for those of the others.

A rank that is stopped, or whose machine hangs, leaves the others in a collective for as long as ranks have patience
(`training.patience`). Signs are counted, not timed: a job that is suspended as a whole and goes on later is alive.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import torch.distributed as dist

from megatron_bridge.failure import EXIT_FAILED, report
from megatron_bridge.rank_log import Doing, Phase, RankLog
from trace_dsl.errors import TraceError

_LONGEST_INTERVAL = 5.0  # seconds
_SIGNS = 8  # so many may be missed at the least before a rank counts as gone


class RankGone(TraceError, RuntimeError):
    """A rank has given no sign of life for longer than the run file allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A sign of life: its number, what the rank is doing, under which launcher. `left`: it will give no more."""

    number: int
    doing: Doing
    launcher: str
    left: bool = False

    def to_json(self) -> str:
        doing = {"phase": self.doing.phase, "step": self.doing.step, "pid": self.doing.pid}
        return json.dumps({"number": self.number, "doing": doing, "launcher": self.launcher, "left": self.left})

    @staticmethod
    def from_json(text: bytes) -> Sign:
        said = json.loads(text)
        doing = said["doing"]
        return Sign(
            number=said["number"],
            doing=Doing(phase=Phase(doing["phase"]), step=doing["step"], pid=doing["pid"]),
            launcher=said["launcher"],
            left=said["left"],
        )


class Watch:
    """Counts for each rank how many looks in a row found no new sign."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._seen: dict[int, int] = {}
        self._missed: dict[int, int] = {}

    def look(self, signs: Mapping[int, Sign]) -> list[int]:
        """The ranks that have been silent for longer than is allowed."""
        for rank, sign in signs.items():
            new = sign.left or self._seen.get(rank) != sign.number
            self._missed[rank] = 0 if new else self._missed.get(rank, 0) + 1
            self._seen[rank] = sign.number
        return [rank for rank in signs if self._missed[rank] > self._patience]


class Heartbeat:
    """This rank's signs of life while the block lasts. Collective: a barrier at the start.

    When a rank is silent for `seconds`, every other one reports it and ends its process with exit code 1; nothing is
    saved. A silent rank that the same launcher started is killed. 0 seconds: nothing is watched.
    """

    def __init__(self, log: RankLog, *, seconds: float) -> None:
        self._log, self._seconds = log, seconds
        self._ranks = range(dist.get_world_size())
        self._launcher = os.environ.get("GROUP_RANK", "")  # torch's launcher has one on each machine
        self._thread: threading.Thread | None = None
        self._end = threading.Event()

    def __enter__(self) -> Heartbeat:
        if self._seconds == 0 or len(self._ranks) == 1:
            return self
        self._interval = min(self._seconds / _SIGNS, _LONGEST_INTERVAL)
        self._store = dist.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
        self._give(0)
        dist.barrier()  # from here on there is a sign of every rank
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._end.set()
            self._thread.join()

    def _run(self) -> None:
        watch = Watch(math.ceil(self._seconds / self._interval))
        others = [rank for rank in self._ranks if rank != self._log.rank]
        number = 0
        try:
            while not self._end.wait(self._interval):
                number += 1
                self._give(number)
                found = self._store.multi_get([_key(rank) for rank in others])
                signs = {rank: Sign.from_json(text) for rank, text in zip(others, found, strict=True)}
                if gone := watch.look(signs):
                    self._fail({rank: signs[rank] for rank in gone})
            self._give(number + 1, left=True)
        except dist.DistError:
            return  # the store has gone with the process that kept it: whoever started this one ends it

    def _give(self, number: int, *, left: bool = False) -> None:
        sign = Sign(number=number, doing=self._log.doing, launcher=self._launcher, left=left)
        self._store.set(_key(self._log.rank), sign.to_json())

    def _fail(self, gone: Mapping[int, Sign]) -> None:
        told = "; ".join(f"rank {rank} (process {sign.doing.pid}), last in {sign.doing}" for rank, sign in gone.items())
        error = RankGone(
            f"no sign of life for {self._seconds:g} s (heartbeat_timeout) from {told}. It was stopped, or its machine "
            f"hangs; rank {self._log.rank} waited for it in {self._log.doing}"
        )
        report(self._log, error)
        for sign in gone.values():
            if sign.launcher == self._launcher:
                with contextlib.suppress(ProcessLookupError):  # another rank was faster
                    os.kill(sign.doing.pid, signal.SIGKILL)  # a stopped process heeds no other signal
        os._exit(EXIT_FAILED)  # the thread that trains may wait in a collective for good


def _key(rank: int) -> str:
    return f"heartbeat/{rank}"
