"""Tokenizes lines by a TextMate grammar, with Python's `re` in the place of Oniguruma."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Rule = dict[str, Any]
Found = tuple[str, str]


class Tokenizer:
    """Reads a text line by line; a rule that began stays open until its end matches."""

    def __init__(self, grammar: Rule) -> None:
        self._grammar = grammar
        self._open: list[Rule] = []

    def tokens(self, text: str) -> list[Found]:
        """(word, scope) of everything that has a scope."""
        return [token for line in text.split("\n") for token in self._line(line)]

    def _line(self, line: str) -> Iterator[Found]:
        at = 0
        while at <= len(line):
            match, rule = self._next(line, at)
            if match is None or rule is None:
                return
            if "begin" in rule and match.re.pattern == rule["begin"]:
                self._open.append(rule)
            elif self._open and rule is self._open[-1]:
                self._open.pop()
            else:
                yield from _named(rule, match)
            at = match.end() if match.end() > match.start() or "end" in rule else match.end() + 1

    def _next(self, line: str, at: int) -> tuple[re.Match[str] | None, Rule | None]:
        """The match that starts first; of several that start together the first rule's, an end before all."""
        best: tuple[int, int, re.Match[str], Rule] | None = None
        rules = list(self._rules(self._open[-1] if self._open else self._grammar))
        ends = [(self._open[-1]["end"], self._open[-1])] if self._open else []
        patterns = [*ends, *((rule.get("match", rule.get("begin")), rule) for rule in rules)]
        for order, (pattern, rule) in enumerate(patterns):
            match = re.compile(pattern).search(line, at)
            if match is not None and (best is None or (match.start(), order) < best[:2]):
                best = (match.start(), order, match, rule)
        return (None, None) if best is None else (best[2], best[3])

    def _rules(self, rule: Rule) -> Iterator[Rule]:
        for inner in rule.get("patterns", ()):
            if "include" in inner:
                target = self._grammar["repository"][inner["include"].removeprefix("#")]
                yield from [target] if "begin" in target or "match" in target else self._rules(target)
            else:
                yield inner


def _named(rule: Rule, match: re.Match[str]) -> Iterator[Found]:
    captures = {number: capture["name"] for number, capture in rule.get("captures", {}).items()}
    named = [(match[int(number)], name) for number, name in captures.items() if match[int(number)]]
    if not named and rule.get("name"):
        named = [(match.group(), rule["name"])]
    yield from ((word.strip(), name.removesuffix(".trace")) for word, name in named if word.strip())


def patterns_of(grammar: Any) -> Iterator[str]:
    """Every regular expression in a grammar."""
    if isinstance(grammar, dict):
        for key, value in grammar.items():
            if key in ("match", "begin", "end"):
                yield value
            else:
                yield from patterns_of(value)
    elif isinstance(grammar, list):
        for value in grammar:
            yield from patterns_of(value)
