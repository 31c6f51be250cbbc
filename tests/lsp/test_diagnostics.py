"""Findings as editors see them: the same as the command line's, at the right places."""

from __future__ import annotations

from pathlib import Path

import pytest
from lsprotocol import types

from tests.language import TRACE, facts
from tests.lsp import document, text_at
from trace_dsl.lint import lint_text
from trace_dsl.lsp.diagnostics import diagnostics
from trace_dsl.lsp.document import Surroundings
from trace_dsl.rules import RuleSelection

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "tests/language/golden").glob("*.trace"))


def shown(text: str, around: Surroundings | None = None) -> list[types.Diagnostic]:
    return diagnostics(document(text, around=around))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_everything_that_the_command_line_finds_and_nothing_else(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = lint_text(text, path=str(path)).diagnostics
    told = diagnostics(document(text, path=path))
    assert [(one.code, one.severity.name.lower()) for one in told if one.severity] == [
        (one.rule, one.severity.value) for one in found
    ]
    for one, other in zip(found, told, strict=True):
        assert one.message in other.message
        assert one.consequence in other.message
        assert one.fix in other.message
        assert len(other.related_information or ()) == len(one.others) + bool(one.place.path)


def test_a_finding_in_full() -> None:
    (found,) = shown("rest: grpo()\nkey when correct: nll()\n", Surroundings(documentation="https://example.org/r"))
    assert found == types.Diagnostic(
        range=types.Range(types.Position(1, 0), types.Position(1, 23)),
        severity=types.DiagnosticSeverity.Error,
        code="shadowed-route",
        code_description=types.CodeDescription(href="https://example.org/r#shadowed-route"),
        source="trace-dsl",
        message=(
            "no token reaches `key when correct`: `rest` takes them all\n"
            "cost: the first route that matches wins, so the losses written here would never train anything\n"
            "fix: move it above the other, or give the other a predicate"
        ),
        related_information=[
            types.DiagnosticRelatedInformation(
                location=types.Location(
                    uri="file:///nowhere/spec.trace", range=types.Range(types.Position(0, 0), types.Position(0, 12))
                ),
                message="`rest` comes first",
            )
        ],
    )


def test_without_an_address_there_is_no_link() -> None:
    (found,) = shown("rest: grpo(w=0)\n")
    assert found.code_description is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("let a = 1\nrest: grpo()\n", "unused-let"),
        ("teacher = self(frozen)\nrest: grpo()\n", "teacher-unused"),
        ("rest: grpo()  # trace: ignore[zero-weight] old\n", "unused-suppression"),
    ],
)
def test_what_is_unused_is_greyed_out(text: str, rule: str) -> None:
    (found,) = shown(text)
    assert (found.code, found.tags) == (rule, [types.DiagnosticTag.Unnecessary])


def test_other_findings_are_not() -> None:
    assert [found.tags for found in shown("rest: grpo(w=0)\n")] == [None]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_places_are_in_the_units_that_were_agreed_on(encoding: str) -> None:
    text = 'teacher = model("\N{GRINNING FACE}é", seees=no)\nrest: fkl(anneal=cos)\n'
    (found,) = diagnostics(document(text, encoding=encoding))
    start = {"utf-8": 26, "utf-16": 23, "utf-32": 22}[encoding]
    assert found.range == types.Range(types.Position(0, start), types.Position(0, start + 5))


def test_places_in_documents_with_other_line_ends() -> None:
    for end in ("\r\n", "\r"):
        text = f"# \N{GRINNING FACE}{end}{end}rest: grpo(w=rewrd){end}"
        (found,) = shown(text)
        assert found.range == types.Range(types.Position(2, 13), types.Position(2, 18))


def test_a_line_separator_of_unicode_ends_no_line() -> None:
    spec = document("# a\u2028b\x0cc\nrest: grpo(w=rewrd)\n")
    (found,) = diagnostics(spec)
    assert text_at(spec, found.range) == "rewrd"


def test_half_a_surrogate_pair_is_survived() -> None:
    (found,) = shown("# \ud83d\nrest: grpo(w=rewrd) # \ud83d\n")
    assert found.range.start == types.Position(1, 13)


def test_rules_are_those_of_the_selection_and_the_run() -> None:
    assert shown("key: nll()\n", Surroundings(rules=RuleSelection(ignore=frozenset({"no-default-route"})))) == []
    assert shown(TRACE) == []
    assert {one.code for one in shown(TRACE, Surroundings(facts=facts(group_size=1)))} >= {"dead-advantage"}
    run = Surroundings(facts=facts())
    assert [one.code for one in shown("rest: grpo() + k3(w=0.1)\n", run)] == ["engine-unsupported"]


def test_what_is_wrong_with_settings_is_told_beside_the_findings() -> None:
    found = shown("rest: grpo(w=0)\n", Surroundings(problems=("pyproject.toml is not valid TOML",)))
    assert [one.code for one in found] == ["zero-weight", "settings"]
    assert found[1].range.start == types.Position(0, 0)


# -------------------------------------------------------------------------------------------------------------- extends


def folder(tmp_path: Path) -> Path:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "deep.trace").write_text("let \N{GRINNING FACE}\nlet unread = 2\n", encoding="utf-8")
    (tmp_path / "below" / "base.trace").write_text('extends "deep.trace"\nkey: nll(w=0)\n', encoding="utf-8")
    (tmp_path / "fine.trace").write_text("error: nll()\n", encoding="utf-8")
    return tmp_path


def test_findings_of_an_extended_spec_stand_at_its_extends(tmp_path: Path) -> None:
    path = folder(tmp_path) / "child.trace"
    text = 'extends "fine.trace"\nextends "below/base.trace"\nrest: grpo()\n'
    spec = document(text, path=path)
    found = diagnostics(spec)
    assert {one.code for one in found} == {"syntax", "unused-let", "zero-weight"}
    for one in found:
        assert text_at(spec, one.range) == '"below/base.trace"'
        assert one.tags is None
    of = {str(one.code): one for one in found}
    assert of["zero-weight"].message.startswith("in base.trace: ")
    related = (of["unused-let"].related_information or [])[0].location
    assert related.uri == (tmp_path / "below" / "deep.trace").as_uri()
    assert related.range.start == types.Position(1, 4)


def test_the_open_text_counts_and_extends_is_read_from_its_folder(tmp_path: Path) -> None:
    path = folder(tmp_path) / "child.trace"
    path.write_text("this is not a spec", encoding="utf-8")
    assert diagnostics(document('extends "fine.trace"\nrest: grpo()\n', path=path)) == []
    (found,) = diagnostics(document('extends "gone.trace"\nrest: grpo()\n', path=path))
    assert found.code == "bad-extends"


def test_a_replacement_says_in_data_what_its_fix_says_in_words() -> None:
    text = "let kl = 1\nrest: grpo(w=kll, aneal=cos) + GRPO() + nll(per=tokn, weight=1)\nkey when crrect: ppo()\n"
    spec = document(text)
    written = {}
    for found in lint_text(text).diagnostics:
        if found.replacement is not None:
            written[text_at(spec, spec.lines.range(found.replacement.place))] = found.replacement.text
            assert found.fix == f"did you mean `{found.replacement.text}`?"
    assert written == {
        "kll": "kl",
        "aneal": "anneal",
        "GRPO": "grpo",
        "tokn": "token",
        "weight": "w",
        "crrect": "correct",
        "ppo": "pg",
    }
