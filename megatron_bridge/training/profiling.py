"""The profiler of a run, on from one step to another: torch's own, or marks for Nsight Systems."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from megatron_bridge.log_settings import ProfileSettings
from trace_dsl.errors import RunFileError


class StepProfiler:
    """Profiles the steps that the run file names, on this rank.

    torch: a Chrome trace in `directory`/profile, which ui.perfetto.dev opens. nsys: cudaProfilerStart and Stop around
    the steps, NVTX ranges for their parts. Raises RunFileError for nsys without CUDA.
    """

    def __init__(self, settings: ProfileSettings | None, directory: Path, *, rank: int) -> None:
        if settings is not None and settings.tool == "nsys" and not torch.cuda.is_available():
            raise RunFileError("profile.tool: nsys needs a CUDA device, and there is none: set it to torch")
        self._settings, self._directory, self._rank = settings, directory, rank
        self._trace: torch.profiler.profile | None = None
        self._first = 0
        self._on = False

    def at(self, step: int) -> None:
        """Start or stop before optimizer step `step`, or where the run has come to its end."""
        if self._settings is None:
            return
        first, end = self._settings.steps
        if self._on and step >= end:
            self._stop(step)
        elif not self._on and first <= step < end:
            self._start(step)

    def close(self, step: int) -> None:
        """Stop after so many steps, where it is on."""
        if self._on:
            self._stop(step)

    def mark(self, name: str) -> AbstractContextManager[Any]:
        """A block that the profiler shows under this name, while it is on."""
        if not self._on:
            return contextlib.nullcontext()
        return torch.profiler.record_function(name) if self._trace else torch.cuda.nvtx.range(name)

    def _start(self, step: int) -> None:
        assert self._settings is not None
        self._on, self._first = True, step
        if self._settings.tool == "nsys":
            torch.cuda.profiler.start()  # type: ignore[no-untyped-call]
            return
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._trace = torch.profiler.profile(activities=activities)
        self._trace.start()

    def _stop(self, step: int) -> None:
        self._on = False
        if self._trace is None:
            torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]
            return
        self._trace.stop()
        folder = self._directory / "profile"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"steps_{self._first:06d}_{step:06d}_rank_{self._rank}.json.gz"
        partial = folder / f"partial_{name}"
        self._trace.export_chrome_trace(str(partial))
        os.replace(partial, folder / name)
        self._trace = None
