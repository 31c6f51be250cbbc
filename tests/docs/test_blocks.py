"""Every block of every page says what it is, and every spec in one lints as its page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from megatron_bridge.run_file import RunFile
from tests.language import TRACE
from tests.pages import ROOT, Block, blocks
from trace_dsl.explain import Kind, entries
from trace_dsl.lint import LintResult, lint_file
from trace_dsl.vocabulary import ESTIMATORS, HAS, ROLLOUT_ARGUMENTS, SEES, SOURCES, TEACHER_ARGUMENTS

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
KINDS = {"trace", "bash", "output", "python", "yaml", "text", "lua", "elisp", "toml"}
# A whole spec without a mark has no findings; a part of one has no errors; a bad one has findings. The specs of
# rules.md need the facts of a run and are tested with the rules.
MARKS: dict[str, frozenset[frozenset[str]]] = {
    "trace": frozenset({frozenset(), frozenset({"part"}), frozenset({"bad"}), frozenset({"good"})}),
    "bash": frozenset({frozenset(), frozenset({"fails"})}),
}


def page_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_blocks_say_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = blocks(text)
    assert len(re.findall(r"^```", text, flags=re.M)) == 2 * len(found)
    for block in found:
        assert block.kind in KINDS, block.text
        assert block.marks in MARKS.get(block.kind, {frozenset()}), block.text


@pytest.mark.parametrize("path", [path for path in PAGES if path.name != "rules.md"], ids=page_name)
def test_specs_lint_as_their_page_says(path: Path, tmp_path: Path) -> None:
    (tmp_path / "trace.trace").write_text(TRACE)  # what an example extends
    for number, block in enumerate(blocks(path.read_text(encoding="utf-8"))):
        if block.kind != "trace":
            continue
        spec = tmp_path / (block.title or f"{number}.trace")
        spec.write_text(block.text, encoding="utf-8")
        result = lint_file(spec)
        assert as_marked(block, result), f"{block.text}\n{[found.message for found in result.diagnostics]}"


def as_marked(block: Block, result: LintResult) -> bool:
    if "bad" in block.marks:
        return bool(result.diagnostics)
    return not (result.errors if "part" in block.marks else result.diagnostics)


def test_the_language_page_has_every_word() -> None:
    page = (DOCS / "language.md").read_text(encoding="utf-8")
    words = {entry.name for entry in entries() if entry.kind is not Kind.RULE} - {"route"}
    words |= {*SEES, *ESTIMATORS, *TEACHER_ARGUMENTS, *ROLLOUT_ARGUMENTS, *SOURCES, *HAS} - {"has"}
    code = " ".join([*re.findall(r"`([^`\n]+)`", page), *(block.text for block in blocks(page))])
    written = set(re.findall(r"\w+", code))
    assert not words - written


def test_the_run_file_page_has_every_setting() -> None:
    page = (DOCS / "run-file.md").read_text(encoding="utf-8")
    for name, field in RunFile.model_fields.items():
        group = getattr(field.annotation, "model_fields", None)
        if group is None:
            assert f"| `{name}` |" in page
            continue
        first = next(row for row in page.split("\n") if row.startswith(f"| `{name}."))
        rows = page[page.index(first) :]
        assert all(f"`{name}.{inner}`" in rows or f"`.{inner}`" in rows for inner in group)
