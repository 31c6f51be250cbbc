"""What a run came to: accuracy before and after, how far it went, and how sure the difference is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from trace_dsl.run_report.read import Evaluated, Run
from trace_dsl.run_report.times import times


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Accuracy on a split at its first evaluation and its last, after so many steps. error: the standard error of the
    difference; gained, lost: problems that only the last, only the first solved, None where the run did not say which.
    """

    split: str
    problems: int
    first_step: int
    first: float
    last_step: int
    last: float
    error: float
    gained: int | None = None
    lost: int | None = None


def outcomes(run: Run) -> tuple[Outcome, ...]:
    """One for each split with two evaluations; from the summary where there is no evaluations.jsonl."""
    if not run.evaluations and run.summary is not None and "accuracy_after" in run.summary:
        return tuple(_from_summary(run))
    found = []
    for split in run.splits:
        own = [one for one in run.evaluations if one.split == split]
        if len(own) > 1:
            found.append(_between(own[0], own[-1]))
    return tuple(found)


def _between(first: Evaluated, last: Evaluated) -> Outcome:
    shared = len(first.solved) == len(last.solved) == first.problems == last.problems
    gained = lost = None
    if shared:
        pairs = list(zip(first.solved, last.solved, strict=True))
        gained, lost = pairs.count(("0", "1")), pairs.count(("1", "0"))
        n = first.problems
        error = math.sqrt(max(0.0, (gained + lost) / n - ((gained - lost) / n) ** 2) / n)
    else:
        error = math.hypot(_error(first.accuracy, first.problems), _error(last.accuracy, last.problems))
    return Outcome(
        split=first.split, problems=last.problems, first_step=first.step, first=first.accuracy, last_step=last.step,
        last=last.accuracy, error=error, gained=gained, lost=lost,
    )  # fmt: skip


def _from_summary(run: Run) -> Iterator[Outcome]:
    told = run.summary or {}
    if not {"accuracy_before", "held_out_problems"} <= told.keys():
        return
    before, after, problems = told["accuracy_before"], told["accuracy_after"], told["held_out_problems"]
    yield Outcome(
        split=str(told.get("evaluation_split", "held-out problems")), problems=problems, first_step=0, first=before,
        last_step=run.done_steps, last=after, error=math.hypot(_error(before, problems), _error(after, problems)),
    )  # fmt: skip


def _error(accuracy: float, problems: int) -> float:
    """The standard error of a share of problems."""
    return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / problems) if problems else 0.0


def state(run: Run) -> str:
    """How far the run went, in a sentence."""
    if run.finished:
        return f"Finished: all {run.total_steps} steps."
    if not run.metrics:
        told = "No step is done yet"
    else:
        told = f"Not finished: {run.done_steps} of {run.total_steps} steps are done"
        if isinstance(run.metrics[-1].get("time"), int | float):
            told += f", the last at {moment(float(run.metrics[-1]['time'] or 0))}"
    told += ". It is under way or was stopped"
    return f"{told}; rank 0 was last at: {run.doing}." if run.doing is not None else f"{told}."


def moment(seconds: float) -> str:
    """A time since the epoch, as people write it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def seconds_taken(run: Run) -> float | None:
    """Of its steps, with evaluations and checkpoints, as the page takes them apart; of a run that wrote no phases what
    it says, or from its first line to its last; None where nothing is known.
    """
    phases = times(run)
    if phases is not None:
        return phases.total
    if run.finished and run.summary is not None and "seconds" in run.summary:
        return float(run.summary["seconds"])
    clock = [line["time"] for line in run.metrics if line.get("time") is not None]
    return float(clock[-1] or 0) - float(clock[0] or 0) if len(clock) > 1 else None


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def trained_tokens(run: Run) -> int | None:
    """Response tokens that the run was trained on so far."""
    value = run.metrics[-1].get("trained_tokens") if run.metrics else None
    return None if value is None else int(value)
