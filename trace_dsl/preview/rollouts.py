"""Rollouts from a JSONL file, read strictly: those that a run writes, and those of anybody else."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError

from trace_dsl.errors import TraceError
from trace_dsl.model import PLAIN_ROWS
from trace_dsl.preview.tokens import Interval, intervals_of, words
from trace_dsl.vocabulary import closest

CONTEXTS = ("diagnosis", "solution", "sibling", "feedback")
_STEP = re.compile(r"step_(\d+)\.jsonl")
_SHOWN = 60


class RolloutsError(TraceError, ValueError):
    """A file of rollouts cannot be read, or a line of it says something that is not allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Characters [start, end) of a response that carry a label; `kind` is the type that the annotator gave, or ""."""

    label: str
    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One response. `intervals`: the characters of each token, empty for a stop token. group_name: as the line has it.

    contexts: what a teacher can be shown of it, None for what it lacks; a context that the line does not speak of is
    no key. signals: numbers by token, None where there is none, by the signal's name as a spec writes it. judged: the
    verifier had its say. route, advantage: what a run wrote.
    """

    line: int
    prompt: str
    response: str
    reward: float
    correct: bool
    group: int
    group_name: str
    intervals: tuple[Interval, ...]
    spans: tuple[Span, ...]
    rows: str = PLAIN_ROWS
    contexts: Mapping[str, str | None]
    tool: tuple[Interval, ...] = ()
    signals: Mapping[str, tuple[float | None, ...]]
    judged: bool = True
    route: tuple[int, ...] | None = None
    advantage: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFile:
    """All lines of a file, in order.

    step: at which a run wrote it, None for other files; made_of_words: tokens are words, as no line says otherwise for
    its response; ignored: keys that mean nothing here, with how many lines have them.
    """

    path: str
    rollouts: tuple[Rollout, ...]
    step: int | None
    made_of_words: int
    ignored: tuple[tuple[str, int], ...]


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True, allow_inf_nan=False)


class _SpanLine(_Line):
    label: StrictStr
    start: StrictInt = Field(ge=0)
    end: StrictInt = Field(ge=0)
    kind: StrictStr = ""


_Pairs = list[tuple[StrictInt, StrictInt]]


class _RolloutLine(_Line):
    prompt: StrictStr
    response: StrictStr
    reward: StrictFloat
    spans: list[_SpanLine] = []
    correct: StrictBool | None = None
    group: StrictInt | StrictStr | None = None
    rows: StrictStr = PLAIN_ROWS
    tokens: list[StrictStr] | None = None
    intervals: _Pairs | None = None
    token_ids: list[StrictInt] | None = None
    tool: _Pairs = []
    diagnosis: StrictStr | None = None
    solution: StrictStr | None = None
    sibling: StrictStr | None = None
    feedback: StrictStr | None = None
    signals: dict[str, list[StrictFloat | None]] = {}
    withheld: list[StrictStr] = []
    verifier_failure: StrictStr | None = None
    route: list[StrictInt] | None = None
    advantage: StrictFloat | None = None
    reason: StrictStr = ""
    annotation_note: StrictStr = ""


# What a run writes beside what is read here.
_PASSED_OVER = frozenset({"finish", "annotation_missing", "weight_versions"})


