"""Lints, formats and plans mutated and random specs, and says which properties do not hold for which.

    python tools/fuzz_specs.py --cases 1000000 --seed 0 --workers 2

The same seed gives the same cases, whatever the number of workers. Cases that fail are made smaller and written to a
folder, with what they raised. Exits with 1 when there are any.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.fuzzing.properties import Outcome, Violation, check
from tools.fuzzing.texts import case

CHUNK = 250
ALLOCATIONS = 50_000  # between two looks of the cycle collector; at Python's 700 they are a third of the time
HANGS = 20  # seconds of processor time after which a case counts as one that never ends
MOST_FAILURES = 50
LOGGED = 25_000  # where there is no bar, a line each so many cases


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    number: int
    text: str
    reason: str
    kind: str


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of some cases."""

    cases: int = 0
    parsed: int = 0
    clean: int = 0
    findings: int = 0
    slowest: float = 0.0
    slowest_case: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.parsed += other.parsed
        self.clean += other.clean
        self.findings += other.findings
        if other.slowest > self.slowest:
            self.slowest, self.slowest_case = other.slowest, other.slowest_case
        self.failures.extend(other.failures)


def examined(number: int, text: str) -> Outcome | Failure:
    """What the properties say of a text, or why it fails; one that takes HANGS seconds of processor time fails."""
    signal.signal(signal.SIGPROF, _hang)
    signal.setitimer(signal.ITIMER_PROF, HANGS)
    try:
        return check(text, number)
    except Exception as error:  # whatever is raised is a finding of this tool
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{Path(frames[-1].filename).name}:{frames[-1].name}"
        words = str(error).split(":")[0] if isinstance(error, Violation) else where
        kind = f"{type(error).__name__}: {words}".translate(dict.fromkeys(map(ord, "0123456789.")))
        return Failure(number=number, text=text, reason="".join(traceback.format_exception(error)), kind=kind)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def failure_of(number: int, text: str) -> Failure | None:
    """Why a text fails, or None."""
    found = examined(number, text)
    return found if isinstance(found, Failure) else None


def chunk(work: tuple[int, range]) -> Tally:
    """Look at some cases."""
    seed, numbers = work
    tally = Tally()
    for number in numbers:
        text = case(seed, number)
        tally.cases += 1
        outcome = examined(number, text)
        if isinstance(outcome, Failure):
            tally.failures.append(outcome)
            continue
        tally.parsed += outcome.parses
        tally.clean += outcome.clean
        tally.findings += outcome.findings
        if outcome.seconds > tally.slowest:
            tally.slowest, tally.slowest_case = outcome.seconds, number
    return tally


def _hang(_signal: int, _frame: FrameType | None) -> None:
    raise Violation(f"not done after {HANGS} s")


def prepare_worker() -> None:
    """Ctrl-C is for the parent to answer."""
    gc.freeze()
    gc.set_threshold(ALLOCATIONS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def smaller(failure: Failure) -> Failure:
    """The same failure of a text with fewer lines and words, as far as a few hundred attempts lead."""
    attempts = 300
    for separator, width in (("\n", 4), ("\n", 1), (" ", 4), (" ", 2), (" ", 1)):
        at = 0
        parts = failure.text.split(separator)
        while at < len(parts) and attempts > 0:
            attempts -= 1
            shorter = failure_of(failure.number, separator.join(parts[:at] + parts[at + width :]))
            if shorter is not None and shorter.kind == failure.kind:
                failure, parts = shorter, parts[:at] + parts[at + width :]
            else:
                at += 1
    return failure


def run(cases: int, seed: int, workers: int) -> Tally:
    """Look at the cases 0 to `cases` of a seed, with a bar on a terminal."""
    work = [(seed, range(begin, min(begin + CHUNK, cases))) for begin in range(0, cases, CHUNK)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    total = Tally()
    with multiprocessing.Pool(workers, prepare_worker) as pool, Progress(*columns) as bar:
        shown = bar.add_task("cases", total=cases)
        for tally in pool.imap_unordered(chunk, work):
            total.add(tally)
            for failure in tally.failures:  # at once: the run may be ended before its end
                print(f"case {failure.number} fails: {failure.kind}", flush=True)
            bar.update(shown, completed=total.cases, description=f"cases ({len(total.failures)} failed)")
            if not sys.stdout.isatty() and total.cases % LOGGED == 0:
                print(f"{total.cases} cases, {len(total.failures)} failed", flush=True)
            if len(total.failures) >= MOST_FAILURES:
                print(f"stopped after {MOST_FAILURES} failures", file=sys.stderr)
                pool.terminate()
                break
    return total


def written(failures: Iterable[Failure], folder: Path) -> int:
    """Write one small example of each kind of failure; gives how many kinds there are."""
    kinds: dict[str, Failure] = {}
    for failure in sorted(failures, key=lambda one: len(one.text)):
        kinds.setdefault(failure.kind, failure)
    for index, failure in enumerate(kinds.values()):
        folder.mkdir(parents=True, exist_ok=True)
        small = smaller(failure)
        text = small.text.encode("utf-8", "surrogatepass")
        path = folder / f"{index:02}_case_{failure.number}.trace"
        path.write_bytes(text)
        (folder / f"{index:02}_case_{failure.number}.txt").write_text(
            f"{small.reason}\n{small.text!r}\n", encoding="utf-8"
        )
    return len(kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--failures", type=Path, default=Path("fuzz-failures"), help="where cases that fail are written"
    )
    given = parser.parse_args()
    begun = time.perf_counter()
    total = run(given.cases, given.seed, given.workers)
    took = time.perf_counter() - begun
    print(f"{total.cases} cases of seed {given.seed} in {took:.0f} s: {total.cases / took:.0f} cases/s")
    print(f"  {total.parsed} parse, {total.clean} are clean, {total.findings} findings in the others")
    print(f"  slowest: {total.slowest:.2f} s of processor time, case {total.slowest_case}")
    if total.failures:
        prepare_worker()
        kinds = written(total.failures, given.failures)
        print(f"  {len(total.failures)} cases fail, in {kinds} ways: see {given.failures}")
        sys.exit(1)
    print("  every property holds")


if __name__ == "__main__":
    main()
