"""What an editor offers to do about a finding: write another word, take out what is unused, ignore a rule."""

from __future__ import annotations

from collections.abc import Iterator

from lsprotocol import types

from trace_dsl.checks import RULES, unused_suppression
from trace_dsl.checks.removals import UNUSED
from trace_dsl.errors import SpecError
from trace_dsl.format.files import extended_by
from trace_dsl.lint import fix_text, removal_of
from trace_dsl.lsp.diagnostics import shown
from trace_dsl.lsp.document import Document
from trace_dsl.lsp.edits import edits_to
from trace_dsl.lsp.positions import overlap
from trace_dsl.model import Diagnostic, Place
from trace_dsl.rules import LANGUAGE_RULES
from trace_dsl.syntax.lines import split_lines
from trace_dsl.syntax.suppressions import ADDRESSED, WELL_FORMED

KINDS = (types.CodeActionKind.QuickFix, types.CodeActionKind.SourceFixAll)
_NEVER_IGNORED = frozenset({*(rule.name for rule in LANGUAGE_RULES), unused_suppression.RULE.name})


def actions(document: Document, where: types.Range, only: tuple[str, ...] = ()) -> list[types.CodeAction]:
    """What can be done about the findings that touch a range, of the kinds that are asked for (none: all)."""
    found: list[types.CodeAction] = []
    if _asked(types.CodeActionKind.QuickFix, only):
        touching = [one for one in document.result.diagnostics if overlap(shown(document, one).range, where)]
        found += [action for one in touching if not one.place.path for action in _about(document, one)]
    if _asked(types.CodeActionKind.SourceFixAll, only):
        found += _everything(document)
    return found


def _asked(kind: str, only: tuple[str, ...]) -> bool:
    """Whether a kind is among those asked for; a kind stands for those below it."""
    return not only or any(kind == wanted or kind.startswith(f"{wanted}.") for wanted in only)


def _about(document: Document, found: Diagnostic) -> Iterator[types.CodeAction]:
    if found.replacement is not None:
        change = types.TextEdit(range=document.lines.range(found.replacement.place), new_text=found.replacement.text)
        yield _action(document, f"write `{found.replacement.text}`", [change], found, preferred=True)
    if found.rule in UNUSED and not _may_be_read_elsewhere(document):
        removal = removal_of(found, document.text, path=str(document.path))
        if removal is not None:
            edits = edits_to(document, removal.text)
            yield _action(document, f"take out `{removal.removed}`", edits, found, preferred=True)
    if found.rule in RULES and found.rule not in _NEVER_IGNORED:
        yield from _ignoring(document, found)


def _may_be_read_elsewhere(document: Document) -> bool:
    """Whether another spec extends this one, or may: one that cannot be read."""
    try:
        return extended_by(document.path) is not None
    except SpecError:
        return True


def _ignoring(document: Document, found: Diagnostic) -> Iterator[types.CodeAction]:
    """A comment that ignores the rule. Its reason is left to write: without one the linter does not accept it."""
    number = found.place.line
    title = f"ignore {found.rule} on this line"
    comment = next((one for one in split_lines(document.text).comments if one.place.line == number), None)
    if comment is None:
        line = document.lines.line(number)
        change = _change(document, number, len(line.rstrip()) + 1, len(line) + 1, f"  # trace: ignore[{found.rule}] ")
        yield _action(document, title, [change], found)
        return
    start, ignores = comment.place.column, WELL_FORMED.match(comment.text)
    if ignores is not None:
        end = start + ignores.end("rules")
        named = f", {found.rule}" if ignores["rules"].strip() else found.rule
        yield _action(document, title, [_change(document, number, end, end, named)], found)
    elif not ADDRESSED.match(comment.text):
        reason = comment.text[1:].strip()
        text = f"# trace: ignore[{found.rule}] {reason}"
        change = _change(document, number, start, start + len(comment.text), text)
        yield _action(document, f"{title}, its comment being the reason", [change], found)


def _change(document: Document, line: int, start: int, end: int, text: str) -> types.TextEdit:
    place = Place(line=line, column=start, end_line=line, end_column=end)
    return types.TextEdit(range=document.lines.range(place), new_text=text)


def _everything(document: Document) -> list[types.CodeAction]:
    """What `trace-dsl lint --fix` does, when it does anything."""
    if not any(found.rule in UNUSED for found in document.result.diagnostics) or _may_be_read_elsewhere(document):
        return []
    around = document.around
    fixed = fix_text(document.text, around.facts, path=str(document.path), selection=around.rules)
    if not fixed.removed:
        return []
    change = types.WorkspaceEdit(changes={document.uri: edits_to(document, fixed.text)})
    return [types.CodeAction(title="take out what nothing uses", kind=types.CodeActionKind.SourceFixAll, edit=change)]


def _action(
    document: Document, title: str, edits: list[types.TextEdit], found: Diagnostic, *, preferred: bool = False
) -> types.CodeAction:
    return types.CodeAction(
        title=title,
        kind=types.CodeActionKind.QuickFix,
        diagnostics=[shown(document, found)],
        is_preferred=preferred or None,
        edit=types.WorkspaceEdit(changes={document.uri: edits}),
    )
