"""Findings as an editor shows them.

A finding in a spec that this one extends is shown at the `extends` that brings it in, with the real place beside it.
A file's own list belongs to the document that is open for it: two open specs that extend one base would overwrite each
other's findings there, and closing them would leave findings in a file that nobody looks at.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from lsprotocol import types

from trace_dsl.checks import RULES
from trace_dsl.checks.removals import UNUSED
from trace_dsl.lsp.document import Document
from trace_dsl.model import Diagnostic, Place, Severity
from trace_dsl.report import whole_message
from trace_dsl.syntax.tree import ExtendsStatement

SOURCE = "trace-dsl"
SETTINGS = "settings"
_SEVERITIES = {Severity.ERROR: types.DiagnosticSeverity.Error, Severity.WARNING: types.DiagnosticSeverity.Warning}


def diagnostics(document: Document) -> list[types.Diagnostic]:
    """Everything that is wrong with a spec, then what is wrong with the settings it is judged by."""
    found = [shown(document, one) for one in document.result.diagnostics]
    return found + [_of_settings(problem) for problem in document.around.problems]


def shown(document: Document, found: Diagnostic) -> types.Diagnostic:
    """One finding as the editor shows it."""
    inside = bool(found.place.path)
    place = _extends_of(document, found.place) if inside else found.place
    message = whole_message(found)
    related = [_related(document, other.place, other.note) for other in found.others]
    if inside:
        message = f"in {Path(found.place.path).name}: {message}"
        related.insert(0, _related(document, found.place, found.message))
    return types.Diagnostic(
        range=document.lines.range(place),
        severity=_SEVERITIES[found.severity],
        code=found.rule,
        code_description=_page(document, found.rule),
        source=SOURCE,
        message=message,
        tags=[types.DiagnosticTag.Unnecessary] if found.rule in UNUSED and not inside else None,
        related_information=related or None,
    )


def _related(document: Document, place: Place, note: str) -> types.DiagnosticRelatedInformation:
    lines = document.lines_of(place)
    return types.DiagnosticRelatedInformation(
        location=types.Location(uri=document.uri_of(place), range=lines.range(place)), message=note
    )


def _page(document: Document, rule: str) -> types.CodeDescription | None:
    if not document.around.documentation or rule not in RULES:
        return None
    return types.CodeDescription(href=f"{document.around.documentation}#{quote(rule)}")


def _extends_of(document: Document, place: Place) -> Place:
    """The `extends` of the document through which a place in another file comes in."""
    for statement in document.parsed.statements:
        if isinstance(statement, ExtendsStatement) and place.path in _files_behind(document, statement):
            return statement.target.place
    raise AssertionError(f"no statement of {document.path} brings in {place.path}")


def _files_behind(document: Document, statement: ExtendsStatement) -> set[str]:
    """The files that one `extends` brings in, directly or in turn."""
    bases = {base.path: base for base in document.bases}
    found: set[str] = set()
    waiting = [_target(document.parsed.path, statement)]
    while waiting:
        path = waiting.pop()
        if path in bases and path not in found:
            found.add(path)
            inner = bases[path].statements
            waiting.extend(_target(path, one) for one in inner if isinstance(one, ExtendsStatement))
    return found


def _target(path: str, statement: ExtendsStatement) -> str:
    return str(Path(path).parent / statement.target.value)


def _of_settings(problem: str) -> types.Diagnostic:
    start = types.Position(line=0, character=0)
    return types.Diagnostic(
        range=types.Range(start=start, end=start),
        severity=types.DiagnosticSeverity.Error,
        code=SETTINGS,
        source=SOURCE,
        message=problem,
    )
