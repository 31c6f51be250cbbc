"""A run directory, read strictly: its settings, spec and plan, metrics, evaluations, and which rollouts it kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_bridge.rank_log import Doing, read_doing
from megatron_bridge.run_file import flat
from megatron_bridge.settings_text import read_settings
from trace_dsl.errors import RunFileError
from trace_dsl.spec_files import read_spec_bytes

Metrics = Mapping[str, float | int | None]
_ROLLOUTS = re.compile(r"step_(\d+)\.jsonl")
_PLAN_FORMAT = 1
_EVALUATED: Mapping[str, type | tuple[type, ...]] = {
    "split": str,
    "problems": int,
    "accuracy": (int, float),
    "mean_tokens": (int, float),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One evaluation after `step` steps. solved: "1" for each problem that was solved, "" where the run did not say."""

    step: int
    split: str
    accuracy: float
    problems: int
    mean_tokens: float
    solved: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is known of one run. settings: `a.b` names of run.yaml; plan: plan.json, None where another version wrote
    it; rollouts: the step and file of each; changes: the steps from which the objective was another one.
    """

    path: Path
    name: str
    settings: Mapping[str, Any]
    spec_text: str
    plan: Mapping[str, Any] | None
    metrics: tuple[Metrics, ...]
    evaluations: tuple[Evaluated, ...]
    summary: Mapping[str, Any] | None
    rollouts: tuple[tuple[int, Path], ...]
    changes: tuple[int, ...]
    doing: Doing | None

    @property
    def total_steps(self) -> int:
        steps: int = self.settings["steps"]
        return steps

    @property
    def done_steps(self) -> int:
        return int(self.metrics[-1]["step"] or 0) + 1 if self.metrics else 0

    @property
    def finished(self) -> bool:
        return self.summary is not None and self.done_steps >= self.total_steps

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.split for one in self.evaluations))


def read_runs(paths: Sequence[Path]) -> tuple[Run, ...]:
    """The runs of some directories, with names that tell them apart. Raises RunFileError."""
    resolved = [path.resolve() for path in paths]
    for n, path in enumerate(resolved):
        if path in resolved[:n]:
            raise RunFileError(f"{paths[n]} is given twice: a comparison is of different runs")
    names = [path.name for path in resolved]
    told = [
        name if names.count(name) == 1 else f"{path.parent.name}/{name}"
        for name, path in zip(names, resolved, strict=True)
    ]
    told = [name if told.count(name) == 1 else str(path) for name, path in zip(told, resolved, strict=True)]
    return tuple(read_run(path, name) for path, name in zip(paths, told, strict=True))


def read_run(path: Path, name: str) -> Run:
    """One run, under a name. Raises RunFileError for what is no run directory, and for a line that no run wrote."""
    if not path.is_dir():
        raise RunFileError(f"{path} is no directory: name that of a run, such as runs/demo")
    for needed in ("run.yaml", "spec.trace"):
        if not (path / needed).is_file():
            raise RunFileError(f"{path} is no run directory: it has no {needed}; name that of a run, such as runs/demo")
    settings = flat(read_settings(path / "run.yaml"))
    if not isinstance(settings.get("steps"), int):
        raise RunFileError(f"{path / 'run.yaml'}: steps: {settings.get('steps')!r} is no number of steps")
    folder = path / "rollouts"
    found = ((_ROLLOUTS.fullmatch(file.name), file) for file in (folder.iterdir() if folder.is_dir() else ()))
    return Run(
        path=path,
        name=name,
        settings=settings,
        spec_text=read_spec_bytes(str(path / "spec.trace")).text,
        plan=_plan(path / "plan.json"),
        metrics=tuple(_metrics(path / "metrics.jsonl")),
        evaluations=tuple(_evaluations(path / "evaluations.jsonl")),
        summary=_summary(path / "summary.json"),
        rollouts=tuple(sorted((int(match[1]), file) for match, file in found if match)),
        changes=tuple(int(line["step"]) for _, line in _lines(path / "changes.jsonl")),
        doing=_doing(path),
    )


def _metrics(path: Path) -> Iterator[Metrics]:
    last = -1
    for number, line in _lines(path):
        for name, value in line.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise RunFileError(f"{path}: line {number}: {name} is {value!r}, not a number or null")
        if line["step"] <= last:
            raise RunFileError(f"{path}: line {number}: step {line['step']} stands behind step {last}")
        last = line["step"]
        yield line


def _evaluations(path: Path) -> Iterator[Evaluated]:
    for number, line in _lines(path):
        for name, kind in _EVALUATED.items():
            if not isinstance(line.get(name), kind) or isinstance(line[name], bool):
                raise RunFileError(f"{path}: line {number}: {name} is {line.get(name)!r}; an evaluation says it")
        solved = line.get("solved", "")
        if not isinstance(solved, str) or set(solved) - {"0", "1"}:
            raise RunFileError(f"{path}: line {number}: solved is {solved!r}, not a text of 0 and 1")
        yield Evaluated(step=line["step"], solved=solved, **{name: line[name] for name in _EVALUATED})


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line that has a step; a last line without its end is being written, and left out."""
    for number, text in enumerate(_text(path).split("\n")[:-1], start=1):
        if not text:
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise RunFileError(f"{path}: line {number} is not JSON: {error}") from error
        if not isinstance(line, dict) or not isinstance(line.get("step"), int) or isinstance(line["step"], bool):
            raise RunFileError(f"{path}: line {number} has no step: it is no line that a run wrote")
        if line["step"] < 0:
            raise RunFileError(f"{path}: line {number}: step {line['step']} is below 0")
        yield number, line


def _text(path: Path) -> str:
    """The text of a file, "" where there is none."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except OSError as error:
        raise RunFileError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise RunFileError(f"{path} is not UTF-8 text (byte {error.start})") from error


def _object(path: Path, what: str) -> dict[str, Any] | None:
    text = _text(path)
    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RunFileError(f"{path} is not {what}: {error}") from error
    if not isinstance(value, dict):
        raise RunFileError(f"{path} is not {what}: it holds no object")
    return value


def _summary(path: Path) -> dict[str, Any] | None:
    found = _object(path, "the summary of a run")
    for name in ("accuracy_before", "accuracy_after", "held_out_problems", "seconds", "trained_tokens"):
        value = (found or {}).get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RunFileError(f"{path} is not the summary of a run: {name} is {value!r}, not a number")
    return found


def _plan(path: Path) -> dict[str, Any] | None:
    found = _object(path, "the plan of a run")
    return found if found is not None and found.get("format") == _PLAN_FORMAT else None


def _doing(path: Path) -> Doing | None:
    try:
        return read_doing(path, 0)
    except (ValueError, KeyError, TypeError) as error:
        raise RunFileError(f"{path / 'logs' / 'rank_0.now'} is not what a rank wrote: {error}") from error
