"""Metrics to Weights & Biases. Nothing else imports the package, and only a run that asks for it imports this."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from megatron_bridge.atomic import write_text
from megatron_bridge.log_settings import WandbSettings
from trace_dsl.errors import RunFileError

_RUN_ID = "wandb_run_id"


class WandbLog:
    """One W&B run for one run directory: its id is kept there, so a run that goes on is the same one.

    Raises RunFileError where W&B refuses the run.
    """

    def __init__(self, directory: Path, settings: WandbSettings, *, name: str, config: Mapping[str, Any]) -> None:
        kept = directory / _RUN_ID
        if not kept.is_file():
            write_text(kept, secrets.token_hex(4) + "\n")
        try:
            self._run = wandb.init(
                project=settings.project,
                entity=settings.entity,
                mode=settings.mode,
                name=name,
                id=kept.read_text(encoding="utf-8").strip(),
                resume="allow",
                dir=str(directory),
                config=dict(config),
                settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
            )
        except wandb.Error as error:
            raise RunFileError(f"logging.wandb: W&B refused the run: {error}") from error

    def log(self, step: int, metrics: Mapping[str, float | int | None]) -> None:
        """Send numbers of a step. A step that W&B has already, of before a run was resumed, is not sent twice."""
        self._run.log({name: value for name, value in metrics.items() if value is not None}, step=step)

    def close(self, *, failed: bool) -> None:
        """Wait until everything is sent or on disk, and say how the run ended."""
        self._run.finish(exit_code=int(failed))
