"""What a run file says of logging and profiling, and what is wrong with it on this machine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator

from megatron_bridge.rollout.settings import Count
from trace_dsl.strict_yaml import Strict

KEY_VARIABLE = "WANDB_API_KEY"


class WandbSettings(Strict):
    """Weights & Biases. The key is read from the environment variable WANDB_API_KEY and from nowhere else.

    entity: the user or team, None for the key's own; mode: online, or offline for files that `wandb sync` sends later.
    """

    project: Annotated[str, Field(min_length=1)]
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"


class LoggingSettings(Strict):
    """peak_tflops: what one device can do, for perf/mfu; None: by its name, where that is known."""

    wandb: WandbSettings | None = None
    peak_tflops: Annotated[float, Field(gt=0)] | None = None


class ProfileSettings(Strict):
    """steps: the first step to profile, and the first one that is not; tool: torch writes a trace of each rank, nsys
    marks ranges for a run under `nsys profile`.
    """

    steps: Annotated[list[Count], Field(min_length=2, max_length=2)]
    tool: Literal["torch", "nsys"] = "torch"

    @field_validator("steps")
    @classmethod
    def _a_range(cls, steps: list[int]) -> list[int]:
        if steps[0] >= steps[1]:
            raise ValueError("it holds no step, since the second is the first step that is not profiled")
        return steps


def profile_problems(profile: ProfileSettings | None, *, steps: int) -> Iterator[tuple[str, str]]:
    """(setting, what is wrong with it) in a run of so many steps."""
    if profile is not None and profile.steps[1] > steps:
        yield "profile.steps", f"{profile.steps} ends after the run, which has {steps} steps; end it at {steps}"


def wandb_missing(wandb: WandbSettings | None) -> Iterator[tuple[str, str]]:
    """(setting, what this machine lacks for it). Nothing is imported."""
    if wandb is None:
        return
    if importlib.util.find_spec("wandb") is None:
        yield (
            "logging.wandb",
            "the package wandb is not installed: pip install 'trace-dsl[wandb]', or leave logging.wandb out "
            "(metrics.jsonl and tensorboard/ hold the same numbers)",
        )
    elif wandb.mode == "online" and not os.environ.get(KEY_VARIABLE):
        yield (
            "logging.wandb",
            f"the environment variable {KEY_VARIABLE} is not set: export it, or set logging.wandb.mode to offline and "
            "send the run later with `wandb sync`",
        )
