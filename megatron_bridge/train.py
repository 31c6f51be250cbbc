"""Train a policy with the objective of a spec: one rank of the job that torchrun starts.

    torchrun --nproc-per-node 2 -m megatron_bridge.train specs/demo/run.yaml optim.lr=3e-4

`trace-dsl train RUN.yaml` checks the same things first and starts the processes itself.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from megatron_bridge.failure import report_uncaught, tell_launcher
from megatron_bridge.prepare import prepare_run
from megatron_bridge.rank_log import RankLog
from megatron_bridge.with_parent import signal_when_parent_dies
from trace_dsl.errors import TraceError

# torchrun's count of restarts of this job: a restart goes on with what the start before it began
_RESTARTS = "TORCHELASTIC_RESTART_COUNT"
EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m megatron_bridge.train",
        description="Train a policy with the objective of a spec. Start it with torchrun, one process a GPU (or CPU "
        "rank); the number of processes is layout.tp x layout.pp x layout.cp x layout.dp of the run file.",
        epilog="example: torchrun --nproc-per-node 2 -m megatron_bridge.train specs/demo/run.yaml optim.lr=3e-4",
    )
    parser.add_argument("run_file", type=Path, metavar="RUN.yaml", help="the run file")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings to change, for example steps=20 layout.tp=1",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    start.add_argument(
        "--overwrite", action="store_true", help="start afresh; an existing run is moved to NAME.previous"
    )
    parser.add_argument(
        "--accept-spec-change",
        action="store_true",
        help="with --resume: go on also where the spec, steps or temperature changed; it is noted in changes.jsonl",
    )
    options = parser.parse_args(arguments)
    if options.accept_spec_change and not options.resume:
        parser.error("--accept-spec-change is about a run that goes on: give --resume with it")
    return options


def import_job(*, wandb: bool) -> Callable[..., int]:
    """`training.job.run_job`, with torch and megatron-core, which take seconds to import.

    wandb: whether it is for a run that asks for W&B; without, this process will not have it.
    """
    # megatron-core warns at import that Apex and transformer-engine, which a CPU never has, are not installed
    warnings.filterwarnings("ignore", category=UserWarning, module=r"megatron\.core")
    # both announce changes of theirs in collectives and while a checkpoint is loaded
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(megatron\.core|torch\.distributed)")
    if not wandb:
        # megatron-core imports it wherever it is installed; a run that does not ask for it starts without
        sys.modules["wandb"] = None  # type: ignore[assignment]
    from megatron_bridge.training.job import run_job

    return run_job


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one rank; returns the exit code: 0 done or stopped on request, 1 failed, 2 bad input."""
    options = parse_arguments(arguments)
    rank = int(os.environ.get("RANK", "0"))
    first = rank == 0
    try:
        if "RANK" in os.environ:  # a rank never trains on alone
            signal_when_parent_dies(signal.SIGTERM)
        loaded, plan, _ = prepare_run(options.run_file, options.overrides)
        log = RankLog(loaded.directory, rank)
        report_uncaught(log)
        run_job = import_job(wandb=loaded.file.logging.wandb is not None)
        restarted = os.environ.get(_RESTARTS, "0") != "0"
        return run_job(
            loaded,
            plan,
            log,
            resume=options.resume or restarted,
            overwrite=options.overwrite and not restarted,
            accept_spec_change=options.accept_spec_change,
        )
    except KeyboardInterrupt:  # before the first step is set up; later, a signal only asks for a clean stop
        if first:
            print("stopped on request before the first step", file=sys.stderr, flush=True)
        return EXIT_OK
    except TraceError as error:
        if first:
            print(f"error: {error}", file=sys.stderr, flush=True)
        else:
            tell_launcher(error)  # it may be this rank's alone
        return EXIT_BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
