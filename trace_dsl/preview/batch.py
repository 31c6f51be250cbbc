"""A file of rollouts as the batch of one optimizer step: what a spec's expressions are evaluated on.

Legend of names: `_R` one entry a rollout, `_T` one a token, rollout after rollout. None is what only a run can tell,
NaN what is no number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from trace_dsl.model import PLAIN_ROWS, UNJUDGED_ROWS, AdvantageEstimator, EstimatorKind, Spec
from trace_dsl.preview.rollouts import CONTEXTS, Rollout, RolloutsError
from trace_dsl.preview.tokens import tokens_met
from trace_dsl.terms import Rank, Signal
from trace_dsl.vocabulary import SIGNALS, did_you_mean

Column = list[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSpan:
    """Tokens [start, end) of rollout `row` that carry a label."""

    row: int
    label: str
    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """group_R: dense numbers of (prompt, source); contexts: the text of each context by rollout, None where a rollout
    lacks it; a context of which the file says nothing is no key. signals: what was measured, by the signal.
    """

    length_R: tuple[int, ...]
    start_R: tuple[int, ...]
    row_T: Sequence[int]
    reward_R: tuple[float, ...]
    correct_R: tuple[bool, ...]
    group_R: tuple[int, ...]
    group_size_R: tuple[int, ...]
    source_R: tuple[str, ...]
    advantage_R: tuple[float, ...]
    from_model_T: Sequence[bool]
    spans: tuple[TokenSpan, ...]
    contexts: Mapping[str, tuple[str | None, ...]]
    signals: Mapping[Signal, Column]

    @property
    def rows(self) -> int:
        return len(self.length_R)

    @property
    def tokens(self) -> int:
        return len(self.row_T)


def batch_of(rollouts: Sequence[Rollout], spec: Spec, contexts: Iterable[str] = CONTEXTS) -> Batch:
    """The batch that training would make of these rollouts under a spec.

    contexts: those that the task can show a teacher. Raises RolloutsError for rollouts or signals that the spec does
    not have.
    """
    _check_names(rollouts, spec)
    lengths = tuple(len(one.intervals) for one in rollouts)
    source_R = tuple(one.rows if one.judged else UNJUDGED_ROWS for one in rollouts)
    numbers: dict[tuple[int, str], int] = {}
    group_R = tuple(
        numbers.setdefault((one.group, source), len(numbers)) for one, source in zip(rollouts, source_R, strict=True)
    )
    sizes = Counter(group_R)
    reward_R = tuple(one.reward for one in rollouts)
    return Batch(
        length_R=lengths,
        start_R=tuple(accumulate(lengths, initial=0))[:-1],
        row_T=[row for row, length in enumerate(lengths) for _ in range(length)],
        reward_R=reward_R,
        correct_R=tuple(one.correct for one in rollouts),
        group_R=group_R,
        group_size_R=tuple(sizes[group] for group in group_R),
        source_R=source_R,
        advantage_R=tuple(advantages(reward_R, group_R, spec.advantage)),
        from_model_T=[written for one in rollouts for written in _written(one)],
        spans=tuple(_token_spans(rollouts)),
        contexts=_contexts(rollouts, frozenset(contexts)),
        signals=_signals(rollouts, spec),
    )


def advantages(reward_R: Sequence[float], group_R: Sequence[int], estimator: AdvantageEstimator) -> list[float]:
    """The advantage of each rollout, as the spec estimates it."""
    if estimator.kind is EstimatorKind.NONE:
        return list(reward_R)
    members: dict[int, list[int]] = {}
    for row, group in enumerate(group_R):
        members.setdefault(group, []).append(row)
    found = [0.0] * len(reward_R)
    for rows in members.values():
        rewards = [reward_R[row] for row in rows]
        if min(rewards) == max(rewards):
            continue
        mean, others = sum(rewards) / len(rewards), len(rewards) - 1
        centered = [reward - mean for reward in rewards]
        scale = 1.0
        if estimator.kind is EstimatorKind.LEAVE_ONE_OUT:
            scale = others / (others + 1)
        elif estimator.scale_by_std:
            scale = math.sqrt(sum(c * c for c in centered) / others)
        for row, value in zip(rows, centered, strict=True):
            found[row] = value / scale if scale > 0 else 0.0
    return found


def signal_named(text: str, spec: Spec) -> Signal | None:
    """The measured signal that `gap` or `teacher_logp(NAME)` means in a spec; None for what is no such signal."""
    word, _, teacher = text.removesuffix(")").partition("(")
    info = SIGNALS.get(word)
    if info is None or info.rank is not Rank.TOKEN or word in ("pos", "source"):
        return None
    names = [one.name for one in spec.teachers]
    if not info.of_teacher:
        return None if teacher else Signal(name=word, rank=Rank.TOKEN)
    if not teacher:
        teacher = names[0] if len(names) == 1 else "teacher"
    return Signal(name=word, rank=Rank.TOKEN, teacher=teacher) if teacher in names else None


def _check_names(rollouts: Sequence[Rollout], spec: Spec) -> None:
    sources = [PLAIN_ROWS, *(one.name for one in spec.rollouts)]
    known = [name for name, info in SIGNALS.items() if info.rank is Rank.TOKEN and name not in ("pos", "source")]
    for one in rollouts:
        if one.rows not in sources:
            raise RolloutsError(
                f"line {one.line}: rows: the spec has no rollouts {one.rows!r}; {did_you_mean(one.rows, sources).text}"
            )
        for name in one.signals:
            if signal_named(name, spec) is None and not _of_another_teacher(name):
                raise RolloutsError(
                    f"line {one.line}: signals: {name!r} is no measurement that this spec knows; "
                    f"{did_you_mean(name, known).text}"
                )


def signals_left_out(rollouts: Sequence[Rollout], spec: Spec) -> tuple[str, ...]:
    """Those that a line gives of teachers that the spec does not have."""
    names = dict.fromkeys(name for one in rollouts for name in one.signals)
    return tuple(name for name in names if signal_named(name, spec) is None)


def _of_another_teacher(name: str) -> bool:
    info = SIGNALS.get(name.partition("(")[0])
    return info is not None and info.rank is Rank.TOKEN and info.of_teacher


def _written(one: Rollout) -> list[bool]:
    """Whether the model wrote each token: a token that tool output meets is the tool's."""
    written = [True] * len(one.intervals)
    for start, end in one.tool:
        met = tokens_met(one.intervals, start, end)
        if met is not None:
            written[met[0] : met[1]] = [False] * (met[1] - met[0])
    return written


