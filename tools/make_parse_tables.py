"""Writes trace_dsl/syntax/tables.py from grammar/trace.lark.

    python tools/make_parse_tables.py

lark (a development dependency) analyses the grammar. What it finds is written as plain data, so that reading a spec
needs neither lark nor the time to analyse a grammar. A test holds that the tables are those of the grammar.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lark import Lark
from lark.grammar import Rule
from lark.parsers.lalr_analysis import ParseTable, Shift

ROOT = Path(__file__).parents[1]
GRAMMAR = ROOT / "grammar" / "trace.lark"
TABLES = ROOT / "trace_dsl" / "syntax" / "tables.py"

_HEAD = '''\
"""The LALR(1) tables of grammar/trace.lark. Made by `python tools/make_parse_tables.py`; change the grammar instead.

LEXER        what is skipped, then one of the terminals, if there is one: a group each
SOFT         keywords that are plain names where only a name can stand
RULES        (what is built, "" for its only child, "*" for children of the rule around it; symbols that are taken;
             what becomes of each: k kept, - left out, * its children are taken, n nothing stands there; its kind)
ACTIONS      for each state: terminal -> n: take it and go to state n; ~n: rule n is complete.
             Where $END is taken, the statement is complete
GOTOS        for each state: kind of the complete rule -> the state it leads to
"""

# ruff: noqa: E501
# fmt: off
'''


def parser() -> Lark:
    """lark's own parser of the grammar, one statement a parse."""
    return Lark(GRAMMAR.read_text(encoding="utf-8"), parser="lalr", lexer="contextual", propagate_positions=True)


def parse_table(lark: Lark) -> ParseTable:
    """The states of lark's parser."""
    table: ParseTable = lark.parser.parser._parse_table
    return table


def _lexer(lark: Lark) -> str:
    order = sorted(lark.terminals, key=lambda x: (-x.priority, -x.pattern.max_width, -len(x.pattern.value), x.name))
    ignored = {x.name: x.pattern.to_regexp() for x in order if x.name in lark.ignore_tokens}
    taken = "|".join(f"(?P<{x.name}>{x.pattern.to_regexp()})" for x in order if x.name not in ignored)
    return f"(?:{'|'.join(ignored.values())})*(?:{taken})?"


def _rule(rule: Rule) -> tuple[str, int, str, str]:
    origin = str(rule.origin.name)
    symbols = iter(rule.expansion)
    absent = rule.options.empty_indices or (False,) * len(rule.expansion)
    marks = "".join("n" if none else _mark(next(symbols)) for none in absent)
    if origin.startswith("_"):
        action = "*"
    elif rule.alias is not None or not rule.options.expand1:
        action = str(rule.alias or origin)
    else:
        assert marks == "k", f"an alternative of ?{origin} with several symbols needs a name"
        action = ""
    return action, len(rule.expansion), marks, origin


def _mark(symbol: object) -> str:
    if getattr(symbol, "filter_out", False):
        return "-"
    return "*" if getattr(symbol, "name", "").startswith("_") else "k"


def source() -> str:
    """The text of tables.py."""
    lark = parser()
    table = parse_table(lark)
    (start,) = table.start_states.values()
    (end,) = table.end_states.values()
    # Numbers that do not depend on how lark happens to number states: in the order they are first reached.
    numbers = {start: 0}
    for state in (order := [start]):
        for _, (action, target) in sorted(table.states[state].items()):
            if action is Shift and target not in numbers:
                numbers[target] = len(numbers)
                order.append(target)
    rules: dict[Rule, int] = {}
    actions, gotos = [], []
    for state in order:
        row: dict[str, int] = {}
        goto: dict[str, int] = {}
        for name, (action, target) in sorted(table.states[state].items()):
            if action is not Shift:
                row[name] = ~rules.setdefault(target, len(rules))
            elif name.isupper():
                row[name] = numbers[target]
            else:
                goto[name] = numbers[target]
        actions.append({"$END": numbers[end]} if state == end else row)
        gotos.append(goto)
    soft = sorted(terminal.name for terminal in lark.terminals if terminal.priority > 0)
    blocks = [
        f"LEXER = (\n{_quoted(_lexer(lark))})",
        f"SOFT = frozenset({soft!r})",
        "RULES: tuple[tuple[str, int, str, str], ...] = (\n" + "".join(f"    {_rule(x)!r},\n" for x in rules) + ")",
        "ACTIONS: tuple[dict[str, int], ...] = (\n" + "".join(f"    {row!r},\n" for row in actions) + ")",
        "GOTOS: tuple[dict[str, int], ...] = (\n" + "".join(f"    {row!r},\n" for row in gotos) + ")",
    ]
    return _HEAD + "\n" + "\n\n".join(blocks) + "\n"


def _quoted(pattern: str) -> str:
    """A pattern as string literals, one a group."""
    parts = pattern.split("(?P<")
    return "".join(f"    {part if i == 0 else '(?P<' + part!r}\n" for i, part in enumerate(parts))


if __name__ == "__main__":
    TABLES.write_text(source(), encoding="utf-8")
    print(f"wrote {TABLES.relative_to(ROOT)}", file=sys.stderr)
