"""The plan: a spec resolved against the facts of a run. Frozen, with a content hash.

A checkpoint carries the hash, so a run is never continued under another objective by accident. The hash covers what
the losses depend on (routes, kernels, weights, teachers, labels, estimator, run length) and not places or comments.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeGuard

from trace_dsl.expressions import walk
from trace_dsl.facts import RunFacts
from trace_dsl.model import (
    AdvantageEstimator,
    Channel,
    Divergence,
    MixAnchor,
    PolicyGradient,
    RolloutSource,
    Route,
    SpanLabel,
    Teacher,
)
from trace_dsl.plan.payloads import Need
from trace_dsl.plan.stretches import Stretch
from trace_dsl.reach import Reach, Standing
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr, Scan, Scanned


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightTrack:
    """A loss weight over the run: None where it cannot be known before (token-counted schedules, gates).

    total: sum of the weight over the steps at which its route may take tokens; total_squared: of its square (the
    privileged-exposure bound of arXiv 2605.10194 is proportional to it); active: the stretches of those steps at which
    the weight may be nonzero.
    """

    total: float | None
    total_squared: float | None
    active: tuple[Stretch, ...]

    @property
    def last_step(self) -> int:
        """The last step at which the loss may train a token, -1 for never."""
        return self.active[-1][1] if self.active else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLoss:
    """One loss of a route. `teacher` is None for kernels without one."""

    channel: Channel
    formula: str
    weight_text: str
    teacher: str | None
    track: WeightTrack


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRoute:
    """A route. `asked`: the steps at which its predicate is evaluated on the batch; elsewhere the step decides, or
    routes above leave it no token.
    """

    route: Route
    predicate_text: str
    asked: tuple[Stretch, ...]
    losses: tuple[PlannedLoss, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTeacher:
    """A teacher and the last step at which it is run (-1: never)."""

    teacher: Teacher
    last_step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering:
    """Something the trainer must gather, and when.

    losses: the (route, loss) pairs at whose tokens it is read, () where it is read at every response token; steps: the
    stretches of steps at which something may read it.
    """

    need: Need
    losses: tuple[tuple[int, int], ...]
    steps: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the trainer follows. `signals` are the words its expressions read, `gathered` what has to be computed or
    kept for them and for the losses.
    """

    facts: RunFacts
    labels: tuple[SpanLabel, ...]
    advantage: AdvantageEstimator
    rollouts: tuple[RolloutSource, ...]
    routes: tuple[PlannedRoute, ...]
    teachers: tuple[PlannedTeacher, ...]
    signals: tuple[str, ...]
    gathered: tuple[Gathering, ...]
    spec_text: str
    hash: str


# Where something stands and how it is written is not what it means.
_NOT_MEANING = frozenset({"place", "text", "written"})


def _plain(value: Any) -> Any:
    """What a hash is to see of a value: dataclasses as tagged dicts, enums as their names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field.name for field in dataclasses.fields(value) if field.name not in _NOT_MEANING)
        return {"type": type(value).__name__, **{name: _plain(getattr(value, name)) for name in fields}}
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def content_hash(
    *,
    facts: RunFacts,
    labels: tuple[SpanLabel, ...],
    advantage: AdvantageEstimator,
    rollouts: tuple[RolloutSource, ...],
    routes: tuple[Route, ...],
    teachers: tuple[Teacher, ...],
) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of everything the losses depend on."""
    content = {
        "total_steps": facts.total_steps,
        "temperature": facts.temperature,
        "parts": [_plain(part) for part in (labels, advantage, rollouts, routes, teachers)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def loss_names(plan: Plan) -> dict[tuple[int, int], str]:
    """A readable, unique name for each (route, loss): "error/rkl", "rest/grpo", with #2 from the second use on."""
    names: dict[tuple[int, int], str] = {}
    used: dict[str, int] = {}
    for r, planned in enumerate(plan.routes):
        for c, loss in enumerate(planned.losses):
            call = loss.channel.text.partition("(")[0].strip()
            name = f"{'|'.join(planned.route.labels)}/{call}"
            used[name] = used.get(name, 0) + 1
            names[r, c] = name if used[name] == 1 else f"{name}#{used[name]}"
    return names


def expressions_of(route: Route) -> tuple[Expr, ...]:
    """Everything a route evaluates: its predicate, then each loss's weight and advantage."""
    found = [route.when, *(expr for c in route.channels for expr in (c.weight, advantage_of(c)))]
    return tuple(expr for expr in found if expr is not None)


def latches_of(plan: Plan) -> tuple[Scanned, ...]:
    """The latches of a plan, each once, in the order they are read."""
    parts = (part for r in plan.routes for expr in expressions_of(r.route) for part in walk(expr))
    return tuple(dict.fromkeys(part for part in parts if is_latch(part)))


def standings_of(plan: Plan, at: Progress) -> tuple[Standing, ...]:
    """How each route of a plan stands at a step."""
    return Reach([planned.route for planned in plan.routes]).at(at)


def is_latch(expr: Expr) -> TypeGuard[Scanned]:
    return isinstance(expr, Scanned) and expr.scan is Scan.LATCH


def advantage_of(channel: Channel) -> Expr | None:
    """The advantage expression of a channel that has one."""
    kernel = channel.kernel
    return getattr(kernel, "advantage", None)


def teacher_of(channel: Channel) -> str | None:
    """The teacher whose distribution or log-probs a channel reads."""
    match channel.kernel:
        case Divergence(teacher=teacher):
            return teacher
        case PolicyGradient(anchor=MixAnchor(teacher=teacher)):
            return teacher
        case _:
            return None