def read_rollouts(path: Path) -> RolloutFile:
    """The rollouts of a file. Raises RolloutsError with the file, the line, the value, what is allowed, and the fix."""
    groups: dict[object, int] = {}
    rollouts, ignored, made = [], Counter[str](), 0
    for number, text in _lines(path):
        where = f"{path}:{number}"
        value = _object(text, where)
        ignored.update(_unknown_keys(value, where))
        line = _checked(value, where)
        key = line.prompt if line.group is None else (line.group,)
        rollouts.append(_rollout(line, value, number, where, groups.setdefault(key, len(groups))))
        made += line.tokens is None and line.intervals is None and bool(line.response)
    if not rollouts:
        raise RolloutsError(f"{path} has no rollout: give one JSON object a line, with prompt, response and reward")
    found = _STEP.fullmatch(path.name)
    return RolloutFile(
        path=str(path),
        rollouts=tuple(rollouts),
        step=int(found[1]) if found else None,
        made_of_words=made,
        ignored=tuple(sorted(ignored.items())),
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, numbered from 1."""
    try:
        if not path.is_file():
            what = "it is a folder: give one .jsonl file in it" if path.is_dir() else "no such file"
            raise RolloutsError(f"{path} cannot be read: {what}")
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise RolloutsError(f"{path} is not UTF-8 text (byte {error.start}): rollouts are JSON, one a line") from error
    except OSError as error:
        raise RolloutsError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        raise RolloutsError(
            f"{where}: {_short(text)} is no JSON ({error}): write one whole object on each line"
        ) from error
    if not isinstance(value, dict):
        raise RolloutsError(f"{where}: {_short(text)} is no object: a line is {{...}} with prompt, response and reward")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number; write null for what has no value")


def _unknown_keys(value: Mapping[str, Any], where: str) -> list[str]:
    """The keys that are not read. One that looks like a slip of the pen is refused: it would be lost silently."""
    known = _RolloutLine.model_fields
    unknown = [key for key in value if key not in known and key not in _PASSED_OVER]
    for key in unknown:
        near = closest(key, known)
        if near is not None and near not in value:
            raise RolloutsError(f"{where}: {key!r} is no key of a rollout; did you mean {near!r}? Rename it or drop it")
    return unknown


def _checked(value: dict[str, Any], where: str) -> _RolloutLine:
    try:
        line = _RolloutLine.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at, given = _place(value, first["loc"])
        if first["type"] == "missing":
            at = f"{at}.{first['loc'][-1]}".lstrip(".")
            raise RolloutsError(
                f"{where}: {at} is missing: a rollout has prompt (text), response (text) and reward (a number)"
            ) from error
        raise RolloutsError(f"{where}: {at}: {_short(json.dumps(given))} is not allowed: {_wanted(first)}") from error
    return line


def _place(value: Any, loc: tuple[int | str, ...]) -> tuple[str, Any]:
    """Where in a line a mistake is, and what stands there; behind that, the path names kinds of values."""
    at = ""
    for part in loc:
        if not (isinstance(value, list) or (isinstance(value, dict) and part in value)):
            break
        below: Any = value[part]  # type: ignore[index]  # a list's part is its number
        value = below
        at += f"[{part}]" if isinstance(part, int) else f".{part}"
    return at.lstrip("."), value


def _wanted(error: Mapping[str, Any]) -> str:
    return str(error["msg"]).replace("Input should be", "it should be").replace("a valid", "a")


def _rollout(line: _RolloutLine, value: Mapping[str, Any], number: int, where: str, group: int) -> Rollout:
    intervals = _intervals(line, where)
    size = len(line.response)
    for n, span in enumerate(line.spans):
        if not span.start <= span.end <= size:
            raise RolloutsError(
                f"{where}: spans[{n}]: [{span.start}, {span.end}) lies outside the response: 0 <= start <= end <= "
                f"{size}, counted in characters"
            )
    for n, (start, end) in enumerate(line.tool):
        if not 0 <= start <= end <= size:
            raise RolloutsError(f"{where}: tool[{n}]: [{start}, {end}) lies outside the response of {size} characters")
    of_tokens = {**{f"signals.{name}": v for name, v in line.signals.items()}, "route": line.route}
    for name, values in of_tokens.items():
        if values is not None and len(values) != len(intervals):
            raise RolloutsError(f"{where}: {name}: {len(values)} numbers for {len(intervals)} tokens: give one a token")
    return Rollout(
        line=number,
        prompt=line.prompt,
        response=line.response,
        reward=float(line.reward),
        correct=line.reward >= 1.0 if line.correct is None else line.correct,
        group=group,
        group_name=str(group + 1 if line.group is None else line.group),
        intervals=intervals,
        spans=tuple(Span(label=s.label, kind=s.kind, start=s.start, end=s.end) for s in line.spans),
        rows=line.rows,
        contexts={
            name: None if name in line.withheld else getattr(line, name) or None for name in CONTEXTS if name in value
        },
        tool=tuple(line.tool),
        signals={name: tuple(values) for name, values in line.signals.items()},
        judged=line.verifier_failure is None,
        route=None if line.route is None else tuple(line.route),
        advantage=None if line.advantage is None else float(line.advantage),
        note=" ".join(filter(None, (line.verifier_failure or line.reason, line.annotation_note))),
    )


def _intervals(line: _RolloutLine, where: str) -> tuple[Interval, ...]:
    """The characters of each token; token ids behind the text, such as a stop token's, have none."""
    size = len(line.response)
    if line.tokens is not None:
        if "".join(line.tokens) != line.response:
            raise RolloutsError(
                f"{where}: tokens: {_short(''.join(line.tokens))!r} is not the response: its texts, one behind the "
                "other, must give it; or give intervals, the characters [start, end) of each token"
            )
        found = intervals_of(line.tokens)
    elif line.intervals is not None:
        for n, (start, end) in enumerate(line.intervals):
            if not 0 <= start <= end <= size:
                raise RolloutsError(
                    f"{where}: intervals[{n}]: [{start}, {end}) lies outside the response of {size} characters"
                )
            if n and start < line.intervals[n - 1][0]:
                raise RolloutsError(f"{where}: intervals[{n}]: it begins before the one before it: order them by start")
        found = tuple(line.intervals)
    else:
        return words(line.response)
    if line.token_ids is None:
        return found
    behind = len(line.token_ids) - len(found)
    if behind < 0:
        raise RolloutsError(f"{where}: token_ids: {len(line.token_ids)} of them for {len(found)} intervals")
    return found + ((size, size),) * behind


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
