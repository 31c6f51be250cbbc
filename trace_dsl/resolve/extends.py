"""`extends "other.trace"`: the statements of another spec, then those of this one.

A `let`, teacher, rollout source or route of the same name replaces the other spec's, in its place. The name of a route
is its selector: a spec that says anything about `key` says everything about `key`. New routes go before `rest`. `spans`
and `advantage` are one of a kind, so they replace.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trace_dsl.errors import SpecError
from trace_dsl.model import DEFAULT_TEACHER, REST, Diagnostic, Severity
from trace_dsl.rules import LanguageRule
from trace_dsl.spec_files import read_spec_bytes
from trace_dsl.syntax import ParsedSource, parse_source
from trace_dsl.syntax.parse import MAX_STATEMENTS
from trace_dsl.syntax.tree import (
    AdvantageStatement,
    BrokenStatement,
    ExtendsStatement,
    LetStatement,
    RolloutsStatement,
    RouteStatement,
    SpansStatement,
    Statement,
    StatementKind,
    TeacherStatement,
)

MAX_FILES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """All statements of a spec and those it extends, in order; `sources` holds every file that was read."""

    statements: tuple[Statement, ...]
    sources: tuple[ParsedSource, ...]
    diagnostics: tuple[Diagnostic, ...]


def merge(source: ParsedSource) -> Merged:
    """Put the statements of extended specs in place. Reads the files that `extends` names, and nothing else."""
    return _merge(source, (_real(source.path),), _Budget(files=MAX_FILES - 1, statements=MAX_STATEMENTS))


@dataclass(slots=True)
class _Budget:
    """What may still be read: specs that extend several others, which do too, soon name more than can be."""

    files: int
    statements: int


def _real(path: Path | str) -> str:
    """A path without links; one that goes in a circle stays as it is."""
    return os.path.realpath(path)


def _merge(source: ParsedSource, chain: tuple[str, ...], budget: _Budget) -> Merged:
    statements: tuple[Statement, ...] = ()
    sources = [source]
    diagnostics = list(source.diagnostics)
    own: list[Statement] = []
    for statement in source.statements:
        if not isinstance(statement, ExtendsStatement):
            own.append(statement)
            continue
        base = _read(source, statement, chain, budget)
        if isinstance(base, Diagnostic):
            diagnostics.append(base)
            own.append(
                BrokenStatement(
                    kind=StatementKind.EXTENDS,
                    declares=(),
                    mentions=frozenset({REST}),
                    place=statement.place,
                )
            )
            continue
        inner = _merge(base, (*chain, _real(base.path)), budget)
        statements = _overlay(statements, inner.statements)
        sources.extend(inner.sources)
        diagnostics.extend(inner.diagnostics)
    return Merged(
        statements=_overlay(statements, tuple(own)) if statements else tuple(own),
        sources=tuple(sources),
        diagnostics=tuple(diagnostics),
    )


def _read(
    source: ParsedSource, statement: ExtendsStatement, chain: tuple[str, ...], budget: _Budget
) -> ParsedSource | Diagnostic:
    def refuse(message: str, fix: str) -> Diagnostic:
        return Diagnostic(
            rule=LanguageRule.BAD_EXTENDS.value,
            severity=Severity.ERROR,
            place=statement.target.place,
            message=message,
            fix=fix,
            consequence="this spec would run without what it builds on",
        )

    target = statement.target.value
    if not target.strip() or "\0" in target or Path(target).is_absolute():
        return refuse(
            f'"{target}" is no relative path', "give the path from this file's folder, so that both can move together"
        )
    if any("\ud800" <= character <= "\udfff" for character in target):
        return refuse(f'"{target}" holds half a character, which no path does', "write the path anew")
    path = Path(source.path).parent / target
    if _real(path) in chain:
        return refuse(f'"{target}" extends this spec in turn', "break the circle")
    if budget.files <= 0:
        return refuse(f"more than {MAX_FILES} specs are read for this one", "merge some of them")
    budget.files -= 1
    try:
        spec = read_spec_bytes(str(path))
    except SpecError as error:
        return refuse(str(error), "check the path, from this file's folder")
    base = parse_source(str(path), spec.text, place_path=str(path))
    budget.statements -= len(base.statements)
    if budget.statements < 0:
        message = f"the specs that this one extends have more than {MAX_STATEMENTS:,} statements"
        return refuse(message, "leave out what this spec does not need")
    return base


def _key(statement: Statement) -> object:
    """What makes two statements the same one; None when they never are."""
    match statement:
        case LetStatement(name=name):
            return ("let", name.name)
        case RolloutsStatement(name=name):
            return ("rollouts", name.name)
        case TeacherStatement(name=name):
            return ("teacher", DEFAULT_TEACHER if name is None else name.name)
        case RouteStatement(selectors=selectors):
            return ("route", frozenset(selector.name for selector in selectors))
        case SpansStatement():
            return "spans"
        case AdvantageStatement():
            return "advantage"
        case ExtendsStatement() | BrokenStatement():
            return None


def _overlay(base: tuple[Statement, ...], own: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """`own` laid over `base`."""
    replaced: dict[object, list[Statement]] = {}
    for statement in own:
        key = _key(statement)
        if key is not None:
            replaced.setdefault(key, []).append(statement)
    placed: set[object] = set()
    result: list[Statement] = []
    for statement in base:
        key = _key(statement)
        if key is None or key not in replaced:
            result.append(statement)
        elif key not in placed:
            placed.add(key)
            result.extend(replaced[key])
    added = [statement for statement in own if _key(statement) not in placed]
    rest = next((i for i, statement in enumerate(result) if _is_rest(statement)), len(result))
    before = [statement for statement in added if not _is_rest(statement)]
    return (*result[:rest], *before, *result[rest:], *(s for s in added if _is_rest(s)))


def _is_rest(statement: Statement) -> bool:
    return isinstance(statement, RouteStatement) and any(s.name == REST for s in statement.selectors)
