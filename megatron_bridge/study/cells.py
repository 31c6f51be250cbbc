"""Which runs a study has, and what each is given."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from megatron_bridge.atomic import write_text
from megatron_bridge.prepare import prepare_run
from megatron_bridge.study.settings import LET, Point, Study

# Settings that name a run and where things are: they change nothing that is measured.
_NAMES = {"name", "output", "spec", "policy", "save_rollouts_every", "checkpoint", "logging", "heartbeat_timeout"}


class Phase(StrEnum):
    """search: settings are tried; report: what is reported is measured."""

    SEARCH = "search"
    REPORT = "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of the study. `point` are the settings it tries, or was chosen."""

    policy: str
    method: str
    phase: Phase
    seed: int
    point: Point

    @property
    def told(self) -> str:
        """`weak/grpo seed 1, optim.lr=0.0001`."""
        settings = "".join(f", {name}={value}" for name, value in self.point)
        return f"{self.policy}/{self.method} seed {self.seed}{settings}"

    @property
    def key(self) -> str:
        """The name of its files: as long as settings are the same, so is it."""
        point = hashlib.sha256(json.dumps(self.point).encode()).hexdigest()[:8]
        return f"seed{self.seed}-{point}" if self.phase is Phase.SEARCH else f"seed{self.seed}"

    @property
    def name(self) -> str:
        """Of its run."""
        return f"{self.policy}.{self.method}.{self.phase}.{self.key}"


def search_cells(study: Study, policy: str, method: str) -> tuple[Cell, ...]:
    """The runs on which a method's settings are chosen on a policy; none where there is but one setting."""
    points = study.file.methods[method].points
    if len(points) == 1:
        return ()
    return tuple(
        Cell(policy=policy, method=method, phase=Phase.SEARCH, seed=seed, point=point)
        for point in points
        for seed in study.file.search_seeds
    )


def report_cells(study: Study, policy: str, method: str, point: Point) -> tuple[Cell, ...]:
    """The runs that are reported of a method on a policy, under the chosen settings."""
    return tuple(
        Cell(policy=policy, method=method, phase=Phase.REPORT, seed=seed, point=point)
        for seed in study.file.policies[policy].seeds
    )


def pairs(study: Study) -> Iterator[tuple[str, str]]:
    """Every policy with each of its methods."""
    for policy in study.file.policies:
        for method in study.methods_on(policy):
            yield policy, method


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that can be started: `overrides` of the run file; `fingerprint` of all that decides what it measures.

    forked: it may be forked off (`processes.start_run`).
    """

    cell: Cell
    directory: Path
    overrides: tuple[str, ...]
    fingerprint: str
    forked: bool


def prepare_cell(study: Study, cell: Cell, work: Path) -> Prepared:
    """Write the spec of a run into `work`, and check all of it. Raises RunFileError or SpecError."""
    method = study.file.methods[cell.method]
    lets = {name.removeprefix(LET): value for name, value in cell.point if name.startswith(LET)}
    settings = {**method.set, **{name: value for name, value in cell.point if not name.startswith(LET)}}
    run_folder = study.run_file.parent
    policy = study.path.parent / study.file.policies[cell.policy].policy_of(cell.seed)
    settings |= {
        "name": cell.name,
        "seed": cell.seed,
        "output": str(work),
        "spec": os.path.relpath(_spec(study, cell, lets, work), run_folder),
        "policy": os.path.relpath(policy, run_folder),
    }
    overrides = tuple(f"{name}={json.dumps(value)}" for name, value in settings.items())
    loaded, plan, _ = prepare_run(study.run_file, overrides)
    decides = {
        "plan": plan.hash,
        "settings": {name: value for name, value in loaded.file.model_dump(mode="json").items() if name not in _NAMES},
        "policy": _digest(loaded.policy_path),
    }
    fingerprint = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return Prepared(
        cell=cell,
        directory=loaded.directory,
        overrides=overrides,
        fingerprint=fingerprint,
        forked=loaded.file.layout.layout.world == 1 and loaded.file.logging.wandb is None,
    )


def _spec(study: Study, cell: Cell, lets: Mapping[str, object], work: Path) -> Path:
    """The method's spec; where lets are given another value, one that extends it."""
    spec = study.spec(cell.method)
    if not lets:
        return spec
    folder = work / "specs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{cell.name}.trace"
    lines = [f'extends "{os.path.relpath(spec, folder)}"', *(f"let {name} = {value}" for name, value in lets.items())]
    write_text(path, "\n".join(lines) + "\n")
    return path


def _digest(policy: Path) -> str:
    """Of the weights."""
    digest = hashlib.sha256()
    for path in sorted(policy.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
