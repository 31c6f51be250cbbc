"""When the phases of a schedule begin, in steps of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trace_dsl.checks.reading import advantage_of, channels_of, predicates_of
from trace_dsl.expressions import schedules_of
from trace_dsl.model import Place, Spec
from trace_dsl.terms import Length, RunFraction, Schedule, Steps, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The steps at which a schedule reaches its weight, begins to go down, and is at its floor."""

    full: float
    down: float
    end: float


def timeline(schedule: Schedule, total_steps: int) -> Timeline | None:
    """The phases in steps; None for a schedule over tokens, whose steps are not known before the run."""
    anneal = schedule.anneal
    lengths = [schedule.start, schedule.ramp, schedule.warmup]
    if anneal is not None and anneal.length is not None:
        lengths.append(anneal.length)
    steps = [_steps(length, total_steps) for length in lengths]
    known = [count for count in steps if count is not None]
    if len(known) < len(steps):
        return None
    full = known[0] + known[1]
    down = full + known[2]
    if anneal is None:
        end = down
    elif anneal.length is None:
        end = max(down, float(total_steps))
    else:
        end = down + known[3]
    return Timeline(full=full, down=down, end=end)


def _steps(length: Length, total_steps: int) -> float | None:
    match length:
        case Steps(count):
            return float(count)
        case RunFraction(fraction):
            return fraction * total_steps
        case Tokens():
            return None


def schedules_with_places(spec: Spec) -> Iterator[tuple[Schedule, Place]]:
    """Every schedule the run would follow, each once, with the first place that uses it."""
    seen: set[Schedule] = set()
    for _, channel in channels_of(spec):
        for expr in (channel.weight, advantage_of(channel)):
            for schedule in () if expr is None else schedules_of(expr):
                if schedule not in seen:
                    seen.add(schedule)
                    yield schedule, channel.place
    for when, place in predicates_of(spec):
        for schedule in schedules_of(when):
            if schedule not in seen:
                seen.add(schedule)
                yield schedule, place
