"""What each rank leaves of itself in a run's directory: what it is doing, and how it failed. No torch here.

`logs/rank_0.log` has when it started and the traceback of what ended it; `logs/rank_0.now`, one line of JSON that is
written over as phases begin, says what it was doing last, also of a rank that was killed.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import time
import traceback
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

LOGS = "logs"
_LINE = 200  # bytes of rank_N.now, so that it is written over in one piece


class Phase(StrEnum):
    """The parts of a run that a rank goes through."""

    START = "start"
    EVALUATE = "evaluate"
    ROLLOUT = "rollout"
    ANNOTATE = "annotate"
    TRAIN = "train"
    SAVE = "save"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What a rank is doing: a phase, after so many optimizer steps, in a process."""

    phase: Phase
    step: int
    pid: int

    def __str__(self) -> str:
        return f"{self.phase} after {self.step} steps"


def log_path(run: Path, rank: int) -> Path:
    return run / LOGS / f"rank_{rank}.log"


def read_doing(run: Path, rank: int) -> Doing | None:
    """What a rank of a run was doing last; None where it has not come as far as to say."""
    path = run / LOGS / f"rank_{rank}.now"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):  # it is being written for the first time
        return None
    said = json.loads(text)
    return Doing(phase=Phase(said["phase"]), step=said["step"], pid=said["pid"])


class RankLog:
    """The files of one rank. Nothing is written before `open`: until then the run may have no directory."""

    def __init__(self, run: Path, rank: int) -> None:
        self._run, self.rank = run, rank
        self.doing = Doing(phase=Phase.START, step=0, pid=os.getpid())
        self._log: IO[str] | None = None
        self._now: int | None = None

    @property
    def path(self) -> Path:
        return log_path(self._run, self.rank)

    def open(self) -> None:
        """Start the files in the run's directory. A crash of the interpreter is told in the log, too, and where the
        main thread was when SIGTERM came, whose handler is called as before: what hangs in a collective does not heed
        it.
        """
        if self._log is not None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._log = self.path.open("a", encoding="utf-8", buffering=1)
        self._now = os.open(self.path.with_suffix(".now"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        faulthandler.enable(self._log)
        # not of all threads: the frames of those that run meanwhile change while they are read, which is a crash
        faulthandler.register(signal.SIGTERM, self._log, all_threads=False, chain=True)
        self.note(f"started as process {os.getpid()}")
        self._tell()

    def enter(self, phase: Phase, step: int) -> None:
        """A phase begins, after `step` optimizer steps."""
        self.doing = Doing(phase=phase, step=step, pid=os.getpid())
        if self._now is not None:
            self._tell()

    def note(self, text: str) -> None:
        """A line of the log."""
        assert self._log is not None
        self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def failed(self, error: BaseException) -> None:
        """Write the traceback of an error that ends this rank."""
        self.open()
        self.note(f"failed in {self.doing}")
        assert self._log is not None
        self._log.write("".join(traceback.format_exception(error)))

    def _tell(self) -> None:
        said = {"phase": str(self.doing.phase), "step": self.doing.step, "pid": self.doing.pid}
        assert self._now is not None
        os.pwrite(self._now, f"{json.dumps(said):<{_LINE - 1}}\n".encode(), 0)
