"""The settings of data in a run file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from trace_dsl.strict_yaml import Strict


def _one_or_many(value: Any) -> Any:
    """A name or a list of names, as a tuple."""
    if value == []:
        raise ValueError("name at least one")
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Files = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_one_or_many)]
Names = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_one_or_many)]


class FilesSettings(Strict):
    """splits: files of each split, "train" among them, relative to the run file; shuffle: whether "train" is read in
    an order drawn by the run's seed; columns: those that are read, all without it."""

    kind: Literal["files"]
    splits: dict[str, Files]
    shuffle: bool = True
    columns: Names | None = None


class GymSettings(Strict):
    """Problems that the reasoning-gym task `dataset` poses, with its own settings in `config`."""

    kind: Literal["reasoning_gym"]
    dataset: str
    config: dict[str, Any] = Field(default_factory=dict)


DataSettings = Annotated[FilesSettings | GymSettings, Field(discriminator="kind")]
