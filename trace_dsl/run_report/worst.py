"""The rollouts that went worst, and those that nobody could judge or annotate, of what a run kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trace_dsl.errors import RunFileError
from trace_dsl.run_report.read import Run

WORST = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A rollout that a run kept. failure: why it has no verdict; missing: why no annotation; spans: (start, end, label)
    in characters.
    """

    step: int
    line: int
    group: str
    prompt: str
    response: str
    finish: str
    reward: float
    advantage: float | None
    reason: str
    failure: str
    missing: str
    note: str
    spans: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStep:
    """The rollouts of one step."""

    step: int
    path: Path
    rollouts: tuple[Kept, ...]


def kept_steps(run: Run) -> tuple[KeptStep, ...]:
    """Every rollout that the run kept. Raises RunFileError for a line that no run wrote."""
    return tuple(KeptStep(step=step, path=path, rollouts=tuple(_read(step, path))) for step, path in run.rollouts)


def worst(steps: Sequence[KeptStep], most: int = WORST) -> tuple[Kept, ...]:
    """Those with the lowest advantage, then the lowest reward; one of each prompt, later steps first."""
    every = [one for step in steps for one in step.rollouts]
    every.sort(key=lambda one: (one.advantage or 0.0, one.reward, -one.step, one.line))
    found: dict[tuple[int, str], Kept] = {}
    for one in every:
        if (one.advantage or 0.0) < 0 or one.reward <= 0 or one.failure or one.missing:
            found.setdefault((one.step, one.group), one)
    return tuple(found.values())[:most]


def _read(step: int, path: Path) -> Iterator[Kept]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunFileError(f"{path} cannot be read: {error}") from error
    for number, written in enumerate(text.rstrip("\n").split("\n"), start=1):
        try:
            yield _kept(step, number, json.loads(written))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise RunFileError(f"{path}: line {number} is no rollout that a run wrote: {why}") from error


def _kept(step: int, number: int, line: dict[str, Any]) -> Kept:
    advantage = line.get("advantage")
    for name in ("prompt", "response"):
        if not isinstance(line[name], str):
            raise TypeError(f"{name} is {line[name]!r}, not a text")
    return Kept(
        step=step,
        line=number,
        group=str(line.get("group", number)),
        prompt=line["prompt"],
        response=line["response"],
        finish=str(line.get("finish") or ""),
        reward=float(line["reward"]),
        advantage=None if advantage is None else float(advantage),
        reason=str(line.get("reason") or ""),
        failure=str(line.get("verifier_failure") or ""),
        missing=str(line.get("annotation_missing") or ""),
        note=str(line.get("annotation_note") or ""),
        spans=tuple(sorted((int(s["start"]), int(s["end"]), str(s["label"])) for s in line.get("spans", ()))),
    )
