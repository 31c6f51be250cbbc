"""The words of lint on whole specs, reviewed as a diff (see golden_update)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.language.golden_update import FOLDER, output, specs
from trace_dsl.lint import lint_file


@pytest.mark.parametrize("spec", specs(), ids=lambda path: path.stem)
def test_golden(spec: Path) -> None:
    assert output(spec) == spec.with_suffix(".expected").read_text(encoding="utf-8")


def test_ten_mistakes_are_all_found_and_none_invented() -> None:
    """Unknown keys dropped in silence cost others hours (unsloth#10452); here one run names every mistake."""
    found = [(d.place.line, d.rule) for d in lint_file(FOLDER / "ten_mistakes.trace").diagnostics]
    assert found == [
        (2, "cap-exceeds-one"),
        (4, "unknown-argument"),
        (5, "ambiguous-unit"),
        (6, "unused-let"),
        (8, "unreachable-predicate"),
        (9, "unknown-span"),
        (10, "syntax"),
        (11, "unknown-name"),
        (11, "wrong-rank"),
        (12, "shadowed-route"),
    ]
