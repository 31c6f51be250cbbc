"""Foreign functions in processes of their own, each call with a time limit.

This is no sandbox: the code runs with the rights of whoever starts the run. It is a guard against code that hangs,
dies, prints, or eats the memory. Requests and answers are JSON lines (`megatron_bridge.worker_main` is the other end).
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from trace_dsl.errors import TraceError

LONGEST_ANSWER = 1 << 20  # bytes
START_SECONDS = 120.0  # importing what a function needs may take a while on a busy machine
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[1])


class WorkerError(TraceError, RuntimeError):
    """A function cannot be called at all: its module does not import, or it is not there."""


class Failure(StrEnum):
    """How a call ends without a value."""

    RAISED = "raised"
    TIMED_OUT = "timed_out"
    DIED = "died"
    TOO_LONG = "answer_too_long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What became of one call: `value` (JSON), or a `failure` and in `reason` what is known of it."""

    value: Any = None
    failure: Failure | None = None
    reason: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    ready: bool = False
    call: int | None = None


class WorkerPool:
    """Calls one function, described by `target`, in up to `count` processes that live until `close`."""

    def __init__(
        self,
        target: Mapping[str, Any],
        *,
        count: int = 2,
        timeout: float = 10.0,
        memory_gb: float = 4.0,
        hidden: Sequence[str] = (),
    ) -> None:
        """`target`: see `worker_main.load`; `timeout`: seconds a call; `memory_gb`: address space of a process;
        `hidden`: environment variables that it does not get.
        """
        self._hidden = frozenset(hidden)
        self._target = json.dumps({**target, "memory_gb": memory_gb})
        self._count, self._timeout = count, timeout
        self._workers: list[_Worker] = []

    def start(self) -> None:
        """Start one process and wait until it has the function. Raises WorkerError when it cannot get it."""
        if not self._workers:
            self._spawn()
        while not self._workers[0].ready:
            self._wait([], {}, deque())

    def map(self, calls: Sequence[Mapping[str, Any]]) -> list[Returned]:
        """What each call gave, in order. Raises WorkerError when the function cannot be called at all."""
        results: dict[int, Returned] = {}
        waiting = deque(range(len(calls)))
        while len(results) < len(calls):
            while len(self._workers) < min(self._count, len(calls) - len(results)):
                self._spawn()
            for worker in self._workers:
                if worker.ready and worker.call is None and waiting:
                    self._send(worker, waiting.popleft(), calls, waiting)
            self._wait(calls, results, waiting)
        return [results[number] for number in range(len(calls))]

    def close(self) -> None:
        """End the processes."""
        for worker in list(self._workers):
            self._kill(worker)

    # ------------------------------------------------------------------------------------------------------ processes

    def _spawn(self) -> None:
        path = os.pathsep.join(filter(None, [_PACKAGE_ROOT, os.environ.get("PYTHONPATH", "")]))
        kept = {name: value for name, value in os.environ.items() if name not in self._hidden}
        process = subprocess.Popen(
            [sys.executable, "-m", "megatron_bridge.worker_main", self._target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**kept, "PYTHONPATH": path},
            start_new_session=True,  # so that what it starts ends with it
        )
        self._workers.append(_Worker(process=process, deadline=time.monotonic() + START_SECONDS))

    def _kill(self, worker: _Worker) -> int:
        """End a worker and everything in its session; returns how it ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        for pipe in (worker.process.stdin, worker.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        self._workers.remove(worker)
        return worker.process.wait()

    def _send(self, worker: _Worker, number: int, calls: Sequence[Mapping[str, Any]], waiting: deque[int]) -> None:
        try:
            worker.process.stdin.write(json.dumps(calls[number]).encode() + b"\n")
            worker.process.stdin.flush()
        except OSError:  # it died between two calls, which says nothing of this one
            self._kill(worker)
            waiting.appendleft(number)
            return
        worker.call, worker.deadline = number, time.monotonic() + self._timeout

    def _wait(self, calls: Sequence[Mapping[str, Any]], results: dict[int, Returned], waiting: deque[int]) -> None:
        """Wait for the next thing that happens: an answer, an end, or a call that takes too long."""
        busy = [worker for worker in self._workers if worker.call is not None or not worker.ready]
        if not busy:
            return
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
            patience = min(worker.deadline for worker in busy) - time.monotonic()
            for key, _ in selector.select(max(patience, 0.0)):
                self._read(key.data, results)
        now = time.monotonic()
        for worker in [worker for worker in busy if worker in self._workers and worker.deadline <= now]:
            if worker.call is not None:
                self._give(worker, results, Returned(failure=Failure.TIMED_OUT, reason=f"over {self._timeout:g} s"))
                self._kill(worker)
            elif not worker.ready:
                self._kill(worker)
                raise WorkerError(f"{self._name()} was not ready to be called after {START_SECONDS:g} s")

    def _read(self, worker: _Worker, results: dict[int, Returned]) -> None:
        piece = os.read(worker.process.stdout.fileno(), 1 << 16)
        worker.received += piece
        if piece and b"\n" not in worker.received:
            if len(worker.received) > LONGEST_ANSWER:
                self._give(worker, results, Returned(failure=Failure.TOO_LONG, reason=f"over {LONGEST_ANSWER} bytes"))
                self._kill(worker)
            return
        if not piece:
            code = self._kill(worker)
            if not worker.ready:
                raise WorkerError(f"{self._name()} ended with code {code} before it could be called")
            self._give(worker, results, Returned(failure=Failure.DIED, reason=f"ended with code {code}"))
            return
        line, _, rest = bytes(worker.received).partition(b"\n")
        worker.received = bytearray(rest)
        answer = json.loads(line)
        if "unusable" in answer:
            self._kill(worker)
            raise WorkerError(f"{self._name()}: {answer['unusable']}")
        if "ready" in answer:
            worker.ready, worker.deadline = True, float("inf")
        elif "raised" in answer:
            self._give(worker, results, Returned(failure=Failure.RAISED, reason=answer["raised"]))
        else:
            self._give(worker, results, Returned(value=answer["value"]))

    def _give(self, worker: _Worker, results: dict[int, Returned], returned: Returned) -> None:
        if worker.call is not None:
            results[worker.call] = returned
        worker.call, worker.deadline = None, float("inf")

    def _name(self) -> str:
        target = json.loads(self._target)
        return str(target.get("function") or target["kind"])
