"""What is kept of a run: small enough to be committed, enough for every table and plot."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_bridge.atomic import write_text
from megatron_bridge.study.cells import Cell, Phase, Prepared
from megatron_bridge.study.settings import Study
from trace_dsl.errors import RunFileError

# By the name it has in a record: a metric of each step.
SERIES = {
    "reward": "reward",
    "entropy": "policy/entropy",
    "mean_tokens": "rollout/mean_tokens",
    "kl_fraction": "kl_fraction",
    "credit_inside": "train/credit/inside",
    "credit_outside": "train/credit/outside",
}
DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """An evaluation after `step` steps on `split`; solved: hexadecimal, a bit for each problem, the first highest."""

    step: int
    split: str
    problems: int
    mean_tokens: float
    solved: str

    @property
    def outcomes(self) -> tuple[bool, ...]:
        """Of each problem, whether it was solved."""
        bits = f"{int(self.solved, 16):0{self.problems}b}"
        return tuple(bit == "1" for bit in bits)

    @property
    def accuracy(self) -> float:
        return int(self.solved, 16).bit_count() / self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one run measured. series: by name in SERIES, and `exposure`, a value a step, None where there was none;
    exposure adds up the weights of divergences over all tokens so far, before denominators.
    """

    policy: str
    method: str
    phase: str
    seed: int
    point: dict[str, Any]
    fingerprint: str
    seconds: float
    versions: dict[str, str]
    evaluations: tuple[Evaluated, ...]
    series: dict[str, tuple[float | None, ...]]

    def at(self, split: str, step: int) -> Evaluated:
        """The evaluation of a split after so many steps."""
        return next(one for one in self.evaluations if one.split == split and one.step == step)

    def steps(self, split: str) -> tuple[int, ...]:
        """After which steps a split was evaluated."""
        return tuple(one.step for one in self.evaluations if one.split == split)


def record_path(study: Study, cell: Cell) -> Path:
    return study.results / "records" / cell.policy / cell.method / cell.phase / f"{cell.key}.json"


def take_record(prepared: Prepared, directory: Path) -> Record:
    """Read a finished run's files."""
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    metrics = _lines(directory / "metrics.jsonl")
    divergences = _divergences(directory)
    series: dict[str, tuple[float | None, ...]] = {
        name: tuple(_rounded(step.get(metric)) for step in metrics) for name, metric in SERIES.items()
    }
    series["exposure"] = tuple(
        _rounded(math.fsum(step.get(f"train/route/{name}/exposure") or 0.0 for name in divergences)) for step in metrics
    )
    return Record(
        policy=prepared.cell.policy,
        method=prepared.cell.method,
        phase=prepared.cell.phase,
        seed=prepared.cell.seed,
        point=dict(prepared.cell.point),
        fingerprint=prepared.fingerprint,
        seconds=round(summary["seconds"], 1),
        versions=summary["versions"],
        evaluations=tuple(
            Evaluated(
                step=one["step"],
                split=one["split"],
                problems=one["problems"],
                mean_tokens=round(one["mean_tokens"], 3),
                solved=f"{int(one['solved'], 2):x}",
            )
            for one in _lines(directory / "evaluations.jsonl")
        ),
        series=series,
    )


def write_record(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asdict(record), indent=1) + "\n")


def read_record(path: Path) -> Record:
    """Raises RunFileError for a file that is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        evaluations = tuple(Evaluated(**one) for one in found.pop("evaluations"))
        series = {name: tuple(values) for name, values in found.pop("series").items()}
        return Record(**found, evaluations=evaluations, series=series)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFileError(f"{path} is no record of a run ({error}); delete it, and the run is made again") from error


def records_of(study: Study, phase: Phase | None = None) -> tuple[Record, ...]:
    """All records that the study has so far, in the order of their files."""
    paths = sorted((study.results / "records").glob("*/*/*/*.json"))
    return tuple(record for record in map(read_record, paths) if phase is None or record.phase == phase)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _divergences(directory: Path) -> Sequence[str]:
    """The losses that pull towards a teacher, as the metrics name them."""
    plan = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
    return [name for route in plan["routes"] for name in _names(route)]


def _names(route: Mapping[str, Any]) -> Sequence[str]:
    return [loss["name"] for loss in route["losses"] if loss["teacher"] is not None]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
