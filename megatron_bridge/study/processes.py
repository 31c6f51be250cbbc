"""The processes that train a study's runs.

Importing torch and megatron-core is a good part of a run of a minute, so a run of one process is forked off a server
that has imported them already. A run of several goes through `trace-dsl train`, as any other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

from megatron_bridge.train import main
from megatron_bridge.with_parent import signal_when_parent_dies

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["megatron_bridge.study.imported"])
# multiprocessing looks at all of its processes whenever it starts one, which it may not do in two threads at once
_LOCK = threading.Lock()


class Process(Protocol):
    """A run under way."""

    def terminate(self) -> None:
        """Ask it to end."""

    def wait(self) -> int:
        """Its exit code, when it has ended."""


class _Forked:
    """A run of one process."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self._process = _CONTEXT.Process(target=_train, args=(arguments, log))
        with _LOCK:
            self._process.start()

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self) -> int:
        wait([self._process.sentinel])
        with _LOCK:
            self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode


def start_run(arguments: Sequence[str], log: Path, *, forked: bool) -> Process:
    """Train as `trace-dsl train` would with these arguments, what is said going to the end of `log`.

    forked: it is one process, which uses nothing that `megatron_bridge.study.imported` rules out.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if forked:
        return _Forked(arguments, log)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "trace_dsl", "train", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is the study's to pass on
        )


def _train(arguments: Sequence[str], log: Path) -> None:
    os.setsid()  # as above
    signal_when_parent_dies(signal.SIGTERM)
    with log.open("ab") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    sys.exit(main(arguments))
