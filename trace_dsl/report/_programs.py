"""Findings for programs: JSON, and annotations of a GitHub workflow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trace_dsl.lint import LintResult
from trace_dsl.model import Diagnostic


def whole_message(found: Diagnostic) -> str:
    """What a finding says, what it costs and how to fix it, a line each."""
    parts = (("cost", found.consequence), ("fix", found.fix))
    return "\n".join([found.message, *(f"{word}: {text}" for word, text in parts if text)])


def as_json(results: Iterable[LintResult]) -> str:
    """All findings as a JSON array, one object a finding."""
    import json  # the other formats do without

    return json.dumps([_as_object(result, found) for result in results for found in result.diagnostics], indent=2)


def github(results: Iterable[LintResult]) -> Iterator[str]:
    """One workflow command a finding, which GitHub shows on the line of a pull request that it is about.

    https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    """
    for result in results:
        for found in result.diagnostics:
            place = found.place
            properties = {
                "file": place.path or result.path,
                "line": str(place.line),
                "endLine": str(place.end_line),
                "title": found.rule,
            }
            if place.end_line == place.line:  # columns of a place over several lines would be refused
                properties |= {"col": str(place.column), "endColumn": str(place.end_column)}
            named = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
            yield f"::{found.severity.value} {named}::{_escaped(whole_message(found))}"


def _escaped(text: str, also: str = "") -> str:
    """What would end a workflow command or one of its properties, by its code."""
    for character in "%\r\n" + also:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def _as_object(result: LintResult, found: Diagnostic) -> dict[str, object]:
    return {
        "path": found.place.path or result.path,
        "line": found.place.line,
        "column": found.place.column,
        "end_line": found.place.end_line,
        "end_column": found.place.end_column,
        "severity": found.severity.value,
        "rule": found.rule,
        "message": found.message,
        "consequence": found.consequence,
        "fix": found.fix,
        "replacement": _replacement(result, found),
        "others": [
            {
                "path": other.place.path or result.path,
                "line": other.place.line,
                "column": other.place.column,
                "note": other.note,
            }
            for other in found.others
        ],
    }


def _replacement(result: LintResult, found: Diagnostic) -> dict[str, object] | None:
    """The fix as a change of the text, where there is one."""
    if found.replacement is None:
        return None
    place = found.replacement.place
    return {
        "path": place.path or result.path,
        "line": place.line,
        "column": place.column,
        "end_line": place.end_line,
        "end_column": place.end_column,
        "text": found.replacement.text,
    }
