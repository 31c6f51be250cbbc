"""Findings that are settled by taking something out: an unused let, an unused teacher, an unused ignore comment.

These are the only ones `lint --fix` acts on. Whether a removal is safe is decided by who applies it, from what the text
means and what is found in it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trace_dsl.checks import RULES, teacher_unused, unused_let, unused_suppression
from trace_dsl.model import Diagnostic, Place
from trace_dsl.syntax import ParsedSource
from trace_dsl.syntax.tree import LetStatement, Statement, TeacherStatement

_STATEMENTS: dict[str, type[Statement]] = {
    unused_let.RULE.name: LetStatement,
    teacher_unused.RULE.name: TeacherStatement,
}
# The rules whose findings are about what could be taken out.
UNUSED = frozenset({*_STATEMENTS, unused_suppression.RULE.name})


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """`text` is the whole spec without what a finding is about, `removed` what was taken out, on one line."""

    text: str
    removed: str


def removals(diagnostics: tuple[Diagnostic, ...], source: ParsedSource) -> Iterator[Removal]:
    """What could be taken out of a spec's own text, one removal a finding."""
    for found in diagnostics:
        if found.place.path:
            continue
        if found.rule in _STATEMENTS:
            yield from _statement(found, source)
        elif found.rule == unused_suppression.RULE.name and not RULES[unused_suppression.rule_of(found)].needs_facts:
            yield _suppression(found, source)  # what one run does not need, another may


def _statement(found: Diagnostic, source: ParsedSource) -> Iterator[Removal]:
    """The lines of the statement that a finding stands in, their comments with them."""
    kind = _STATEMENTS[found.rule]
    for statement in source.statements:
        place = statement.place
        if isinstance(statement, kind) and place.line <= found.place.line <= place.end_line:
            lines = source.text.split("\n")
            taken = lines[place.line - 1 : place.end_line]
            del lines[place.line - 1 : place.end_line]
            yield Removal(text="\n".join(lines), removed=" ".join(line.strip() for line in taken))


def _suppression(found: Diagnostic, source: ParsedSource) -> Removal:
    """One rule out of an ignore comment, or the whole comment when it names no other."""
    rule, place = unused_suppression.rule_of(found), found.place
    lines = source.text.split("\n")
    before, comment = _split_at(lines[place.line - 1], place)
    head, bracket, tail = comment.partition("[")
    named, closing, reason = tail.partition("]")
    left = [name.strip() for name in named.split(",") if name.strip() not in ("", rule)]
    if left:
        lines[place.line - 1] = f"{before}{head}{bracket}{', '.join(left)}{closing}{reason}"
        removed = f"`{rule}` of {comment.strip()}"
    else:
        removed = comment.strip()
        lines[place.line - 1] = before.rstrip()
        if not before.strip():
            del lines[place.line - 1]
    return Removal(text="\n".join(lines), removed=removed)


def _split_at(line: str, place: Place) -> tuple[str, str]:
    return line[: place.column - 1], line[place.column - 1 :]
