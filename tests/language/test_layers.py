"""Imports of the language point one way: model <- syntax <- resolve <- lint <- report <- cli, and checks <- lint."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "trace_dsl"
MODEL = {"errors", "facts", "model", "rules", "schedules", "vocabulary", "expressions"}
ALLOWED = {
    "syntax": MODEL | {"syntax"},
    "resolve": MODEL | {"syntax", "resolve"},
    "checks": MODEL | {"checks"},
    "lint": MODEL | {"syntax", "resolve", "checks"},
    "report": MODEL | {"lint"},
}


def imported(source: Path) -> set[str]:
    """The direct parts of trace_dsl that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("trace_dsl.")}
    return found


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_point_one_way(part: str) -> None:
    single = PACKAGE / f"{part}.py"
    for source in [single] if single.exists() else sorted((PACKAGE / part).glob("*.py")):
        assert imported(source) <= ALLOWED[part], source.name


@pytest.mark.parametrize("part", sorted(MODEL))
def test_the_nouns_import_no_layer(part: str) -> None:
    assert imported(PACKAGE / f"{part}.py") <= MODEL


def test_modules_stay_readable() -> None:
    for part in ("syntax", "resolve", "checks"):
        for source in (PACKAGE / part).glob("*.py"):
            assert len(source.read_text(encoding="utf-8").splitlines()) <= 400, source.name
