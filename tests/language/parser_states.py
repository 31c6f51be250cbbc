"""Every state of the parser with a text that reaches it, and every word that may be met there.

The states are those of lark's own LALR table, walked breadth first from the start of a statement. Two texts that end in
one state count as one when the same terminals may follow, after the same word, in the same part of a statement: what
is said there is the same then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from lark.parsers.lalr_analysis import ParseTable, Shift

from tools.make_parse_tables import parse_table, parser
from trace_dsl.lint import lint_text
from trace_dsl.model import Diagnostic
from trace_dsl.syntax.tables import SOFT

END = "$END"

# A word for each terminal; what a name stands for depends on the place and is chosen by `_name`.
EXAMPLES = {
    "SPANS": "spans",
    "TEACHER": "teacher",
    "ADVANTAGE": "advantage",
    "ROLLOUTS": "rollouts",
    "LET": "let",
    "EXTENDS": "extends",
    "WHEN": "when",
    "AND": "and",
    "OR": "or",
    "NOT": "not",
    "STEPS": "steps",
    "TOKENS": "tokens",
    "NAME": "foo",
    "NUMBER": "3",
    "STRING": '"s"',
    "COMPARE": "==",
    "PERCENT": "%",
    "PLUS": "+",
    "MINUS": "-",
    "TIMES": "*",
    "OVER": "/",
    "COMMA": ",",
    "EQUAL": "=",
    "COLON": ":",
    "VBAR": "|",
    "LPAR": "(",
    "RPAR": ")",
    END: "",
}
# Words of no terminal, and pairs of signs from other languages.
FOREIGN = (";", "'", "[", "]", "{", "}", "!", "&", "@", "^", "~", "$", "?", "\\", "`", ".", "é", "\0", '"x')
PAIRS = ("&&", "||", "**", "=>", "->", "//", "<<", ":=", "+=", "1x", "'x'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """Terminals and their words that lead to a stack of states; `accepts`: what may follow."""

    terminals: tuple[str, ...]
    words: tuple[str, ...]
    stack: tuple[int, ...]
    accepts: frozenset[str]

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def open(self) -> int:
        """How many brackets are open."""
        return self.terminals.count("LPAR") - self.terminals.count("RPAR")


@cache
def table() -> ParseTable:
    """lark's own table."""
    return parse_table(parser())


def advanced(stack: tuple[int, ...], terminal: str, seen: set[int] | None = None) -> tuple[int, ...] | None:
    """The stack after a terminal is taken; None when it cannot be. `seen` collects the states on top meanwhile."""
    states = table().states
    (end,) = table().end_states.values()
    now = list(stack)
    while True:
        if seen is not None:
            seen.add(now[-1])
        if terminal == END and now[-1] == end:
            return tuple(now)
        if terminal not in states[now[-1]]:
            return None
        action, target = states[now[-1]][terminal]
        if action is Shift:
            return (*now, target)
        del now[len(now) - len(target.expansion) :]
        now.append(states[now[-1]][target.origin.name][1])


def _name(terminals: tuple[str, ...]) -> str:
    """A name as it is met at the end of such a text."""
    first = terminals[0] if terminals else ""
    last = terminals[-1] if terminals else ""
    brackets = terminals.count("LPAR") - terminals.count("RPAR")
    if brackets == 0 and first in ("", "NAME"):
        if "COLON" in terminals:
            return "fkl"
        return "x" if "WHEN" in terminals else ("error" if last == "VBAR" else "key")
    if brackets == 0 and first == "SPANS":
        return "error" if last == "COMMA" else "key"
    if brackets == 0 and first in ("TEACHER", "ADVANTAGE", "ROLLOUTS") and last == "EQUAL":
        return {"TEACHER": "self", "ADVANTAGE": "group", "ROLLOUTS": "policy"}[first]
    if brackets == 0 and last in ("TEACHER", "ROLLOUTS", "LET"):
        return {"TEACHER": "big", "ROLLOUTS": "hinted", "LET": "kl"}[last]
    return "x"


def _part(prefix: Prefix) -> tuple[object, ...]:
    """What tells two texts in one state apart."""
    first = prefix.terminals[0] if prefix.terminals else ""
    part = "COLON" if "COLON" in prefix.terminals else "WHEN" if "WHEN" in prefix.terminals else first
    last = prefix.terminals[-1] if prefix.terminals else ""
    return (prefix.stack[-1], prefix.accepts, part, last, min(prefix.open, 1))


@cache
def prefixes() -> tuple[Prefix, ...]:
    """The shortest text for each state and place, so that every state is on top when some word cannot be taken."""
    (start,) = table().start_states.values()
    walked: set[tuple[int, ...]] = set()
    met: set[int] = set()
    found: dict[tuple[object, ...], Prefix] = {}
    waiting = deque([_prefix((), (), (start,))])
    while waiting:
        prefix = waiting.popleft()
        if prefix.stack[-3:] in walked:
            continue
        walked.add(prefix.stack[-3:])
        tops: set[int] = set()
        for terminal in EXAMPLES:
            stack = advanced(prefix.stack, terminal, tops)
            if stack is not None and terminal != END:
                word = _name(prefix.terminals) if terminal == "NAME" else EXAMPLES[terminal]
                waiting.append(_prefix((*prefix.terminals, terminal), (*prefix.words, word), stack))
        if _part(prefix) not in found or not tops <= met:
            found.setdefault((*_part(prefix), *(tops - met)) if _part(prefix) in found else _part(prefix), prefix)
            met |= tops
    return tuple(found.values())


def _prefix(terminals: tuple[str, ...], words: tuple[str, ...], stack: tuple[int, ...]) -> Prefix:
    accepts = frozenset(terminal for terminal in EXAMPLES if advanced(stack, terminal) is not None)
    return Prefix(terminals=terminals, words=words, stack=stack, accepts=accepts)


def unexpected(prefix: Prefix) -> Iterator[str]:
    """The words that cannot follow a text: of terminals, of none, and pairs of signs."""
    for terminal, word in EXAMPLES.items():
        if terminal not in prefix.accepts:
            yield word
    yield from FOREIGN
    yield from PAIRS


def read_as_a_name(prefix: Prefix, word: str) -> bool:
    """A keyword where only a name can stand is a name: no word that cannot stand there."""
    terminal = next((name for name, example in EXAMPLES.items() if example == word), "")
    return terminal in SOFT and "NAME" in prefix.accepts


def complaints(prefix: Prefix, word: str) -> tuple[Diagnostic, ...]:
    """The syntax errors of a text with a word behind it."""
    text = f"{prefix.text} {word}".strip(" ")
    return tuple(found for found in lint_text(text).diagnostics if found.rule == "syntax") if text else ()
