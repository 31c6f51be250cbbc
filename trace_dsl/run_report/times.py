"""Where a run's time goes: shares of phases over the whole run, and its slowest steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trace_dsl.run_report.read import Metrics, Run

# The parts of a step that stand behind each other, and what each consists of.
WHOLE = (
    ("sample", "waiting for rollouts", ("sync", "rollout", "verify", "annotate")),
    ("train", "training", ("measure", "teacher", "forward_backward")),
    ("evaluate", "evaluation", ()),
    ("save", "checkpoints", ()),
)
NAMES = {
    "sync": "giving the engine the weights",
    "rollout": "drawing responses",
    "verify": "verdicts",
    "annotate": "annotation",
    "measure": "measured signals and old log-probs",
    "teacher": "teachers",
    "forward_backward": "forward and backward",
}
REST = {"sample": "other waiting", "train": "update and the rest"}
_SMALL = 0.001  # of a whole: less is counted to the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Seconds of one phase over the run. within: the part that it belongs to."""

    name: str
    seconds: float
    within: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """parts: they add up to `total`; overlapping: titles of the wholes whose phases ran beside each other, and which
    are therefore not taken apart."""

    parts: tuple[Part, ...]
    total: float
    overlapping: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStep:
    """One step with the seconds of its wholes, in the order of WHOLE."""

    step: int
    seconds: float
    wholes: tuple[float, ...]


def _seconds(line: Metrics, phase: str) -> float:
    value = line.get(f"perf/{phase}_seconds")
    return float(value) if value is not None and math.isfinite(value) else 0.0


def times(run: Run) -> Times | None:
    """The parts of the run's time; None where it wrote no seconds."""
    if not any(f"perf/{name}_seconds" in line for line in run.metrics for name, _, _ in WHOLE):
        return None
    parts: list[Part] = []
    overlapping = []
    for name, title, phases in WHOLE:
        whole = sum(_seconds(line, name) for line in run.metrics)
        inner = [(phase, sum(_seconds(line, phase) for line in run.metrics)) for phase in phases]
        rest = whole - sum(seconds for _, seconds in inner)
        if not any(seconds for _, seconds in inner):
            parts.append(Part(name=title, seconds=whole, within=name))
        elif rest < -0.01 * whole:
            overlapping.append(title)
            parts.append(Part(name=title, seconds=whole, within=name))
        else:
            large = [(phase, seconds) for phase, seconds in inner if seconds >= _SMALL * whole]
            parts += [Part(name=NAMES[phase], seconds=seconds, within=name) for phase, seconds in large]
            left = max(0.0, whole - sum(seconds for _, seconds in large))
            parts.append(Part(name=REST[name], seconds=left, within=name))
    kept = tuple(part for part in parts if part.seconds > 0)
    return Times(parts=kept, total=sum(part.seconds for part in kept), overlapping=tuple(overlapping))


def slowest(run: Run, most: int = 5) -> tuple[SlowStep, ...]:
    """The steps that took longest, the longest first."""
    found: Sequence[SlowStep] = [
        SlowStep(step=int(line["step"] or 0), seconds=sum(wholes), wholes=wholes)
        for line in run.metrics
        if (wholes := tuple(_seconds(line, name) for name, _, _ in WHOLE))
    ]
    return tuple(sorted(found, key=lambda one: (-one.seconds, one.step))[:most])
