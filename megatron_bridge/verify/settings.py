"""The settings of verifiers in a run file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trace_dsl.strict_yaml import IMPORT_PATH, Strict

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
ImportPath = Annotated[str, Field(pattern=IMPORT_PATH)]
Extract = Literal["all", "last_line", "boxed", "tag"]


class WorkerSettings(Strict):
    """timeout: seconds a call; workers: processes a rank; memory_gb: address space of one."""

    timeout: Seconds = 10.0
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    memory_gb: Annotated[float, Field(gt=0)] = 4.0
    max_failures: Share = 0.5


class ExactSettings(Strict):
    """The answer, cut out of the response as `extract` says, equals a column as text, spaces at the ends aside."""

    kind: Literal["exact"]
    column: str = "answer"
    extract: Extract = "last_line"
    max_failures: Share = 0.5


class MathSettings(WorkerSettings):
    """The response's boxed answer equals a column, as math-verify sees it."""

    kind: Literal["math"]
    column: str = "answer"


class GymVerifierSettings(WorkerSettings):
    """What the reasoning-gym task of `data` says of the answer cut out of the response."""

    kind: Literal["reasoning_gym"]
    extract: Extract = "tag"


class PythonSettings(WorkerSettings):
    """A function `module:name`; the module is looked for in `folder` first."""

    kind: Literal["python"]
    function: ImportPath
    folder: str = "."


VerifierSettings = Annotated[
    ExactSettings | MathSettings | GymVerifierSettings | PythonSettings, Field(discriminator="kind")
]
