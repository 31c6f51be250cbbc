"""A batch in plain Python, and places in it.

A place is (group, row, pos); what is not known at a rank is None.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from trace_dsl.terms import Rank


@dataclass(frozen=True, kw_only=True)
class PlainSpan:
    """Tokens [start, end) of a response that carry a label."""

    row: int
    label: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class PlainBatch:
    """One entry a response, and for tokens one list a response.

    logp and entropy are the student's; teacher_logp and teacher_entropy are by teacher, with a number also for the
    responses whose context the teacher lacks: a reading must not use it.
    """

    reward: list[float]
    correct: list[bool]
    group: list[int]
    old_logp: list[list[float]]
    from_model: list[list[bool]]
    spans: list[PlainSpan] = field(default_factory=list)
    contexts: dict[str, list[bool]] = field(default_factory=dict)
    source: list[str] = field(default_factory=list)
    logp: list[list[float]] = field(default_factory=list)
    entropy: list[list[float]] = field(default_factory=list)
    teacher_logp: dict[str, list[list[float]]] = field(default_factory=dict)
    teacher_entropy: dict[str, list[list[float]]] = field(default_factory=dict)

    def length(self, row: int) -> int:
        return len(self.old_logp[row])

    def source_of(self, row: int) -> str:
        return self.source[row] if self.source else "policy"

    def has(self, context: str, row: int) -> bool:
        return context in self.contexts and self.contexts[context][row]

    def tokens(self) -> list[Place]:
        """Every response token, response after response."""
        return [Place(self.group[r], r, p) for r in range(len(self.reward)) for p in range(self.length(r))]

    def responses(self) -> list[Place]:
        """Every response, empty ones too."""
        return [Place(group, row) for row, group in enumerate(self.group)]


class Place(NamedTuple):
    group: int | None = None
    row: int | None = None
    pos: int | None = None


def coarsen(place: Place, rank: Rank) -> Place:
    """A place as a value of `rank` sees it."""
    match rank:
        case Rank.CONSTANT | Rank.STEP:
            return Place()
        case Rank.GROUP:
            return Place(place.group)
        case Rank.ROW:
            return Place(place.group, place.row)
        case Rank.TOKEN:
            return place
    raise AssertionError(rank)
