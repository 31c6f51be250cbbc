"""Checkpoints as files on disk: which are whole, which is the last, what they say of themselves. No torch here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from megatron_bridge.atomic import write_text

LATEST = "latest"
META = "meta.json"
ACCURACY = "accuracy"  # in meta.json: of the weights, on held-out problems
_STEP = re.compile(r"step_(\d{6,})")


def checkpoint_name(step: int) -> str:
    """The directory name of a step: `step_000040`."""
    return f"step_{step:06d}"


def checkpoints(directory: str | Path) -> list[Path]:
    """The whole checkpoints in `directory`, oldest step first; partial ones are left out."""
    directory = Path(directory)
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if _STEP.fullmatch(path.name) and (path / META).is_file()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))


def latest_checkpoint(directory: str | Path) -> Path | None:
    """The checkpoint that `latest` names, else the last whole one, else None."""
    whole = checkpoints(directory)
    pointer = Path(directory) / LATEST
    if pointer.is_file():
        named = Path(directory) / pointer.read_text(encoding="utf-8").strip()
        if named in whole:
            return named
    return whole[-1] if whole else None


def best_checkpoint(directory: str | Path) -> Path | None:
    """Of the whole checkpoints that were evaluated, the one with the highest accuracy, the earliest of several."""
    found = [(path, read_meta(path).get(ACCURACY)) for path in checkpoints(directory)]
    return max(((p, a) for p, a in found if a is not None), key=lambda pair: pair[1], default=(None, None))[0]


def note_accuracy(path: Path, accuracy: float) -> None:
    """Add to a checkpoint what its weights solve of the held-out problems. Raises OSError."""
    write_text(path / META, json.dumps({**read_meta(path), ACCURACY: accuracy}, indent=2) + "\n")


def read_meta(path: str | Path) -> dict[str, Any]:
    """`meta.json` of a checkpoint: step, layout, package versions, and what the trainer put there."""
    return json.loads((Path(path) / META).read_text(encoding="utf-8"))
