"""Start a run's processes on this machine with torch's elastic launcher, and put its end into one message."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_bridge.failure import EXIT_FAILED
from megatron_bridge.prepare import prepare_run
from megatron_bridge.rank_log import log_path, read_doing
from megatron_bridge.run_directory import RunDirectory, find_run_directory, last_checkpoint_told, only_process
from trace_dsl.report import render

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

EXIT_INTERRUPTED = 130
_NAMED = 4  # ranks in one message
_NO_FILE = "<N/A>"  # torch's word for a process that wrote no error file
_HEARTBEAT = "RankGone: "
_TIMED_OUT = ("Timed out waiting", "Watchdog caught collective operation timeout")  # gloo's words and NCCL's


def launch(
    run_file: Path,
    overrides: Sequence[str],
    *,
    resume: bool,
    overwrite: bool,
    accept_spec_change: bool = False,
    max_restarts: int = 0,
) -> int:
    """Check the run, start one process a rank, wait; returns the exit code.

    0: done; 1: a rank failed (it said why); 130: stopped by Ctrl-C or a signal, cleanly. After a failure all ranks are
    started again from the last checkpoint, up to `max_restarts` times. Raises RunFileError and SpecError before any
    process starts, and TraceError for a task that cannot work.
    """
    loaded, plan, warnings = prepare_run(run_file, overrides)
    with only_process(loaded.directory):  # the ranks take the lock themselves
        directory = find_run_directory(
            loaded, plan, resume=resume, overwrite=overwrite, accept_spec_change=accept_spec_change
        )
    loaded.try_task()
    if warnings:
        print(render(warnings, loaded.spec_path), file=sys.stderr)
    ranks = loaded.file.layout.layout.world
    print(f"starting {ranks} process{'es' if ranks > 1 else ''} (a few seconds) ...", file=sys.stderr, flush=True)

    # torch takes seconds to import: only now, when the run can start
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("agent.server.api", "multiprocessing.api", "multiprocessing.errors"):
        # what they would say is said below, in one line
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=loaded.file.name,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=max_restarts,
    )
    flags = ["--resume"] * resume + ["--overwrite"] * overwrite + ["--accept-spec-change"] * accept_spec_change
    try:
        elastic_launch(config, sys.executable)("-m", "megatron_bridge.train", str(run_file), *overrides, *flags)
    except SignalException:
        return EXIT_INTERRUPTED
    except ChildFailedError as error:
        if not _has_spoken(error.failures.get(0)):
            print(f"error: {told(directory, error.failures)}", file=sys.stderr, flush=True)
        return EXIT_FAILED
    return 0


def culprit(failures: Mapping[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """The rank whose end made the others fail: one that another missed, then one that waited in vain, then one that was
    killed, then the first. After one that waited the launcher kills those that do not heed it.
    """

    def order(item: tuple[int, ProcessFailure]) -> tuple[bool, bool, bool, int]:
        _, failure = item
        killed = failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM  # that is the launcher's own
        return _HEARTBEAT not in failure.message, not _waited(failure), not killed, failure.timestamp

    return min(failures.items(), key=order)


def _waited(failure: ProcessFailure) -> bool:
    """Whether a collective timed out: some rank, which need not have failed, never came to it."""
    return any(words in failure.message for words in _TIMED_OUT)


def _has_spoken(failure: ProcessFailure | None) -> bool:
    """Whether the first rank has ended by itself with an error that it printed: it speaks for all."""
    return failure is not None and failure.exitcode > 0 and failure.error_file == _NO_FILE


def told(directory: RunDirectory, failures: Mapping[int, ProcessFailure]) -> str:
    """One message for people of how ranks ended."""
    rank, failure = culprit(failures)
    tail = f"The other ranks were stopped. {last_checkpoint_told(directory)}"
    message = failure.message.partition("\n")[0]
    if message.startswith(_HEARTBEAT):
        return f"{message.removeprefix(_HEARTBEAT)}. {tail}"
    log = log_path(directory.path, rank)
    if _waited(failure):
        stuck = [other for other, ended in failures.items() if ended.exitcode == -signal.SIGKILL]
        others = "".join(f", rank {other} hung in {read_doing(directory.path, other)}" for other in stuck[:_NAMED])
        waited = f"rank {rank} waited in vain for another one in {read_doing(directory.path, rank)}{others}"
        return f"{waited}: {message}; where each rank stood is in {log.parent}. {tail}"
    if failure.exitcode < 0:
        doing = read_doing(directory.path, rank)
        where = "before it had started" if doing is None else f"in {doing}"
        return f"rank {rank} was killed by {signal.Signals(-failure.exitcode).name} {where}; its log is {log}. {tail}"
    if failure.error_file == _NO_FILE:
        message = f"it ended with exit code {failure.exitcode}"
    return f"rank {rank} failed: {message}; its log is {log}. {tail}"
