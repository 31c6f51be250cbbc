"""How a rank that fails tells of it: the traceback to its log, one line to whoever started it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import TracebackType

from megatron_bridge.rank_log import RankLog

EXIT_FAILED = 1
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # where torch's elastic launcher looks for what a rank says of its end


def report(log: RankLog, error: BaseException) -> None:
    """Write the traceback to the rank's log, and the error to torch's elastic launcher, or to stderr without one."""
    log.failed(error)
    if not tell_launcher(error, f"the traceback is in {log.path}"):
        print(f"error: {_text(error)}; the traceback is in {log.path}", file=sys.stderr, flush=True)


def tell_launcher(error: BaseException, more: str = "") -> bool:
    """Give an error of this rank to torch's elastic launcher; False where none has started it."""
    if _ERROR_FILE not in os.environ:
        return False
    said = {"message": "\n".join(filter(None, (_text(error), more))), "timestamp": int(time.time())}
    Path(os.environ[_ERROR_FILE]).write_text(json.dumps(said), encoding="utf-8")
    return True


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def report_uncaught(log: RankLog) -> None:
    """From here on, an exception that nothing catches is reported so, not printed as a traceback."""

    def hook(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        report(log, error)

    sys.excepthook = hook
