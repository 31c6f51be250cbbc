"""The statements of a spec, for the editor's outline."""

from __future__ import annotations

from typing import assert_never

from lsprotocol import types

from trace_dsl.lsp.document import Document
from trace_dsl.model import DEFAULT_TEACHER, Place
from trace_dsl.resolve.arguments import function_of
from trace_dsl.syntax.tree import (
    AdvantageStatement,
    BrokenStatement,
    Callable,
    ExtendsStatement,
    LetStatement,
    RolloutsStatement,
    RouteStatement,
    SpansStatement,
    Statement,
    StatementKind,
    TeacherStatement,
)

_K = types.SymbolKind


def outline(document: Document) -> list[types.DocumentSymbol]:
    """One entry a statement, in order; those that do not parse with what can be read of them."""
    return [_symbol(document, statement) for statement in document.parsed.statements]


def _symbol(document: Document, statement: Statement) -> types.DocumentSymbol:
    match statement:
        case SpansStatement(labels=labels):
            children = [_entry(document, function_of(label).name, _K.EnumMember, label.place) for label in labels]
            return _entry(document, "spans", _K.Enum, statement.place, children=children)
        case TeacherStatement(name=name):
            given = DEFAULT_TEACHER if name is None else name.name
            return _entry(document, given, _K.Class, statement.place, detail=_made(document, statement.value))
        case AdvantageStatement():
            return _entry(document, "advantage", _K.Property, statement.place, detail=_made(document, statement.value))
        case RolloutsStatement():
            return _entry(
                document, statement.name.name, _K.Array, statement.place, detail=_made(document, statement.value)
            )
        case LetStatement(name=let):
            return _entry(document, let.name, _K.Variable, statement.place, at=let.place, detail="let")
        case ExtendsStatement(target=target):
            return _entry(document, f'extends "{target.value}"', _K.File, statement.place, at=target.place)
        case RouteStatement():
            losses = " + ".join(loss.text for loss in statement.losses)
            return _entry(document, statement.text, _K.Function, statement.place, detail=losses)
        case BrokenStatement(kind=kind):
            words = ", ".join(statement.declares) or _first_word(document, statement.place)
            shown = _K.Function if kind is StatementKind.ROUTE else _K.Variable
            return _entry(document, words, shown, statement.place, detail="does not parse")
        case _:
            assert_never(statement)


def _entry(
    document: Document,
    name: str,
    kind: types.SymbolKind,
    place: Place,
    *,
    at: Place | None = None,
    detail: str = "",
    children: list[types.DocumentSymbol] | None = None,
) -> types.DocumentSymbol:
    whole = document.lines.range(place)
    return types.DocumentSymbol(
        name=name,
        kind=kind,
        range=whole,
        selection_range=whole if at is None else document.lines.range(at),
        detail=detail or None,
        children=children,
    )


def _made(document: Document, value: Callable) -> str:
    """The right side of a statement on one line."""
    place = value.place
    lines = [document.lines.line(number) for number in range(place.line, place.end_line + 1)]
    lines[-1] = lines[-1][: place.end_column - 1]
    lines[0] = lines[0][place.column - 1 :]
    return " ".join(" ".join(lines).split())


def _first_word(document: Document, place: Place) -> str:
    return document.lines.line(place.line)[place.column - 1 : place.end_column - 1] or "?"
