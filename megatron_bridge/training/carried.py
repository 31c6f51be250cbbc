"""What a checkpoint carries of a run beside models and optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron_bridge.verdict import CheckpointError

# What is kept beside models and optimizer.
EXTRA = ("trained_tokens", "exposure", "latches", "data", "before", "teachers")


def check_complete(checkpoint: Path, extra: Mapping[str, Any]) -> None:
    """Raises CheckpointError for a checkpoint that lacks what a run needs to go on exactly."""
    missing = [name for name in EXTRA if name not in extra]
    if missing:
        raise CheckpointError(
            f"cannot go on from {checkpoint}: it lacks {', '.join(missing)}, which this version keeps in a checkpoint; "
            "go on with the version that saved it, or start a new run with another name=..."
        )
