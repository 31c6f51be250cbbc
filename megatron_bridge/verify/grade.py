"""What a verifier says of a response, and the interface of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trace_dsl.errors import TraceError


class VerifierError(TraceError, RuntimeError):
    """A verifier failed on more responses than the run allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """`reward` is finite, 1.0 or more for a correct response. `reason` says why in a line.

    `failure` is why the verifier could not judge, None where it did; the reward is 0 then, and means nothing.
    """

    reward: float
    reason: str = ""
    failure: str | None = None


class Verifier(Protocol):
    """Judges responses; one that runs foreign code does so in processes of its own."""

    def start(self) -> None:
        """Find out whether it can work at all. Raises TraceError."""
        ...

    def grade(self, items: Sequence[tuple[Mapping[str, Any], str]]) -> list[Grade]:
        """The grade of each (row of the data, response), in order."""
        ...

    def close(self) -> None:
        """End the processes it started."""
        ...


def check_failures(grades: Sequence[Grade], *, limit: float) -> None:
    """Raises VerifierError when it could not judge more than the share `limit` of `grades`."""
    failures = Counter(grade.failure for grade in grades if grade.failure is not None)
    failed = sum(failures.values())
    if failed > limit * len(grades):
        reason, _ = failures.most_common(1)[0]
        example = next(grade.reason for grade in grades if grade.failure == reason)
        counts = ", ".join(f"{name} {count}" for name, count in failures.most_common())
        raise VerifierError(
            f"the verifier could not judge {failed} of {len(grades)} responses, over task.verifier.max_failures = "
            f"{limit:g}: {counts}; for example: {example}"
        )
