"""Running what is missing: some runs at a time, each a process of its own, each kept as soon as it is done."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from megatron_bridge.study.cells import Cell, Prepared, pairs, prepare_cell, report_cells, search_cells
from megatron_bridge.study.choose import chosen_point
from megatron_bridge.study.processes import Process, start_run
from megatron_bridge.study.records import read_record, record_path, take_record, write_record
from megatron_bridge.study.settings import Study
from trace_dsl.errors import RunFileError


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What `train_missing` tells after each run: how many of how many of its phase are done, what it was and did."""

    phase: str
    done: int
    total: int
    text: str


@dataclass(slots=True, kw_only=True)
class Ended:
    """How `train_missing` ended. failed: runs that did not finish, with where their output is; stopped: on request."""

    failed: list[str] = field(default_factory=list)
    stopped: bool = False


def missing(study: Study, cells: Sequence[Cell], work: Path) -> list[Prepared]:
    """The runs without a record. Raises RunFileError where a record was made under other settings than the study's."""
    found, strange = [], []
    for cell in cells:
        prepared, path = prepare_cell(study, cell, work), record_path(study, cell)
        if not path.exists():
            found.append(prepared)
        elif read_record(path).fingerprint != prepared.fingerprint:
            strange.append(path)
    if strange:
        told = "\n".join(f"  {path}" for path in strange)
        raise RunFileError(
            f"{study.path}: the spec, the run file, the policy or the settings of the study changed since these runs "
            f"were made; delete their records to make them again, or give `results` another folder:\n{told}"
        )
    return found


def check_study(study: Study, work: Path) -> None:
    """Prepare every method's every setting once, and the first with every seed, so that no mistake is found hours
    later. Raises RunFileError.
    """
    for policy, method in pairs(study):
        for point in study.file.methods[method].points:
            prepare_cell(study, report_cells(study, policy, method, point)[0], work)
    for policy in study.file.policies:
        method = study.file.baseline
        for cell in report_cells(study, policy, method, study.file.methods[method].points[0]):
            prepare_cell(study, cell, work)


def train_missing(
    study: Study, work: Path, *, jobs: int, keep_runs: bool, minutes: float | None, tell: Callable[[Progress], None]
) -> Ended:
    """Train what has no record yet: of each policy first every search, then every run that is reported, `jobs` at a
    time.

    minutes: no run is begun later than that from now. Ctrl-C or SIGTERM ends the runs under way; the next call makes
    them again. Raises RunFileError or SpecError before anything starts.
    """
    check_study(study, work)
    runner = _Runner(study, work, keep_runs=keep_runs, minutes=minutes)
    with runner.interruptible():
        for policy in study.file.policies:
            methods = study.methods_on(policy)
            searched = study.searched_on(policy)
            runner.run([cell for method in methods for cell in search_cells(study, searched, method)], jobs, tell)
            if runner.goes_on:
                chosen = {method: chosen_point(study, policy, method) for method in methods}
                cells = [cell for method in methods for cell in report_cells(study, policy, method, chosen[method])]
                runner.run(cells, jobs, tell)
            if not runner.goes_on:
                break
    return runner.ended


class _Runner:
    """The processes under way, and whether more may be begun."""

    def __init__(self, study: Study, work: Path, *, keep_runs: bool, minutes: float | None) -> None:
        self._study, self._work, self._keep_runs = study, work, keep_runs
        self._until = None if minutes is None else time.monotonic() + 60 * minutes
        self._running: set[Process] = set()
        self._lock = threading.RLock()  # a second Ctrl-C may come while the first is handled
        self.ended = Ended()

    @property
    def goes_on(self) -> bool:
        return not self.ended.stopped and not self.ended.failed

    def interruptible(self) -> _Interruptible:
        return _Interruptible(self.stop)

    def stop(self) -> None:
        """Begin nothing more, and ask the runs under way to end."""
        with self._lock:
            self.ended.stopped = True
            for process in self._running:
                process.terminate()

    def run(self, cells: Sequence[Cell], jobs: int, tell: Callable[[Progress], None]) -> None:
        """Train those without a record; after a failure or a stop no more is begun."""
        waiting = missing(self._study, cells, self._work)
        done = len(cells) - len(waiting)
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            under_way: set[Future[str | None]] = set()
            while waiting or under_way:
                while waiting and len(under_way) < jobs and self._may_begin():
                    under_way.add(pool.submit(self._train, waiting.pop(0)))
                if not under_way:
                    self.ended.stopped = True
                    return
                finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in finished:
                    text = future.result()
                    if text is not None:
                        done += 1
                        phase = f"{cells[0].policy} {cells[0].phase}"
                        tell(Progress(phase=phase, done=done, total=len(cells), text=text))

    def _may_begin(self) -> bool:
        return self.goes_on and (self._until is None or time.monotonic() < self._until)

    def _train(self, prepared: Prepared) -> str | None:
        """Train one run and keep its record; what it did in a line, None where it did not finish."""
        began = time.monotonic()
        log = prepared.directory.with_name(prepared.directory.name + ".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        start = "--resume" if prepared.directory.exists() else "--overwrite"
        process = self._started(prepared, [str(self._study.run_file), *prepared.overrides, start], log)
        code = process.wait()
        with self._lock:
            self._running.discard(process)
        if code != 0 or not (prepared.directory / "summary.json").is_file():
            if not self.ended.stopped:
                how = f"exit code {code}" if code else "it was stopped"
                self.ended.failed.append(f"{prepared.cell.told}: {how}, see {log}")
            return None
        record = take_record(prepared, prepared.directory)
        write_record(record_path(self._study, prepared.cell), record)
        if not self._keep_runs:
            shutil.rmtree(prepared.directory)
            log.unlink()
        last = max(record.steps(record.evaluations[0].split))
        accuracies = ", ".join(f"{one.split} {one.accuracy:.1%}" for one in record.evaluations if one.step == last)
        return f"{prepared.cell.told}: {accuracies} ({time.monotonic() - began:.0f} s)"

    def _started(self, prepared: Prepared, arguments: Sequence[str], log: Path) -> Process:
        with self._lock:
            process = start_run(arguments, log, forked=prepared.forked)
            self._running.add(process)
            if self.ended.stopped:
                process.terminate()
        return process


class _Interruptible:
    """While it is open, Ctrl-C and SIGTERM call `stop` in place of what they did."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop

    def __enter__(self) -> None:
        self._before = {
            number: signal.signal(number, lambda *_: self._stop()) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
