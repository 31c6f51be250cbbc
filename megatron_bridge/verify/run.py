"""Verifiers as a run uses them: made from settings, graded in order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never

from pydantic import BaseModel, ConfigDict, ValidationError

from megatron_bridge.verify.extract import extract_answer
from megatron_bridge.verify.grade import Grade, Verifier
from megatron_bridge.verify.settings import (
    ExactSettings,
    Extract,
    GymVerifierSettings,
    MathSettings,
    PythonSettings,
    VerifierSettings,
    WorkerSettings,
)
from megatron_bridge.workers import Returned, WorkerPool

LONGEST_REASON = 2000


def open_verifier(
    settings: VerifierSettings, *, folder: Path, gym: Mapping[str, Any] | None = None, hidden: Sequence[str] = ()
) -> Verifier:
    """The verifier that settings describe. `folder` is the run file's; `gym` names the data's reasoning-gym task;
    `hidden` are environment variables that processes of its own do not get.
    """
    match settings:
        case ExactSettings():
            return ExactVerifier(column=settings.column, extract=settings.extract)
        case MathSettings():
            return WorkerVerifier(settings, {"kind": "math"}, _MathRequest(settings.column), hidden)
        case GymVerifierSettings():
            assert gym is not None
            return WorkerVerifier(settings, {"kind": "reasoning_gym", **gym}, _GymRequest(settings.extract), hidden)
        case PythonSettings():
            target = {
                "kind": "python",
                "function": settings.function,
                "folder": str((folder / settings.folder).resolve()),
            }
            return WorkerVerifier(settings, target, _python_request, hidden)
        case _:
            assert_never(settings)


class ExactVerifier:
    """Compares text."""

    def __init__(self, *, column: str, extract: Extract) -> None:
        self._column, self._extract = column, extract

    def start(self) -> None:
        """Nothing to start."""

    def close(self) -> None:
        """Nothing to end."""

    def grade(self, items: Sequence[tuple[Mapping[str, Any], str]]) -> list[Grade]:
        """See `Verifier.grade`."""
        return [self._grade(row, response) for row, response in items]

    def _grade(self, row: Mapping[str, Any], response: str) -> Grade:
        answer = extract_answer(response, self._extract)
        if answer is None:
            return Grade(reward=0.0, reason="no answer was given in the form that is asked for")
        right = answer == str(row[self._column]).strip()
        return Grade(reward=float(right), reason=f"the answer is {'right' if right else 'wrong'}")


class _MathRequest:
    def __init__(self, column: str) -> None:
        self._column = column

    def __call__(self, row: Mapping[str, Any], response: str) -> dict[str, Any]:
        return {"reference": row[self._column], "response": response}


class _GymRequest:
    def __init__(self, extract: Extract) -> None:
        self._extract = extract

    def __call__(self, row: Mapping[str, Any], response: str) -> dict[str, Any]:
        return {"seed": row["seed"], "index": row["index"], "response": response, "extract": self._extract}


def _python_request(row: Mapping[str, Any], response: str) -> dict[str, Any]:
    return {"response": response, "row": dict(row)}


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    reward: float | bool
    reason: str = ""


class WorkerVerifier:
    """Grades in worker processes."""

    def __init__(
        self, settings: WorkerSettings, target: Mapping[str, Any], request: Any, hidden: Sequence[str] = ()
    ) -> None:
        """`request(row, response)` is what the function in the worker is called with."""
        self._pool = WorkerPool(
            target,
            count=settings.workers,
            timeout=settings.timeout,
            memory_gb=settings.memory_gb,
            hidden=hidden,
        )
        self._request = request

    def start(self) -> None:
        """See `Verifier.start`."""
        self._pool.start()

    def close(self) -> None:
        """See `Verifier.close`."""
        self._pool.close()

    def grade(self, items: Sequence[tuple[Mapping[str, Any], str]]) -> list[Grade]:
        """See `Verifier.grade`."""
        return [grade_of(found) for found in self._pool.map([self._request(row, response) for row, response in items])]


def grade_of(returned: Returned) -> Grade:
    """A worker's answer as a grade: a number, or {"reward": number, "reason": text}."""
    if returned.failure is not None:
        return Grade(reward=0.0, reason=f"{returned.failure}: {returned.reason}", failure=str(returned.failure))
    value = returned.value if isinstance(returned.value, dict) else {"reward": returned.value}
    try:
        answer = _Answer.model_validate(value)
    except ValidationError:
        return Grade(reward=0.0, reason=f"the verifier returned {str(returned.value)[:200]}", failure="no_number")
    reward = float(answer.reward)
    if not math.isfinite(reward):
        return Grade(reward=0.0, reason=f"the verifier returned {reward}", failure="no_number")
    return Grade(reward=reward, reason=answer.reason[:LONGEST_REASON])
