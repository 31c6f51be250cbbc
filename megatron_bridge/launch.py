"""Start a run's processes on this machine with torch's elastic launcher, and put its end into one message."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from megatron_bridge.prepare import prepare_run
from megatron_bridge.run_directory import find_run_directory, only_process
from trace_dsl.report import render

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


def launch(run_file: Path, overrides: Sequence[str], *, resume: bool, overwrite: bool) -> int:
    """Check the run, start one process a rank, wait; returns the exit code.

    0: done; 1: a rank failed (it said why); 130: stopped by Ctrl-C or a signal, cleanly. Raises RunFileError and
    SpecError before any process starts, and TraceError for a task that cannot work.
    """
    loaded, plan, warnings = prepare_run(run_file, overrides)
    with only_process(loaded.directory):  # the ranks take the lock themselves
        find_run_directory(loaded, plan, resume=resume, overwrite=overwrite)
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
        max_restarts=0,
    )
    flags = ["--resume"] * resume + ["--overwrite"] * overwrite
    try:
        elastic_launch(config, sys.executable)("-m", "megatron_bridge.train", str(run_file), *overrides, *flags)
    except SignalException:
        return EXIT_INTERRUPTED
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(
            f"error: rank {rank} ended with {_describe(failure.exitcode)}; the other ranks were stopped",
            file=sys.stderr,
        )
        return EXIT_FAILED
    return 0


def _describe(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
