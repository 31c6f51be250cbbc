"""`extends "other.trace"`: the statements of another spec, then those of this one.

A `let`, teacher, rollout source or route of the same name replaces the other spec's, in its place. The name of a route
is its selector: a spec that says anything about `key` says everything about `key`. New routes go before `rest`. `spans`
and `advantage` are one of a kind, so they replace.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trace_dsl.model import DEFAULT_TEACHER, REST, Diagnostic, Severity
from trace_dsl.rules import LanguageRule
from trace_dsl.syntax import ParsedSource, parse_source
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

MAX_CHAIN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """All statements of a spec and those it extends, in order; `sources` holds every file that was read."""

    statements: tuple[Statement, ...]
    sources: tuple[ParsedSource, ...]
    diagnostics: tuple[Diagnostic, ...]


def merge(source: ParsedSource) -> Merged:
    """Put the statements of extended specs in place. Reads the files that `extends` names, and nothing else."""
    return _merge(source, (Path(source.path).resolve(),))


def _merge(source: ParsedSource, chain: tuple[Path, ...]) -> Merged:
    statements: tuple[Statement, ...] = ()
    sources = [source]
    diagnostics = list(source.diagnostics)
    own: list[Statement] = []
    for statement in source.statements:
        if not isinstance(statement, ExtendsStatement):
            own.append(statement)
            continue
        base = _read(source, statement, chain)
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
        inner = _merge(base, (*chain, Path(base.path).resolve()))
        statements = _overlay(statements, inner.statements)
        sources.extend(inner.sources)
        diagnostics.extend(inner.diagnostics)
    return Merged(
        statements=_overlay(statements, tuple(own)) if statements else tuple(own),
        sources=tuple(sources),
        diagnostics=tuple(diagnostics),
    )


def _read(source: ParsedSource, statement: ExtendsStatement, chain: tuple[Path, ...]) -> ParsedSource | Diagnostic:
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
    path = Path(source.path).parent / target
    if path.resolve() in chain:
        return refuse(f'"{target}" extends this spec in turn', "break the circle")
    if len(chain) >= MAX_CHAIN:
        return refuse(f"more than {MAX_CHAIN} specs extend one another", "merge some of them")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        return refuse(f'"{target}" cannot be read: {str(reason).lower()}', "check the path, from this file's folder")
    return parse_source(str(path), text, place_path=str(path))


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
