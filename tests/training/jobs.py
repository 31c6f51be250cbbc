"""Start real training jobs in subprocesses, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RUN = "specs/demo/run.yaml"
ROW = {"question": "34 | +41", "answer": "answer 75"}
# a small batch of the demo's task: 8 prompts x 4 rollouts
SMALL = ("rollout.prompts=8", "rollout.group_size=4", "micro_batch=8", "evaluation.problems=32", "checkpoint.every=2")


def command(
    output: Path,
    name: str,
    overrides: Sequence[str],
    *,
    ranks: int,
    flags: Sequence[str] = (),
    module: str = "megatron_bridge.train",
    restarts: int = 0,
) -> list[str]:
    """The command line of a job of `ranks` processes; tensor-parallel unless `overrides` say otherwise."""
    layout = [] if any(o.startswith("layout.") for o in overrides) else [f"layout.tp={ranks}"]
    return [
        sys.executable,
        *("-m", "torch.distributed.run", "--nproc-per-node", str(ranks)),
        *("--max-restarts", str(restarts)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"),
        *("-m", module, RUN, f"output={output}", f"name={name}"),
        *SMALL,
        *layout,
        *overrides,
        *flags,
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def train(
    output: Path,
    name: str,
    *overrides: str,
    ranks: int = 1,
    flags: Sequence[str] = (),
    check: bool = True,
    change: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a job to its end; `change` names what `changed_job` makes happen in it."""
    module = "megatron_bridge.train" if change is None else "tests.training.changed_job"
    done = subprocess.run(
        command(output, name, overrides, ranks=ranks, flags=flags, module=module),
        env=environment() | ({} if change is None else {"CHANGE": change}),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if check:
        assert done.returncode == 0, done.stderr[-4000:]
    return done


def metrics(output: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / name / "metrics.jsonl").read_text().splitlines()]


def summary(output: Path, name: str) -> dict[str, Any]:
    return json.loads((output / name / "summary.json").read_text())


def own_task(folder: Path, rows: list[str] | None = None, **change: Any) -> str:
    """An override that makes a task of `rows`, eight good ones where none are given; `change` are its settings."""
    (folder / "train.jsonl").write_text("\n".join(rows or [json.dumps(ROW)] * 8) + "\n")
    (folder / "held_out.jsonl").write_text(f"{json.dumps(ROW)}\n" * 32)
    splits = {"train": str(folder / "train.jsonl"), "eval": str(folder / "held_out.jsonl")}
    task = {
        "data": {"kind": "files", "shuffle": False, "splits": splits},
        "prompt": {"template": "{question} =\n"},
        "verifier": {"kind": "exact"},
    }
    return f"task={json.dumps(task | change)}"
