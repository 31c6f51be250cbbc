"""`trace-dsl study`: compare objectives over seeds."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trace_dsl.cli.exits import refusing

if TYPE_CHECKING:
    from megatron_bridge.study.runs import Progress

EXIT_FAILED, EXIT_STOPPED = 1, 130


def study(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")],
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at a time, each on one thread.")] = 1,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="Begin no run later than so many minutes from now.")
    ] = None,
    work: Annotated[Path, typer.Option("--work", help="Where runs are kept while they train.")] = Path("runs/study"),
    keep_runs: Annotated[bool, typer.Option("--keep-runs", help="Keep run directories too.")] = False,
    only_report: Annotated[
        bool, typer.Option("--report", help="Train nothing: write tables and plots of what is there.")
    ] = False,
) -> None:
    """Train every method with every seed, and compare them: tables, intervals, tests and plots.

    Settings are searched first, on seeds that are not reported, as many for each method. Each run is recorded as soon
    as it is done, so a study that was stopped goes on where it was. Exits with 0 when all runs are done, 1 when one
    failed, 2 on bad input, 130 when it was stopped.

    Example: trace-dsl study specs/study/study.yaml --jobs 2
    """
    from megatron_bridge.study.report import check_can_report, write_report
    from megatron_bridge.study.runs import train_missing
    from megatron_bridge.study.settings import load_study

    code = 0
    with refusing():
        loaded = load_study(study_file)
        check_can_report()
        if not only_report:
            clock = _Clock()
            ended = train_missing(loaded, work, jobs=jobs, keep_runs=keep_runs, minutes=minutes, tell=clock.tell)
            for failure in ended.failed:
                print(f"error: {failure}", file=sys.stderr)
            code = EXIT_FAILED if ended.failed else EXIT_STOPPED if ended.stopped else 0
        if code == 0:
            for path in write_report(loaded, f"trace-dsl study {study_file.as_posix()}"):
                print(f"wrote {path}", file=sys.stderr)
        elif code == EXIT_STOPPED:
            print("stopped; the same command goes on, --report shows what is there", file=sys.stderr)
    raise typer.Exit(code)


class _Clock:
    """Tells each run that is done, and about how long the rest of its phase will take."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._phase: str | None = None
        self._first = 0

    def tell(self, progress: Progress) -> None:
        if progress.phase != self._phase:
            if self._phase is not None:
                self._began = time.monotonic()
            self._phase, self._first = progress.phase, progress.done - 1
        each = (time.monotonic() - self._began) / (progress.done - self._first)
        left = each * (progress.total - progress.done) / 60
        rest = f"about {left:.0f} min left" if progress.done < progress.total else "all done"
        told = f"{progress.phase} {progress.done}/{progress.total}  {progress.text}; {rest}"
        print(told, file=sys.stderr, flush=True)
