"""What a case expects against what was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from trace_dsl.expect.file import EVERY, Case

# How a route is written in `routes`: its number in the plan, then letters; a token of no route is a dot.
ROUTE_CHARACTERS = "123456789abcdefghijklmnopqrstuvwxyz"
NO_ROUTE = "."
# What is left where terms of about 1 cancel.
_ROUNDING = 1e-12

PerToken = tuple[float, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a spec gives on a batch, by rollout: the index of each token's route (-1: none); by loss, the weight of each
    token with its denominator, and its advantage; the estimated advantage of each rollout.

    route_of_loss: the index of each loss's route.
    """

    routes: Mapping[str, tuple[int, ...]]
    route_of_loss: Mapping[str, int]
    weights: Mapping[str, Mapping[str, PerToken]]
    advantages: Mapping[str, Mapping[str, PerToken]]
    A: Mapping[str, float]

    def route_text(self, rollout: str) -> str:
        """The routes of a rollout, one character a token."""
        return "".join(NO_ROUTE if r < 0 else ROUTE_CHARACTERS[r] for r in self.routes[rollout])

    def at_tokens_of(self, loss: str, rollout: str, value: float) -> PerToken:
        """`value` at every token of a rollout that the route of a loss takes, 0 elsewhere."""
        return tuple(value if r == self.route_of_loss[loss] else 0.0 for r in self.routes[rollout])


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """Something is not as expected. `what`: weights, advantages, routes or A.

    tokens: first and last of the stretch at which it is so, None for a whole rollout.
    """

    what: str
    loss: str | None
    rollout: str
    tokens: tuple[int, int] | None
    expected: float | str
    found: float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one case."""

    case: Case
    found: Found
    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A case that could not be lowered, and why."""

    case: Case
    reason: str


def is_as_expected(outcome: Outcome | Refused) -> bool:
    """Whether a case holds."""
    return isinstance(outcome, Outcome) and not outcome.mismatches


def compare(case: Case, found: Found, tolerance: float) -> tuple[Mismatch, ...]:
    """Everything in which `found` differs from what a case states."""
    return (
        *_routes(case, found),
        *_estimates(case, found, tolerance),
        *_of_losses("weights", case.weights, found, tolerance),
        *_of_losses("advantages", case.advantages, found, tolerance),
    )


def _routes(case: Case, found: Found) -> Iterator[Mismatch]:
    for rollout, text in (case.routes or {}).items():
        for tokens, expected, there in _stretches(zip(text, found.route_text(rollout), strict=True)):
            yield Mismatch(what="routes", loss=None, rollout=rollout, tokens=tokens, expected=expected, found=there)


def _estimates(case: Case, found: Found, tolerance: float) -> Iterator[Mismatch]:
    for rollout, value in (case.A or {}).items():
        if not _is_close(value, found.A[rollout], tolerance):
            yield Mismatch(what="A", loss=None, rollout=rollout, tokens=None, expected=value, found=found.A[rollout])


def _of_losses(
    what: str, stated: Mapping[str, Mapping[str, float | list[float]]] | None, found: Found, tolerance: float
) -> Iterator[Mismatch]:
    values = found.weights if what == "weights" else found.advantages
    for loss, by_rollout in (stated or {}).items():
        for rollout, actual in values[loss].items():
            pairs = zip(_expected(by_rollout, found, loss, rollout), actual, strict=True)
            told = ((a, b) if not _is_close(a, b, tolerance) else (b, b) for a, b in pairs)
            for tokens, one, other in _stretches(told):
                yield Mismatch(what=what, loss=loss, rollout=rollout, tokens=tokens, expected=one, found=other)


def _expected(by_rollout: Mapping[str, float | list[float]], found: Found, loss: str, rollout: str) -> Sequence[float]:
    """What is stated of a loss at every token of a rollout.

    One number is meant for the tokens that the loss's route takes, and a rollout that is not named has none.
    """
    values = by_rollout.get(rollout, by_rollout.get(EVERY, 0.0))
    if isinstance(values, list):
        return values
    return found.at_tokens_of(loss, rollout, values)


def _is_close(expected: float, found: float, tolerance: float) -> bool:
    """Whether two numbers agree: `tolerance` is relative to the larger."""
    return abs(expected - found) <= max(tolerance * max(abs(expected), abs(found)), _ROUNDING)


def _stretches(pairs: Iterable[tuple[T, T]]) -> Iterator[tuple[tuple[int, int], T, T]]:
    """(first and last place, one, other) of neighbours with the same two different values."""
    for pair, members in groupby(enumerate(pairs), key=lambda numbered: numbered[1]):
        if pair[0] != pair[1]:
            places = [place for place, _ in members]
            yield (places[0], places[-1]), *pair
