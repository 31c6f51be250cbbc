"""Runs the tables of the grammar over one statement: its words, in the order of the grammar's rules.

The tables are plain data, made beforehand (tools/make_parse_tables.py), so that a spec is read without analysing a
grammar first. Where the text is no statement, what stands there and what could have stood there is handed back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

from trace_dsl.syntax.tables import ACTIONS, GOTOS, LEXER, RULES, SOFT

END = "$END"


class Token(NamedTuple):
    """A word of a statement: its terminal, its text, and the offsets at which it begins and ends."""

    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Where reading stopped: at offset `at`, on `found`, behind the words `taken`.

    kind: the terminal of what was found: END at the end, "" for a character of none; expected: those that could stand
    there.
    """

    text: str
    at: int
    found: str
    kind: str
    expected: frozenset[str]
    taken: tuple[Token, ...]


# (offsets of its start and end, its parts) -> what a rule stands for
Build = Callable[[tuple[int, int], list[Any]], Any]


@lru_cache(maxsize=1)
def _lexer() -> re.Pattern[str]:
    return re.compile(LEXER)


@cache
def _after_chain(below: int, top: int, kind: str) -> int:
    """The state that replaces `top` once the rules that only pass a value on are complete: 1 as a factor, a sum ..."""
    while (action := ACTIONS[top].get(kind, 0)) < 0:
        what, _, _, origin = RULES[~action]
        if what:
            break
        top = GOTOS[below][origin]
    return top


def parse(text: str, build: Mapping[str, Build]) -> Any:
    """What `build`, by the names of the rules, makes of a statement; or the Obstacle that keeps it from being one."""
    run = _Run(text, build)
    obstacle = run.read()
    return run.values[-1] if obstacle is None else obstacle


def words(text: str, at: int) -> tuple[Token, ...]:
    """What stands from an offset on, word by word, whether it is a statement or not; kind "" for other characters."""
    found: list[Token] = []
    while True:
        match = _lexer().match(text, at)
        assert match is not None, "the lexer always matches, if only nothing"
        at = match.end()
        if match.lastgroup is not None:
            start = match.start(match.lastgroup)
            found.append(Token(match.lastgroup, text[start:at], start, at))
        elif at < len(text):
            found.append(Token("", text[at], at, at + 1))
            at += 1
        else:
            return tuple(found)


_NOTHING: Mapping[str, Build] = {what: lambda *_: None for what, _, _, _ in RULES}


@lru_cache(maxsize=4096)
def tokens(text: str) -> tuple[Token, ...]:
    """The words of a statement, as far as it is one, as the parser reads them: `when` may be a keyword or a name."""
    run = _Run(text, _NOTHING)
    run.read()
    return tuple(run.taken)


def _spread(symbols: list[Any], marks: str) -> list[Any]:
    """The parts of a rule some of whose symbols are lists, or absent."""
    waiting = iter(symbols)
    parts: list[Any] = []
    for mark in marks:
        if mark == "n":
            parts.append(None)
            continue
        symbol = next(waiting)
        if mark == "*":
            parts.extend(symbol)
        elif mark == "k":
            parts.append(symbol)
    return parts


# For rules without lists and absent parts: which symbols are kept.
_KEPT = tuple(
    None if {"*", "n"} & set(marks) else tuple(at for at, mark in enumerate(marks) if mark == "k")
    for _, _, marks, _ in RULES
)


class _Run:
    """One pass over a text. The stacks hold the states, and for each taken symbol its value, start and end."""

    def __init__(self, text: str, build: Mapping[str, Build]) -> None:
        self.text = text
        self.build = build
        self.states = [0]
        self.values: list[Any] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.taken: list[Token] = []

    def read(self) -> Obstacle | None:
        text, states, match, at = self.text, self.states, _lexer().match, 0
        while (found := match(text, at)) is not None and (group := found.lastgroup) is not None:
            start, at = found.span(group)
            kind: str = group
            if kind in SOFT:
                row = ACTIONS[states[-1]]
                if kind not in row and "NAME" in row:
                    kind = "NAME"
            token = Token(kind, text[start:at], start, at)
            if not self._take(token):
                return self._obstacle(token)
            self.taken.append(token)
        at = len(text) if found is None else found.end()
        if at < len(text):
            return self._obstacle(Token("", text[at], at, at + 1))
        end = Token(END, "", at, at)
        return None if self._take(end) else self._obstacle(end)

    def _take(self, token: Token) -> bool:
        """Complete the rules that `token` ends and put it on the stacks; False when it cannot stand here."""
        states, kind = self.states, token.kind
        while True:
            action = ACTIONS[states[-1]].get(kind)
            if action is None:
                return False
            if action < 0 and len(states) > 1:
                states[-1] = _after_chain(states[-2], states[-1], kind)
                action = ACTIONS[states[-1]].get(kind)
                if action is None:
                    return False
            if action >= 0:
                states.append(action)
                if kind != END:
                    self.values.append(token)
                    self.starts.append(token.start)
                    self.ends.append(token.end)
                return True
            size, origin = self._complete(~action)
            del states[-size:]
            states.append(GOTOS[states[-1]][origin])

    def _complete(self, rule: int) -> tuple[int, str]:
        """Put what a rule builds in the place of the symbols it takes; gives their number and the rule's kind."""
        what, size, marks, origin = RULES[rule]
        values, starts, ends, kept = self.values, self.starts, self.ends, _KEPT[rule]
        if size == 1 and kept is not None:
            values[-1] = self.build[what]((starts[-1], ends[-1]), [values[-1]])
            return size, origin
        symbols = values[-size:]
        parts = _spread(symbols, marks) if kept is None else [symbols[at] for at in kept]
        start, end = starts[-size], ends[-1]
        del values[-size:], starts[1 - size :], ends[-size:-1]
        values.append(parts if what == "*" else self.build[what]((start, end), parts))
        return size, origin

    def _obstacle(self, token: Token) -> Obstacle:
        return Obstacle(
            text=self.text,
            at=token.start,
            found=token.text,
            kind=token.kind,
            expected=frozenset(kind for kind in ACTIONS[self.states[-1]] if self._accepts(kind)),
            taken=tuple(self.taken),
        )

    def _accepts(self, kind: str) -> bool:
        """Whether a terminal can stand here: not every rule that it seems to end leads to a place for it."""
        states = list(self.states)
        while (action := ACTIONS[states[-1]].get(kind)) is not None:
            if action >= 0:
                return True
            _, size, _, origin = RULES[~action]
            del states[-size:]
            states.append(GOTOS[states[-1]][origin])
        return False
