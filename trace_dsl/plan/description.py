"""Everything `trace-dsl plan` tells about a plan, as plain data: the table shows it, and its JSON is these fields.

What a spec did not write carries `default`: a reader sees which choices are somebody's and which are nobody's.
The fields are documented in docs/commands.md.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from trace_dsl.plan.stretches import Stretch

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One argument and its value as it could be written; "none" for what is switched off."""

    name: str
    value: str
    default: bool

    @property
    def text(self) -> str:
        return f"{self.name}={self.value}{mark(self.default)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightAt:
    """The weight at a step, None when only the run can tell."""

    step: int
    weight: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedWeight:
    """`sum` and `sum_of_squares` are over the steps at which the route may take tokens, None when only the run can
    tell; `active`: the stretches of those at which the weight may be nonzero, the last of which ends at `last_step`
    (-1: never).
    """

    text: str
    default: bool
    at: tuple[WeightAt, ...]
    sum: float | None
    sum_of_squares: float | None
    active: tuple[Stretch, ...]
    last_step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Over which tokens of the vocabulary a divergence sums."""

    text: str
    default: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedLoss:
    """One loss of a route. `teacher` and `support` are None for losses without one; `context` is what a rollout must
    have for the loss to train it, "" for all of them; `needs`: what is gathered for it, in words.
    """

    name: str
    formula: str
    written: str
    weight: DescribedWeight
    settings: tuple[Setting, ...]
    teacher: str | None
    support: Support | None
    context: str
    signals: tuple[str, ...]
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedRoute:
    """`file` is "" for the spec itself, else that of the spec it extends; `takes` says in words which tokens."""

    number: int
    file: str
    line: int
    labels: tuple[str, ...]
    rollouts: str
    when: str
    takes: str
    signals: tuple[str, ...]
    losses: tuple[DescribedLoss, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedTeacher:
    """`default`: the spec has no teacher statement. `last_step`: the last step at which it is run, -1 for never."""

    name: str
    default: bool
    what: str
    sees: str
    settings: tuple[Setting, ...]
    last_step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedRollouts:
    """A source of rollouts. `a_prompt` counts rollouts, None for a file."""

    name: str
    what: str
    a_prompt: int | None
    settings: tuple[Setting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedSpan:
    """A label; `cap` is the largest share of a response that it may take, None without one."""

    label: str
    cap: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedAdvantage:
    """How `A` comes from rewards; `default`: the spec has no advantage statement."""

    formula: str
    default: bool
    settings: tuple[Setting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedPayload:
    """Something to gather: from where, how much of it, at the tokens of which losses (`everywhere`: at every response
    token), of which rollouts (`context`, "" for all), at which steps.
    """

    text: str
    origin: str
    teacher: str | None
    content: str
    k: int | None
    everywhere: bool
    losses: tuple[str, ...]
    context: str
    steps: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What this version of the engine does not train."""

    line: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDescription:
    """`format` changes when a field changes its meaning or goes."""

    format: int
    hash: str
    total_steps: int
    group_size: int
    temperature: float
    advantage: DescribedAdvantage
    spans: tuple[DescribedSpan, ...]
    rollouts: tuple[DescribedRollouts, ...]
    routes: tuple[DescribedRoute, ...]
    teachers: tuple[DescribedTeacher, ...]
    signals: tuple[str, ...]
    payloads: tuple[DescribedPayload, ...]
    refused: tuple[Refusal, ...]

    def to_json(self) -> str:
        """The fields as indented JSON; stretches are pairs [first, last]."""
        return json.dumps(dataclasses.asdict(self), indent=2)


def mark(default: bool) -> str:
    """What stands behind a value that the spec did not write."""
    return " (default)" if default else ""
