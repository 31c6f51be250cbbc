"""Where a name is given, and where else it stands."""

from __future__ import annotations

from pathlib import Path

from lsprotocol import types

from trace_dsl.lsp.document import Document
from trace_dsl.lsp.names import GIVEN, Named, Role
from trace_dsl.model import Place
from trace_dsl.syntax.tree import ExtendsStatement


def definition(document: Document, position: types.Position) -> types.Location | None:
    """Where the name at a position is given: in the document, else in what it extends. For `extends`, the file."""
    line, column = document.lines.column(position)
    extended = _extended_at(document, line, column)
    if extended is not None:
        start = types.Position(line=0, character=0)
        return types.Location(uri=extended.resolve().as_uri(), range=types.Range(start=start, end=start))
    named = document.name_at(line, column)
    if named is None or named.role not in GIVEN:
        return None
    places = [one.place for one in same(document, named) if one.gives]
    if not places and named.role is Role.LABEL:  # no `spans` statement: the first route that takes it
        places = [one.place for one in same(document, named)]
    return _location(document, places[0]) if places else None


def references(document: Document, position: types.Position, *, with_definition: bool) -> list[types.Location]:
    """Everywhere the name at a position stands, in the document and in what it extends."""
    named = document.name_at(*document.lines.column(position))
    if named is None or named.role not in GIVEN:
        return []
    return [_location(document, one.place) for one in same(document, named) if with_definition or not one.gives]


def same(document: Document, named: Named) -> tuple[Named, ...]:
    """The occurrences of a name that mean the same thing, those of the document first."""
    everything = (*document.names, *document.base_names)
    return tuple(one for one in everything if (one.role, one.name) == (named.role, named.name))


def _location(document: Document, place: Place) -> types.Location:
    return types.Location(uri=document.uri_of(place), range=document.lines_of(place).range(place))


def _extended_at(document: Document, line: int, column: int) -> Path | None:
    """The file that an `extends` at a place names, when it could be read."""
    read = {base.path for base in document.bases}
    for statement in document.parsed.statements:
        if isinstance(statement, ExtendsStatement):
            place, path = statement.target.place, document.path.parent / statement.target.value
            if place.line == line and place.column <= column <= place.end_column and str(path) in read:
                return path
    return None
