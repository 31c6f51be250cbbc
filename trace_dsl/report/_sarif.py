"""Findings as SARIF 2.1.0, which code hosts and editors read: https://docs.oasis-open.org/sarif/sarif/v2.1.0/."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from trace_dsl.checks import RULES
from trace_dsl.lint import LintResult
from trace_dsl.model import Diagnostic, Place, Replacement, Severity
from trace_dsl.report._programs import whole_message

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning"}
_INDEX = {name: index for index, name in enumerate(RULES)}


def sarif(results: Iterable[LintResult]) -> str:
    """All findings as one SARIF log with one run. Paths are as they were given: relative ones stay relative."""
    import json  # the other formats do without

    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": _driver()},
                "columnKind": "unicodeCodePoints",
                "invocations": [{"executionSuccessful": True}],
                "results": [_result(result, found) for result in results for found in result.diagnostics],
            }
        ],
    }
    return json.dumps(log, indent=2)


def _driver() -> dict[str, object]:
    driver: dict[str, object] = {
        "name": "trace-dsl",
        "rules": [
            {
                "id": rule.name,
                "shortDescription": {"text": rule.summary},
                "defaultConfiguration": {"level": _LEVELS[rule.severity], "enabled": not rule.pedantic},
            }
            for rule in RULES.values()
        ],
    }
    from importlib import metadata  # slow to import, and of use here alone

    with suppress(metadata.PackageNotFoundError):  # run from its source tree
        driver["version"] = metadata.version("trace-dsl")
    return driver


def _result(result: LintResult, found: Diagnostic) -> dict[str, object]:
    shown: dict[str, object] = {
        "ruleId": found.rule,
        "ruleIndex": _INDEX[found.rule],
        "level": _LEVELS[found.severity],
        "message": {"text": whole_message(found)},
        "locations": [_location(result, found.place)],
    }
    if found.others:
        shown["relatedLocations"] = [
            {**_location(result, other.place), "id": number, "message": {"text": other.note}}
            for number, other in enumerate(found.others, start=1)
        ]
    if found.replacement is not None:
        shown["fixes"] = [_fix(result, found, found.replacement)]
    return shown


def _fix(result: LintResult, found: Diagnostic, replacement: Replacement) -> dict[str, object]:
    change = {"deletedRegion": _region(replacement.place), "insertedContent": {"text": replacement.text}}
    artifact = {"uri": _uri(replacement.place.path or result.path)}
    return {
        "description": {"text": found.fix},
        "artifactChanges": [{"artifactLocation": artifact, "replacements": [change]}],
    }


def _location(result: LintResult, place: Place) -> dict[str, object]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(place.path or result.path)},
            "region": _region(place),
        }
    }


def _region(place: Place) -> dict[str, object]:
    return {
        "startLine": place.line,
        "startColumn": place.column,
        "endLine": place.end_line,
        "endColumn": place.end_column,
    }


def _uri(path: str) -> str:
    if Path(path).is_absolute():
        return Path(path).as_uri()
    return quote(os.fsencode(Path(path).as_posix()), safe="/")
