"""Text -> syntax tree. Every statement is parsed alone; one that does not parse becomes a diagnostic."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from trace_dsl.model import REST, Diagnostic, OtherPlace, Place, Severity
from trace_dsl.spec_files import MAX_BYTES
from trace_dsl.syntax.build import TreeBuilder
from trace_dsl.syntax.lines import LogicalLine, split_lines
from trace_dsl.syntax.machine import Obstacle, parse
from trace_dsl.syntax.suppressions import Suppression, read_suppressions
from trace_dsl.syntax.tree import (
    BrokenStatement,
    Statement,
    StatementKind,
    depth_of,
    expressions_of,
)

if TYPE_CHECKING:
    from trace_dsl.syntax.messages import Advice

MAX_BRACKETS = 32
MAX_DEPTH = 60
MAX_LENGTH = 20_000
MAX_STATEMENTS = 2_000

_OTHER_FILE = "see whether this is the file you mean; a spec has one statement a line"
_A_SPEC = (
    "write a statement a line, as in `spans key(cap=25%)` or `key: fkl(anneal=linear(30))`; a run file goes to --run"
)
# A document mark; a key alone on its line with a list item below it; or one with a key below it, where there are two of
# them or the upper one is no label.
_YAML = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*(?P<sign>---|%YAML)[^\n]*(?:\n|\Z)")
_YAML_LIST = re.compile(
    r"^(?P<sign>[A-Za-z_]\w*:)[ \t]*(?:#[^\n]*)?\n(?:[ \t]*(?:#[^\n]*)?\n)*"
    r"(?:(?P<item>[ \t]*-[ \t]+[^\n]*)|[ \t]+[A-Za-z_]\w*:(?:[ \t][^\n]*)?)(?:\n|\Z)",
    flags=re.M,
)
_YAML_KEYS = frozenset({"spans:", "teacher:", "teachers:", "rollouts:", "routes:", "losses:", "lets:", "spec:"})

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STRING = re.compile(r'"[^"\n]*"?')
_WITHOUT_LET = re.compile(r"([A-Za-z_]\w*)\s*=(?!=)")
_DECLARED = {
    StatementKind.TEACHER: re.compile(r"teacher\s+([A-Za-z_]\w*)"),
    StatementKind.ROLLOUTS: re.compile(r"rollouts\s+([A-Za-z_]\w*)"),
    StatementKind.LET: re.compile(r"let\s+([A-Za-z_]\w*)"),
    StatementKind.SPANS: re.compile(r"(?:spans\s*:?\s*|[,)]\s*)([A-Za-z_]\w*)\b(?!\s*=)"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedSource:
    path: str
    text: str
    statements: tuple[Statement, ...]
    suppressions: tuple[Suppression, ...]
    diagnostics: tuple[Diagnostic, ...]


def parse_source(path: str, text: str, *, place_path: str = "") -> ParsedSource:
    """Parse a whole file; never raises. `place_path` goes into every place: empty for the spec, a path for its base."""
    if len(text) > MAX_BYTES:
        message = f"this spec is {len(text):,} characters long; at most {MAX_BYTES:,} are read"
        return _refused(path, text, Place(line=1, column=1, end_line=1, end_column=2, path=place_path), message)
    yaml = _YAML.match(text) or _yaml_blocks(text)
    if yaml is not None:
        row = text.count("\n", 0, yaml.start("sign")) + 1
        place = Place(line=row, column=1, end_line=row, end_column=1 + len(yaml["sign"]), path=place_path)
        return _refused(path, text, place, "this is YAML, and a spec is not", _A_SPEC)
    lines = split_lines(text, path=place_path)
    if len(lines.statements) > MAX_STATEMENTS:
        place = _place_at(lines.statements[MAX_STATEMENTS], place_path, 0, 1)
        message = f"this spec has {len(lines.statements):,} statements; at most {MAX_STATEMENTS:,} are read"
        return _refused(path, text, place, message)
    suppressions, diagnostics = read_suppressions(lines.comments)
    statements: list[Statement] = []
    found = list(diagnostics)
    for line in lines.statements:
        parsed = _parse_statement(line, place_path)
        if isinstance(parsed, Diagnostic):
            found.append(parsed)
            statements.append(_broken(line, place_path))
        else:
            statements.append(parsed)
            if line.stray_line is not None:
                found.append(_stray(line.stray_line, parsed.place))
    return ParsedSource(
        path=path,
        text=text,
        statements=tuple(statements),
        suppressions=suppressions,
        diagnostics=tuple(found),
    )


def _yaml_blocks(text: str) -> re.Match[str] | None:
    """The first block of YAML; None where one route alone is written over two lines."""
    blocks = tuple(islice(_YAML_LIST.finditer(text), 2))
    sure = len(blocks) > 1 or any(block["item"] is not None or block["sign"] in _YAML_KEYS for block in blocks)
    return blocks[0] if sure else None


def _refused(path: str, text: str, place: Place, message: str, fix: str = _OTHER_FILE) -> ParsedSource:
    """A file of which nothing is read. It may have all that the rules would miss."""
    found = _refusal(place, message, fix)
    unread = BrokenStatement(kind=StatementKind.ROUTE, declares=(), mentions=frozenset({REST}), place=place)
    return ParsedSource(path=path, text=text, statements=(unread,), suppressions=(), diagnostics=(found,))


@lru_cache(maxsize=4096)
def _parse_statement(line: LogicalLine, path: str) -> Statement | Diagnostic:
    """One statement, or why it is none. Variants of a spec share most lines, so statements are remembered."""
    refused = _too_large(line, path)
    if refused is not None:
        return refused
    builder = TreeBuilder(text=line.text, first_line=line.first_line, path=path)
    found = parse(line.text, builder.rules)
    if isinstance(found, Obstacle):
        from trace_dsl.syntax.messages import explain  # most specs have nothing to explain

        return _syntax_error(line, path, explain(found))
    statement: Statement = found
    if builder.operations < MAX_DEPTH:
        return statement
    if any(depth_of(expression) > MAX_DEPTH for expression in expressions_of(statement)):
        return _refusal(
            statement.place,
            f"this expression is more than {MAX_DEPTH} operations deep",
            "name parts of it with `let`",
        )
    return statement


def _deepest_bracket(text: str) -> int:
    """How many brackets are open at most, strings left out."""
    depth = deepest = 0
    in_string = False
    for character in text:
        in_string ^= character == '"' or (in_string and character == "\n")
        if not in_string:
            depth += (character == "(") - (character == ")")
            deepest = max(deepest, depth)
    return deepest


def _too_large(line: LogicalLine, path: str) -> Diagnostic | None:
    deepest = _deepest_bracket(line.text) if line.text.count("(") > MAX_BRACKETS else 0
    if len(line.text) <= MAX_LENGTH and deepest <= MAX_BRACKETS:
        return None
    place = _place_at(line, path, len(line.text) - len(line.text.lstrip()), 1)
    if len(line.text) > MAX_LENGTH:
        message = f"this statement is {len(line.text)} characters long; at most {MAX_LENGTH} are read"
        return _refusal(place, message, "split it into several statements")
    message = f"brackets are nested {deepest} deep; at most {MAX_BRACKETS} are read"
    return _refusal(place, message, "name parts of it with `let`")


def _refusal(place: Place, message: str, fix: str) -> Diagnostic:
    return Diagnostic(rule="syntax", severity=Severity.ERROR, place=place, message=message, fix=fix)


def _place_at(line: LogicalLine, path: str, at: int, length: int) -> Place:
    before = line.text[:at]
    row = before.count("\n")
    column = at - (before.rfind("\n") + 1) + 1
    number = line.first_line + row
    return Place(line=number, column=column, end_line=number, end_column=column + max(length, 1), path=path)


def _syntax_error(line: LogicalLine, path: str, advice: Advice) -> Diagnostic:
    others: tuple[OtherPlace, ...] = ()
    if advice.opened_at is not None:
        others = (OtherPlace(place=_place_at(line, path, advice.opened_at, 1), note="opened here"),)
    place = _place_at(line, path, advice.at, advice.length)
    if line.stray_line is not None and advice.at >= len(line.text.rstrip()):
        fix = (
            f"line {line.stray_line} looks like the rest of it: a statement goes on over line ends only inside brackets"
        )
    else:
        fix = advice.fix
    return Diagnostic(
        rule="syntax", severity=Severity.ERROR, place=place, message=advice.message, fix=fix, others=others
    )


def _stray(stray_line: int, statement: Place) -> Diagnostic:
    place = Place(line=stray_line, column=1, end_line=stray_line, end_column=2, path=statement.path)
    return Diagnostic(
        rule="syntax",
        severity=Severity.ERROR,
        place=place,
        message="this indented line belongs to no statement: a statement goes on over line ends only inside brackets",
        consequence="what stands on it would not take part in the run",
        fix="put it on the line before, or inside brackets",
        others=(OtherPlace(place=statement, note="this statement ended with its line"),),
    )


def _broken(line: LogicalLine, path: str) -> BrokenStatement:
    """What can be saved of a statement that does not parse: its kind, the names it declares and mentions."""
    text = _STRING.sub(" ", line.text).strip()
    words = _IDENTIFIER.findall(text)
    first = words[0] if words else ""
    kind = StatementKind(first) if first in {k.value for k in StatementKind if k is not StatementKind.ROUTE} else None
    pattern = None if kind is None else _DECLARED.get(kind)
    declares = tuple(pattern.findall(text)) if pattern is not None else ()
    if kind is None:
        forgotten = _WITHOUT_LET.match(text)
        kind = StatementKind.ROUTE if forgotten is None else StatementKind.LET
        declares = () if forgotten is None else (forgotten[1],)
    if kind is StatementKind.TEACHER and not declares:
        declares = ("teacher",)
    return BrokenStatement(
        kind=kind,
        declares=declares,
        mentions=frozenset(words),
        place=_place_at(line, path, len(line.text) - len(line.text.lstrip()), len(first)),
    )


__all__ = ["ParsedSource", "Suppression", "parse_source"]
