"""A let, teacher, label or rollout source under another name, where that changes nothing else."""

from __future__ import annotations

import re
from collections import Counter

from lsprotocol import types

from trace_dsl.errors import SpecError
from trace_dsl.explain import find
from trace_dsl.format.files import extended_by
from trace_dsl.lsp.document import Document, analyse
from trace_dsl.lsp.names import GIVEN, Named
from trace_dsl.lsp.navigation import same
from trace_dsl.vocabulary import NO_LOSS, RESERVED

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def renamed_range(document: Document, position: types.Position) -> types.Range:
    """The name at a position that can be renamed. Raises SpecError that says why it cannot."""
    return document.lines.range(_renamable(document, position).place)


def rename(document: Document, position: types.Position, name: str) -> types.WorkspaceEdit:
    """The name at a position, everywhere in the document, replaced. Raises SpecError where the new one would clash."""
    named = _renamable(document, position)
    if not _NAME.fullmatch(name):
        raise SpecError(f"{name!r} is no name: a letter or _ first, then letters, digits and _")
    if find(name) or name in RESERVED or name == NO_LOSS:
        raise SpecError(f"{name!r} is a word of the language")
    if any(one.name == name for one in (*document.names, *document.base_names)):
        raise SpecError(f"{name!r} stands in this spec already")
    edits = [types.TextEdit(range=document.lines.range(one.place), new_text=name) for one in same(document, named)]
    _refuse_new_findings(document, named, name)
    return types.WorkspaceEdit(changes={document.uri: edits})


def _renamable(document: Document, position: types.Position) -> Named:
    named = document.name_at(*document.lines.column(position))
    if named is None or named.role not in GIVEN:
        raise SpecError("only lets, teachers, labels and rollouts have names that can be changed")
    if not document.parses:
        raise SpecError("a line of this spec does not parse, so not every use of the name is known")
    occurrences = same(document, named)
    given = [one for one in occurrences if one.gives]
    elsewhere = next((one.place.path for one in occurrences if one.place.path), None)
    if elsewhere is not None:
        raise SpecError(f"`{named.name}` stands in {elsewhere} too, which this spec extends")
    if any(one.word for one in given):
        raise SpecError(f"`{named.name}` is the teacher without a name; give it one first: teacher NAME = ...")
    child = extended_by(document.path)
    if child is not None:
        raise SpecError(f"{child} extends this spec and may use `{named.name}`")
    return named


def _refuse_new_findings(document: Document, named: Named, name: str) -> None:
    """Try the new name: whatever is found afterwards must have been found before."""
    lines = list(document.lines.lines)
    for one in sorted(same(document, named), key=lambda one: one.place, reverse=True):
        place = one.place
        line = lines[place.line - 1]
        lines[place.line - 1] = line[: place.column - 1] + name + line[place.end_column - 1 :]
    after = analyse(
        document.uri,
        "\n".join(lines),
        document.path,
        encoding=document.lines.encoding,
        around=document.around,
    )
    new = Counter(one.rule for one in after.result.diagnostics) - Counter(
        one.rule for one in document.result.diagnostics
    )
    if new:
        raise SpecError(f"under the name {name!r} there would be new findings: {', '.join(sorted(new))}")