def _token_spans(rollouts: Sequence[Rollout]) -> list[TokenSpan]:
    found = []
    for row, one in enumerate(rollouts):
        for span in one.spans:
            met = tokens_met(one.intervals, span.start, span.end)
            if met is not None:
                found.append(TokenSpan(row=row, label=span.label, kind=span.kind, start=met[0], end=met[1]))
    return found


def _contexts(rollouts: Sequence[Rollout], offered: frozenset[str]) -> dict[str, tuple[str | None, ...]]:
    """What is known of each context. The file speaks of one when a line does; a sibling follows from the groups."""
    found: dict[str, tuple[str | None, ...]] = {}
    for name in CONTEXTS:
        if any(name in one.contexts for one in rollouts):
            found[name] = tuple(one.contexts.get(name) for one in rollouts)
        elif name not in offered:
            found[name] = (None,) * len(rollouts)
        elif name == "sibling":
            found[name] = _siblings(rollouts)
    return found


def _siblings(rollouts: Sequence[Rollout]) -> tuple[str | None, ...]:
    """The next correct response of the group, in a circle; none for the only correct one."""
    members: dict[int, list[int]] = {}
    for row, one in enumerate(rollouts):
        members.setdefault(one.group, []).append(row)
    found: list[str | None] = [None] * len(rollouts)
    for rows in members.values():
        for place, row in enumerate(rows):
            others = (rollouts[other] for other in (*rows[place + 1 :], *rows[:place]))
            found[row] = next((other.response for other in others if other.correct and other.judged), None)
    return tuple(found)


def _signals(rollouts: Sequence[Rollout], spec: Spec) -> dict[Signal, Column]:
    """Every signal of the spec that some line gives, unknown at the tokens of the others."""
    names = dict.fromkeys(name for one in rollouts for name in one.signals)
    found: dict[Signal, Column] = {}
    for name in names:
        signal = signal_named(name, spec)
        if signal is None:
            continue
        column: Column = []
        for one in rollouts:
            values = one.signals.get(name)
            column += [None] * len(one.intervals) if values is None else [math.nan if v is None else v for v in values]
        found[signal] = column
    return found
