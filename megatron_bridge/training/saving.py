"""The checkpoints that a run writes, one at a time: at once, or in threads while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from megatron_bridge.checkpoint import PendingCheckpoint
from megatron_bridge.run_settings import CheckpointSettings
from megatron_bridge.training.optimize import Trainer
from megatron_bridge.training.timings import Timings


class Saving:
    """Every method is collective over all ranks, and raises CheckpointError on every rank where writing failed."""

    def __init__(self, directory: Path, settings: CheckpointSettings, trainer: Trainer, timings: Timings) -> None:
        self._directory, self._settings = directory, settings
        self._trainer, self._timings = trainer, timings
        self._pending: PendingCheckpoint | None = None

    def begin(
        self,
        step: int,
        models: Mapping[str, torch.nn.ModuleList],
        *,
        extra: Mapping[str, Any],
        meta: Mapping[str, Any],
    ) -> None:
        """Save the state after `step`, when the checkpoint before it is finished."""
        self.finish()
        with self._timings.part("save"):
            self._pending = PendingCheckpoint(
                self._directory,
                step=step,
                models=models,
                optimizer=self._trainer.optimizer,
                scheduler=self._trainer.scheduler,
                extra=extra,
                meta=meta,
                keep_last=self._settings.keep,
                keep_best=self._settings.best,
                background=self._settings.asynchronous,
            )
        if not self._settings.asynchronous:
            self.finish()

    def finish_written(self) -> None:
        """Finish the checkpoint that is under way if no rank writes at it any more."""
        if self._pending is not None and self._pending.written():
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint that is under way, if there is one."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._timings.part("save"):
                pending.finish()
