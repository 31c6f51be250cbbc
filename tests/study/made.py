"""Studies and records made for tests, without a run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import yaml

from megatron_bridge.study.cells import Cell
from megatron_bridge.study.records import SERIES, Evaluated, Record, record_path, write_record
from megatron_bridge.study.settings import Study, load_study

ROOT = Path(__file__).parents[2]
STEPS = (0, 10, 20)
PROBLEMS = 64


def write_study(folder: Path, **changed: object) -> Path:
    """A study file of two methods with two settings each on the demo's policy; `changed` replaces settings of it."""
    specs = ROOT / "specs" / "study"
    settings = {
        "name": "small",
        "run": str(specs / "run.yaml"),
        "baseline": "grpo",
        "search_seeds": [100],
        "policies": {"weak": {"policy": str(ROOT / "specs" / "demo" / "policy"), "seeds": [1, 2, 3]}},
        "methods": {
            "grpo": {"spec": str(specs / "grpo.trace"), "search": {"optim.lr": [1e-4, 2e-4]}},
            "trace": {"spec": str(specs / "trace_both.trace"), "search": {"let w0": [0.5, 2.0]}},
        },
        **changed,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def made_study(folder: Path, **changed: object) -> Study:
    return load_study(write_study(folder, **changed))


def solved(rng: random.Random, share: float) -> str:
    return f"{sum((rng.random() < share) << n for n in range(PROBLEMS)):x}"


def make_record(
    study: Study, cell: Cell, accuracies: Sequence[float], *, fingerprint: str = "", inside: float = 8.0
) -> Record:
    """Write the record of a run that solved these shares after each of STEPS, on both splits."""
    rng = random.Random(f"{cell.seed}/{accuracies}")
    record = Record(
        policy=cell.policy,
        method=cell.method,
        phase=cell.phase,
        seed=cell.seed,
        point=dict(cell.point),
        fingerprint=fingerprint,
        seconds=1.0,
        versions={"trace-dsl": "0"},
        evaluations=tuple(
            Evaluated(step=step, split=split, problems=PROBLEMS, mean_tokens=45.0, solved=solved(rng, share))
            for step, share in zip(STEPS, accuracies, strict=True)
            for split in ("eval", "ood")
        ),
        series={
            **dict.fromkeys(SERIES, (0.5,) * STEPS[-1]),
            "kl_fraction": (0.1,) * 5 + (0.0,) * 15,
            "credit_inside": (inside,) * 5 + (1.0,) * 15,
            "credit_outside": (2.0,) * 20,
            "exposure": tuple(float(n) for n in range(20)),
        },
    )
    write_record(record_path(study, cell), record)
    return record
